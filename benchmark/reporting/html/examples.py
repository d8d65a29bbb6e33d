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

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.config.profile import Profile
from benchmark.grid import data_hash, specs
from benchmark.system import disk_cache, hashing
from benchmark.system.hashing import hash_prompt
from tasks.core.types import UsageError

MAX_EXAMPLES = 12  # examples of a task
EXAMPLES_PER_DIRECTION = 2  # examples on which a pair differs that are wanted, each way
MAX_CANDIDATES = 500  # of the test set's first: prompts of the whole of a large one are not kept
PROMPT_HEAD_LENGTH = 420  # characters of a long prompt: it ends in the question
PROMPT_TAIL_LENGTH = 260
PREDICTION_COLUMNS = ["uid", "asked", "target", "predicted", "correct"]
SYNTHETIC_ORIGIN = "sample"
TEXTS_WITHHELD = "texts are not in this page: not all data sets may be handed on. `benchmark report --texts` adds them."


class CellAnswers(NamedTuple):
    """Of one cell."""

    uids: tuple[str, ...]
    prompt_hashes: tuple[str, ...]
    gold_answers: tuple[str, ...]
    predictions: tuple[str, ...]
    is_correct: np.ndarray  # [n] bool


def collect_examples(
    profile: Profile,
    leaderboard: Leaderboard,
    newest_results: Mapping[tuple, Mapping[str, Any]],
    include_texts: bool = False,
) -> dict[str, dict]:
    """task -> what its section shows, where there are predictions. `done`: (method, task, shots, seed) -> result.

    `texts`: with what was asked and answered, whatever the records are.
    """
    found = {}
    for task in leaderboard.metrics:
        cells, open_ = {}, True
        for line in leaderboard.rows:
            key = (
                (line.method, task, 0, 0)
                if line.is_seed_independent
                else (line.method, task, line.shots, profile.seeds[0])
            )
            if (result := newest_results.get(key)) and (answers := load_answers(profile, result)):
                cells[line.method, line.shots] = answers
                open_ = open_ and (include_texts or is_synthetic(result))
        if cells:
            own = build_section(profile, task, cells, open_)
            found[task] = own if open_ else withhold_texts(own, task)
    return found


def is_synthetic(result: Mapping[str, Any]) -> bool:
    """Whether a cell's records are the generated samples: it says so, or is of old and has their hash."""
    if origin := result["data"].get("origin"):
        return origin == SYNTHETIC_ORIGIN
    own = hashing.hash_json([hashing.hash_json([SYNTHETIC_ORIGIN, data_hash.hash_synthetic_generators()])])
    return result["parts"]["records"] == own


def withhold_texts(section: dict, task: str) -> dict:
    """A section without the answers too, but for words that are the task's own."""
    words = set(specs.get_task_spec(task).words.values())
    for shown in section["examples"]:
        shown["target"] = shown["target"] if shown["target"] in words else None
    for own in section["shots"].values():
        said = own["said"].items()
        own["said"] = {name: [[text if text in words else None, ok] for text, ok in each] for name, each in said}
    return section


def load_answers(profile: Profile, result: Mapping[str, Any]) -> CellAnswers | None:
    """What a cell answered; nothing where its predictions are gone or are not those that were scored."""
    import pyarrow.parquet

    kept = result["predictions"]
    try:
        data = (profile.results_folder / kept["file"]).read_bytes()
    except OSError:
        return None
    if sha256(data).hexdigest() != kept["sha256"]:
        return None
    file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
    if not set(PREDICTION_COLUMNS) <= set(file.schema_arrow.names):
        return None
    columns = file.read(columns=PREDICTION_COLUMNS)
    uids, asked, targets, said = (tuple(columns[name].to_pylist()) for name in PREDICTION_COLUMNS[:-1])
    return CellAnswers(uids, asked, targets, said, columns["correct"].to_numpy())


def build_section(
    profile: Profile,
    task: str,
    answers_by_variant: Mapping[tuple[str, int | str], CellAnswers],
    include_prompts: bool = True,
) -> dict:
    """The examples, what was answered to them, and by shots how often two methods were both right."""
    first = next(iter(answers_by_variant.values()))
    same = {
        key: answers for key, answers in answers_by_variant.items() if answers.prompt_hashes == first.prompt_hashes
    }  # the others: another split
    right = np.stack([answers.is_correct for answers in same.values()])
    places = choose_examples(right[:, :MAX_CANDIDATES], MAX_EXAMPLES)
    asked, why = load_prompt_texts(profile, task, first, places) if include_prompts else ({}, TEXTS_WITHHELD)
    shown = [
        {"uid": first.uids[i], "target": first.gold_answers[i], "prompt": asked.get(first.uids[i])} for i in places
    ]
    said = {
        key: [[answers.predictions[i], bool(answers.is_correct[i])] for i in places] for key, answers in same.items()
    }
    pairs: dict = {}
    for shots in dict.fromkeys(shots for _, shots in same):
        names = [method for method, at in same if at == shots]
        own = np.stack([same[name, shots].is_correct for name in names]).astype(int)
        pairs[str(shots)] = {
            "methods": names,
            "both": (own @ own.T).tolist(),
            "said": {name: said[name, shots] for name in names},
        }
    return {"n": len(first.uids), "seed": profile.seeds[0], "examples": shown, "why": why, "shots": pairs}


def choose_examples(is_correct: np.ndarray, max_examples: int) -> list[int]:
    """[m, n] -> the examples by which most pairs are seen to differ, both ways, then others that some got wrong."""
    is_correct = is_correct.astype(float)
    wanted = EXAMPLES_PER_DIRECTION * (1 - np.eye(len(is_correct)))
    chosen: list[int] = []
    for _ in range(min(max_examples, is_correct.shape[1])):
        gain = ((wanted @ (1 - is_correct)) * is_correct).sum(
            0
        )  # pairs (a, b), a right and b wrong, as often as still wanted
        gain += 1e-3 * (1 - is_correct).mean(0)  # where all pairs are shown: those that most got wrong
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        wanted = np.maximum(0, wanted - np.outer(is_correct[:, best], 1 - is_correct[:, best]))
    return chosen


def load_prompt_texts(
    profile: Profile, task: str, answers: CellAnswers, indices: Sequence[int]
) -> tuple[dict[str, str], str]:
    """(uid -> prompt, or why there are none). A prompt is the one that was asked, or it is not shown."""
    uids = answers.uids[:MAX_CANDIDATES]
    try:
        records = data_hash.hash_records(task, profile.source, profile.data_dir)
        key = ["prompts", task, specs.get_task_spec(task).code_hash, records, hashing.hash_json(uids)]
        found = disk_cache.load_or_compute(key, lambda: read_prompts(profile, task, set(uids)))
    except (UsageError, OSError) as error:
        return {}, f"prompts cannot be read: {error}"
    shown = {answers.uids[i]: found.get(answers.uids[i]) for i in indices}
    asked = {answers.uids[i]: answers.prompt_hashes[i] for i in indices}
    kept = {
        uid: shorten_prompt(text[0])
        for uid, text in shown.items()
        if text and hash_prompt(text[0], *text[1]) == asked[uid]
    }
    return kept, "" if len(kept) == len(indices) else "some prompts are not shown: the records are not those asked"


def read_prompts(profile: Profile, task: str, uids: set[str]) -> dict[str, list]:
    """uid -> [prompt, accepted answers], from the records."""
    import tasks

    pool, _ = tasks.load_task(task)(data_source=profile.source, data_dir=profile.data_dir).load_pool()
    return {one.uid: [one.prompt, list(one.answers)] for one in pool["test"] if one.uid in uids}


def shorten_prompt(text: str) -> str:
    return (
        text
        if len(text) <= PROMPT_HEAD_LENGTH + PROMPT_TAIL_LENGTH + 20
        else f"{text[:PROMPT_HEAD_LENGTH]} […] {text[-PROMPT_TAIL_LENGTH:]}"
    )
