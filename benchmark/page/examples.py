"""Test examples on which methods differ, with what each answered, and for each pair how often it was right or wrong.

Read from the kept predictions of the first seed. Prompts are not in them: they are read from the task's own records
once, and only shown where they have the hash that was asked. A page is made to be handed on, and few data sets may be:
texts are in it where they are the generated samples, or where they were asked for; else ids, and who was right.
"""

import io
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from benchmark import catalogue
from benchmark.profile import Profile
from benchmark.result import hashed
from benchmark.table import Board
from tasks.example import UsageError

SHOWN = 12  # examples of a task
TWICE = 2  # examples on which a pair differs that are wanted, each way
POOL = 500  # of the test set's first: prompts of the whole of a large one are not kept
HEAD = 420  # characters of a long prompt: it ends in the question
TAIL = 260
COLUMNS = ["uid", "asked", "target", "predicted", "correct"]
SAMPLE = "sample"
WITHHELD = "texts are not in this page: not all data sets may be handed on. `benchmark report --texts` adds them."


class Answers(NamedTuple):
    """Of one cell."""

    uids: tuple[str, ...]
    asked: tuple[str, ...]
    targets: tuple[str, ...]
    said: tuple[str, ...]
    right: np.ndarray  # [n] bool


def collected(
    profile: Profile, table: Board, done: Mapping[tuple, Mapping[str, Any]], texts: bool = False
) -> dict[str, dict]:
    """task -> what its section shows, where there are predictions. `done`: (method, task, shots, seed) -> result.

    `texts`: with what was asked and answered, whatever the records are.
    """
    found = {}
    for task in table.metrics:
        cells, open_ = {}, True
        for line in table.lines:
            key = (line.method, task, 0, 0) if line.fixed else (line.method, task, line.shots, profile.seeds[0])
            if (result := done.get(key)) and (answers := read(profile, result)):
                cells[line.method, line.shots] = answers
                open_ = open_ and (texts or generated(result))
        if cells:
            own = section(profile, task, cells, open_)
            found[task] = own if open_ else withheld(own, task)
    return found


def generated(result: Mapping[str, Any]) -> bool:
    """Whether a cell's records are the generated samples: it says so, or is of old and has their hash."""
    if origin := result["data"].get("origin"):
        return origin == SAMPLE
    own = catalogue.digest([catalogue.digest([SAMPLE, catalogue.samples()])])
    return result["parts"]["records"] == own


def withheld(found: dict, task: str) -> dict:
    """A section without the answers too, but for words that are the task's own."""
    words = set(catalogue.task(task)["words"].values())
    for shown in found["examples"]:
        shown["target"] = shown["target"] if shown["target"] in words else None
    for own in found["shots"].values():
        said = own["said"].items()
        own["said"] = {name: [[text if text in words else None, ok] for text, ok in each] for name, each in said}
    return found


def read(profile: Profile, result: Mapping[str, Any]) -> Answers | None:
    """What a cell answered; nothing where its predictions are gone or are not those that were scored."""
    import pyarrow.parquet

    kept = result["predictions"]
    try:
        data = (profile.folder / kept["file"]).read_bytes()
    except OSError:
        return None
    if sha256(data).hexdigest() != kept["sha256"]:
        return None
    file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
    if not set(COLUMNS) <= set(file.schema_arrow.names):
        return None
    columns = file.read(columns=COLUMNS)
    uids, asked, targets, said = (tuple(columns[name].to_pylist()) for name in COLUMNS[:-1])
    return Answers(uids, asked, targets, said, columns["correct"].to_numpy())


def section(profile: Profile, task: str, cells: Mapping[tuple[str, int | str], Answers], prompts: bool = True) -> dict:
    """The examples, what was answered to them, and by shots how often two methods were both right."""
    first = next(iter(cells.values()))
    same = {key: answers for key, answers in cells.items() if answers.asked == first.asked}  # the others: another split
    right = np.stack([answers.right for answers in same.values()])
    places = telling(right[:, :POOL], SHOWN)
    asked, why = texts(profile, task, first, places) if prompts else ({}, WITHHELD)
    shown = [{"uid": first.uids[i], "target": first.targets[i], "prompt": asked.get(first.uids[i])} for i in places]
    said = {key: [[answers.said[i], bool(answers.right[i])] for i in places] for key, answers in same.items()}
    pairs: dict = {}
    for shots in dict.fromkeys(shots for _, shots in same):
        names = [method for method, at in same if at == shots]
        own = np.stack([same[name, shots].right for name in names]).astype(int)
        pairs[str(shots)] = {
            "methods": names,
            "both": (own @ own.T).tolist(),
            "said": {name: said[name, shots] for name in names},
        }
    return {"n": len(first.uids), "seed": profile.seeds[0], "examples": shown, "why": why, "shots": pairs}


def telling(right: np.ndarray, most: int) -> list[int]:
    """[m, n] -> the examples by which most pairs are seen to differ, both ways, then others that some got wrong."""
    right = right.astype(float)
    wanted = TWICE * (1 - np.eye(len(right)))
    chosen: list[int] = []
    for _ in range(min(most, right.shape[1])):
        gain = ((wanted @ (1 - right)) * right).sum(0)  # pairs (a, b), a right and b wrong, as often as still wanted
        gain += 1e-3 * (1 - right).mean(0)  # where all pairs are shown: those that most got wrong
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        wanted = np.maximum(0, wanted - np.outer(right[:, best], 1 - right[:, best]))
    return chosen


def texts(profile: Profile, task: str, answers: Answers, places: Sequence[int]) -> tuple[dict[str, str], str]:
    """(uid -> prompt, or why there are none). A prompt is the one that was asked, or it is not shown."""
    uids = answers.uids[:POOL]
    try:
        records = catalogue.records(task, profile.source, profile.data_dir)
        key = ["prompts", task, catalogue.task(task)["code"], records, catalogue.digest(uids)]
        found = catalogue.remembered(key, lambda: prompts(profile, task, set(uids)))
    except (UsageError, OSError) as error:
        return {}, f"prompts cannot be read: {error}"
    shown = {answers.uids[i]: found.get(answers.uids[i]) for i in places}
    asked = {answers.uids[i]: answers.asked[i] for i in places}
    kept = {uid: short(text[0]) for uid, text in shown.items() if text and hashed(text[0], *text[1]) == asked[uid]}
    return kept, "" if len(kept) == len(places) else "some prompts are not shown: the records are not those asked"


def prompts(profile: Profile, task: str, uids: set[str]) -> dict[str, list]:
    """uid -> [prompt, accepted answers], from the records."""
    import tasks

    pool, _ = tasks.load(task)(source=profile.source, data_dir=profile.data_dir).pool()
    return {one.uid: [one.prompt, list(one.answers)] for one in pool["test"] if one.uid in uids}


def short(text: str) -> str:
    return text if len(text) <= HEAD + TAIL + 20 else f"{text[:HEAD]} […] {text[-TAIL:]}"
