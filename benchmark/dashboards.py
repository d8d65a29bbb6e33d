"""Weights & Biases, as a view of the result files: a light run per cell, one summary run with the tables.

Written at the end, from the files, so cells cost nothing. Run ids come from identities: writing again duplicates
nothing. Offline unless uploading is asked for. The only file that imports wandb.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.catalogue import digest
from benchmark.grid import TARGET
from benchmark.profile import Profile
from benchmark.report import collect
from benchmark.result import backbone_title
from benchmark.store import Store
from benchmark.table import Board, board
from tasks.example import UsageError

if TYPE_CHECKING:
    from benchmark.standing import Standings

PROJECT = "adapterbench"
WHOLE = "whole"  # file in the folder of a run that was written to its end
# The same ten in every run: W&B draws a panel for each name it meets, so everything else goes into the config.
METRICS = (
    "score", "dev_score", "loss", "trained_parameters", "adapter_bytes", "peak_bytes", "seconds", "train_seconds",
    "test_seconds", "tokens_per_second",
)  # fmt: skip


def write(profile: Profile, mode: str) -> tuple[int, Path]:
    """-> (runs of cells in the folder, the folder). `online` uploads, `offline` only writes."""
    store = Store(profile.folder)
    place = store.folder.resolve() / "wandb"
    if mode == "online" and not key():
        raise UsageError("--wandb online needs an account: `wandb login` or WANDB_API_KEY; offline writes files only")
    place.mkdir(parents=True, exist_ok=True)
    _, results, _ = collect(profile, store)
    done = [result for result in results if result["state"] == "done"]
    with losses():
        for result in done:
            if not whole(place, mode, run_id(result)):
                cell(profile, result, mode, store.folder)
                for run in runs(place, mode, run_id(result)):
                    (run / WHOLE).touch()
        summary(board(profile, done), done, mode, store.folder)
    return len(done), profile.folder / "wandb"


class Lost(Exception):
    """W&B, or the way there, failed."""


@contextmanager
def losses() -> Iterator[None]:
    """What W&B raises where it cannot be reached, or breaks off, in one line."""
    import wandb

    try:
        yield
    except (wandb.Error, OSError) as error:
        raise Lost(" ".join(f"{type(error).__name__}: {error}".split())[:200]) from error


def whole(place: Path, mode: str, run: str) -> bool:
    """Whether a run was written to its end; what broke off is removed, so that it is written once."""
    found = runs(place, mode, run)
    if any((folder / WHOLE).exists() for folder in found):
        return True
    for folder in found:
        shutil.rmtree(folder)
    return False


def key() -> str | None:
    """The account's key, where there is one. It is only asked for, never kept or shown."""
    import wandb

    return os.environ.get("WANDB_API_KEY") or wandb.api.api_key


def run_id(result: Mapping[str, Any]) -> str:
    return result["identity"][:16]


def runs(place: Path, mode: str, run: str) -> list[Path]:
    """Folders of a run that was written this way before."""
    return list(place.glob(f"{'run' if mode == 'online' else 'offline-run'}-*-{run}"))


def start(folder: Path, mode: str, **options: Any) -> Any:
    """A run that records what it is given and nothing about this machine."""
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        host="-",
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )
    return wandb.init(project=PROJECT, dir=folder, mode=mode, reinit="finish_previous", settings=settings, **options)


def cell(profile: Profile, result: Mapping[str, Any], mode: str, folder: Path) -> None:
    """One cell's run: its learning curves, and the ten numbers."""
    at = result["cell"]
    tags = [str(at["task"]), f"{at['shots']} shots"]
    facts = {"identity": result["identity"], "seed": at["seed"], "backbone": result["backbone"]["name"]}
    config = {**at, **result["parts"]["options"], **facts, "commit": result["environment"].get("commit")}
    named = {"id": run_id(result), "name": result["key"], "group": profile.name, "job_type": at["method"]}
    run = start(folder, mode, **named, tags=tags, config=config)
    for step, values in curves(result["training"]):
        run.log(values, step=step, commit=True)  # uncommitted, the last point would overwrite the summary
    run.summary.update(numbers(result))
    run.finish()


def curves(training: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, values), in order."""
    points: dict[int, dict[str, float]] = {}
    for step, loss in training["loss"]:
        points.setdefault(step, {})["loss"] = loss
    for step, score, _ in training["dev"]:
        points.setdefault(step, {})["dev_score"] = score
    yield from sorted(points.items())


def numbers(result: Mapping[str, Any]) -> dict[str, float | None]:
    """The ten, as far as this cell has them."""
    cost, dev = result["cost"], list(result["metrics"]["dev"].values())
    found = {
        "score": result["metrics"].get("test", {}).get(result["task"]["metric"]),
        "dev_score": sum(dev) / len(dev) if dev else None,
        "loss": result["training"]["loss"][-1][1] if result["training"]["loss"] else None,
        "seconds": result["times"]["seconds"],
        "train_seconds": cost["seconds"].get("train"),
        "test_seconds": cost["seconds"].get("test"),
        **{name: cost[name] for name in ("trained_parameters", "adapter_bytes", "peak_bytes", "tokens_per_second")},
    }
    return {name: found[name] for name in METRICS if found[name] is not None}


def summary(table: Board, done: Sequence[Mapping[str, Any]], mode: str, folder: Path) -> None:
    """The grid's run: cells, a matrix per number of shots, differences, ties, cost. Always anew, under the same id."""
    import wandb

    from benchmark.standing import standings

    profile = table.profile
    run = digest(["summary", profile.name, backbone_title(profile.backbone.name), profile.source])[:16]
    for old in runs(folder.resolve() / "wandb", "offline", run):
        shutil.rmtree(old)
    config = {"backbone": backbone_title(profile.backbone.name), "source": profile.source, "seeds": list(profile.seeds)}
    named = {"id": run, "name": f"summary of {profile.name}", "group": profile.name, "job_type": "summary"}
    opened = start(folder, mode, **named, tags=["summary"], config=config)
    worth = standings(table, done)
    tables = {"cells": cells(done), "cost": costs(table), "differences": differences(worth), "ties": ties(table, worth)}
    tables |= {f"matrix/{shots}": matrix(table, shots) for shots in dict.fromkeys(line.shots for line in table.lines)}
    opened.log({name: wandb.Table(columns=columns, data=rows) for name, (columns, rows) in tables.items()})
    pictures = {path.stem.replace("-", "/", 1): path for path in sorted((folder / "report").glob("inside-*.png"))}
    opened.log({name: wandb.Image(str(path)) for name, path in pictures.items()})
    opened.finish()


def cells(done: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """A row per cell, numbers as numbers."""
    rows = []
    for result in done:
        at, values = result["cell"], numbers(result)
        if at["stage"] == TARGET:
            rows.append(
                [at["method"], at["task"], str(at["shots"]), at["seed"], *(values.get(name) for name in METRICS)]
            )
    return ["method", "task", "shots", "seed", *METRICS], rows


def matrix(table: Board, shots: int | str) -> tuple[list[str], list[list[Any]]]:
    """Methods x tasks: means x 100, averages first; empty where something is missing."""
    columns = ["method", *table.groups, *table.metrics]
    rows = [
        [
            line.method,
            *(_mean(line.averages[name]) for name in table.groups),
            *(_mean(line.tasks[t]) for t in table.metrics),
        ]
        for line in table.at(shots)
    ]
    return columns, rows


def differences(worth: "Standings") -> tuple[list[str], list[list[Any]]]:
    """A row per method, shots and task or average: the paired difference to the reference x 100, with its interval."""
    from benchmark.standing import GAP, gap

    rows = []
    for (method, shots, name), standing in worth.rows.items():
        if standing.difference:
            mean, low, high, p, seeds, size = gap(standing)
            points = [None if value is None else round(100 * value, 4) for value in (mean, low, high)]
            size = None if size is None else round(100 * size, 4)
            rows.append([method, worth.reference[shots], str(shots), name, *points, p, seeds, size])
    return ["method", "reference", "shots", "name", *GAP], rows


def ties(table: Board, worth: "Standings") -> tuple[list[str], list[list[Any]]]:
    """A row per method, shots and average: its tie groups, or why it has none; its average rank on the first."""
    rows, first = [], next(iter(table.groups))
    for line in table.lines:
        names, ranks = worth.ranks.get(line.shots, ((), None))
        rank = dict(zip(names, ranks.mean, strict=True)).get(line.method) if ranks else None
        for name in table.groups:
            standing = worth.rows[line.method, line.shots, name]
            gap_ = ranks.gap if rank is not None and name == first else None
            rows.append([line.method, str(line.shots), name, _mean(line.averages[name]), standing.letters,
                         standing.flag, rank if name == first else None, gap_])  # fmt: skip
    return ["method", "shots", "name", "mean", "ties", "flag", "average_rank", "critical_difference"], rows


def costs(table: Board) -> tuple[list[str], list[list[Any]]]:
    columns = ["method", "shots", "trained_parameters", "seconds_per_cell", "peak_bytes", "done", "due"]
    return columns, [[line.method, str(line.shots), line.trained, line.seconds, line.bytes, line.done, line.due]
                     for line in table.lines]  # fmt: skip


def _mean(figure: Any) -> float | None:
    return None if figure is None else round(100 * figure.mean, 4)
