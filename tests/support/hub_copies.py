"""Every task's hub copy in the form of the original, small, made from records that the samples generate."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from datasets import ClassLabel, Dataset

import tasks
from tasks.core.sources import GitHub, LocalSource
from tasks.synthetic import generators
from tests.support.hub_server import Hub

CODES = [str(code) for code in range(100, 117) if code not in (105, 111)]
NLI = ["neutral", "entailment", "contradiction"]
NAMES = {"afqmc": ["0", "1"], "cmnli": NLI, "ocnli": NLI, "chnsent": ["negative", "positive"], "tnews": CODES}
UNLABELLED = ("afqmc", "cmnli", "ocnli", "tnews")  # have a public test split, without labels
ABSENT = ("keywords", "label_des", "id")  # fields of the samples that the hub's copy has not


def write(folder: Path, *wanted: str) -> None:
    """The original files of these tasks (all: none named), with a few records."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generators, "SIZES", {"train": 40, "test": 20})
        for name in wanted or tasks.TASK_NAMES:
            generators.write_task_files(name, folder)


def original(name: str, folder: Path) -> LocalSource:
    return LocalSource(name, tasks.load_task(name).files, folder)


def records(name: str, part: str, folder: Path) -> list[dict]:
    found = original(name, folder)
    return list(found.iter_records(found.find_parts()[part]))


def rows(name: str, part: str, folder: Path) -> list[dict]:
    """The records of a file with the columns and label ids of the hub."""
    task = tasks.load_task(name)
    renamed = {ours: theirs for theirs, ours in task.hub.columns.items()}
    ids = {name: index for index, name in enumerate(NAMES.get(name, ()))}
    ids |= {label: ids[alias] for alias, label in task.aliases.items() if alias in ids}
    ids |= {alias: ids[label] for alias, label in task.aliases.items() if label in ids}
    made = []
    for index, row in enumerate(records(name, part, folder)):
        row = {renamed.get(key, key): value for key, value in row.items() if key not in ABSENT}
        if ids:
            row |= {"label": ids[str(row["label"])], "idx": index}
        if "score" in row:
            row["score"] = float(row["score"])  # C-MTEB has labels as scores
        if "answers" in row:
            starts = [row["context"].find(text) for text in row["answers"]["text"]]
            row |= {"id": f"{name}-{index}", "answers": row["answers"] | {"answer_start": starts}}
        made.append(row)
    return made


def parquet(found: list[dict], names: list[str] | None = None) -> bytes:
    table, target = Dataset.from_list(found), io.BytesIO()
    if names:
        table = table.cast_column("label", ClassLabel(names=names))
    table.to_parquet(target)
    return target.getvalue()


def splits(name: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    """(split, its Parquet file) of a task. The samples have no dev: a few of test stand in."""
    there, names = original(name, folder).find_parts(), NAMES.get(name)
    for part, split in tasks.load_task(name).hub.splits.items():
        found = rows(name, part, folder) if part in there else rows(name, "test", folder)[:3]
        yield split, parquet(found, names)
    if name in UNLABELLED:
        yield "test", parquet([row | {"label": -1} for row in rows(name, "test", folder)[:5]], names)


def raw(name: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    """(path, content) of a task's original files; a dev that the samples have not is its test once more."""
    for path in (folder / name).rglob("*"):
        if path.is_file():
            yield str(path.relative_to(folder / name)), path.read_bytes()
    parts = {file.part: file.paths for file in tasks.load_task(name).files}
    for path, other in zip(parts.get("dev", ()), parts["test"], strict=False):
        yield path, (folder / name / other).read_bytes()


def put(hub: Hub, folder: Path, *wanted: str) -> None:
    """The copies of these tasks (all: none named). A repository of several tasks gets a card that lists them."""
    cards: dict[tuple[str, str], list[dict]] = {}
    for name in wanted or tasks.TASK_NAMES:
        its = tasks.load_task(name).hub
        if isinstance(its, GitHub):
            files = {f"{its.folder}/{path}": data for path, data in raw(name, folder)}
            hub.put("raw", its.repository, files, its.commit)
            continue
        files = {f"{its.config or 'data'}/{split}-00000-of-00001.parquet": data for split, data in splits(name, folder)}
        hub.put("dataset", its.id, files, its.revision)
        listed = [{"split": Path(path).name.split("-")[0], "path": path} for path in files]
        config = {"config_name": its.config or "default", "data_files": listed}
        cards.setdefault((its.id, its.revision), []).append(config)
    for (name, revision), configs in cards.items():
        hub.put("dataset", name, {"README.md": f"---\n{yaml.safe_dump({'configs': configs})}---\n"}, revision)
