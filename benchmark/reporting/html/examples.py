"""Selects test examples on which methods differ, with their answers and the number of correct answers per pair.

The answers come from the stored predictions of the first seed. Prompts are not stored there: they are read from the
task's data, and shown only if their hash matches the prediction's. Pages are shared, but few data sets may be
redistributed: texts are included only for generated samples or on request (`--texts`); otherwise the page has example
ids and whether each method was right.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import NamedTuple

import numpy as np

import tasks
from benchmark.analysis.leaderboard import Leaderboard
from benchmark.config.profile import Profile
from benchmark.grid import data_hash, specs
from benchmark.grid.cells import Cell
from benchmark.reporting.html.page_records import AnswerComparison, ExampleRecord, ExampleSection, MethodAnswers
from benchmark.results.cell_result import CellResult
from benchmark.system import disk_cache, hashing
from benchmark.system.hashing import hash_prompt
from tasks.core.types import UsageError

MAX_EXAMPLES = 12  # examples shown per task
EXAMPLES_PER_DIRECTION = 2  # examples wanted per ordered pair of methods (first right, second wrong)
MAX_CANDIDATES = 500  # only the first test examples are candidates, so that few prompts are cached
PROMPT_HEAD_LENGTH = 420  # characters shown of the start and end of a long prompt; the question is at the end
PROMPT_TAIL_LENGTH = 260
PREDICTION_COLUMNS = ["uid", "asked", "target", "predicted", "correct"]
SYNTHETIC_ORIGIN = "sample"
TEXTS_WITHHELD = (
    "Texts are not included: some data sets may not be redistributed. `benchmark report --texts` includes them."
)


class CellAnswers(NamedTuple):
    """Predictions of one cell; all fields have one entry per test example."""

    uids: tuple[str, ...]
    prompt_hashes: tuple[str, ...]
    gold_answers: tuple[str, ...]
    predictions: tuple[str, ...]
    is_correct: np.ndarray  # [n] bool


def collect_examples(
    profile: Profile,
    leaderboard: Leaderboard,
    newest_results: Mapping[Cell, CellResult],
    include_texts: bool = False,
) -> dict[str, ExampleSection]:
    """Build the examples section of each task that has stored predictions. Task -> section.

    `include_texts`: include prompts and answers even if the data are not generated samples.
    """
    sections = {}
    for task in leaderboard.metrics:
        cells = {}
        show_texts = True
        for row in leaderboard.rows:
            shots, seed = (0, 0) if row.is_seed_independent else (row.shots, profile.seeds[0])
            result = newest_results.get(Cell(row.method, task, shots, seed))
            if result is None:
                continue
            answers = load_answers(profile, result)
            if answers:
                cells[row.method, row.shots] = answers
                show_texts = show_texts and (include_texts or is_synthetic(result))
        if cells:
            section = build_section(profile, task, cells, show_texts)
            sections[task] = section if show_texts else withhold_texts(section, task)
    return sections


def is_synthetic(result: CellResult) -> bool:
    """Return whether a cell used generated samples."""
    return all(record.origin == SYNTHETIC_ORIGIN for record in result.data.values())


def withhold_texts(section: ExampleSection, task: str) -> ExampleSection:
    """Remove the answers from a section, except label words, which belong to the task and not to the data."""
    label_words = set(specs.get_task_spec(task).words.values())

    def withhold(text: str | None) -> str | None:
        return text if text in label_words else None

    def withhold_predictions(comparison: AnswerComparison) -> AnswerComparison:
        answers = {
            method: replace(answers, predictions=[withhold(text) for text in answers.predictions])
            for method, answers in comparison.answers.items()
        }
        return replace(comparison, answers=answers)

    return replace(
        section,
        examples=[replace(example, expected_answer=withhold(example.expected_answer)) for example in section.examples],
        comparisons={shots: withhold_predictions(comparison) for shots, comparison in section.comparisons.items()},
    )


def load_answers(profile: Profile, result: CellResult) -> CellAnswers | None:
    """Load the predictions of a cell; None if the file is missing or does not match the hash in the result."""
    import pyarrow.parquet

    predictions = result.predictions
    if predictions is None:
        return None
    try:
        data = (profile.results_folder / predictions.path).read_bytes()
    except OSError:
        return None
    if sha256(data).hexdigest() != predictions.sha256:
        return None
    columns = pyarrow.parquet.ParquetFile(io.BytesIO(data)).read(columns=PREDICTION_COLUMNS)
    uids, prompt_hashes, targets, predictions = (tuple(columns[name].to_pylist()) for name in PREDICTION_COLUMNS[:-1])
    return CellAnswers(uids, prompt_hashes, targets, predictions, columns["correct"].to_numpy())


def build_section(
    profile: Profile,
    task: str,
    answers_by_variant: Mapping[tuple[str, int | str], CellAnswers],
    include_prompts: bool = True,
) -> ExampleSection:
    """Build a section: the chosen examples, and by shots the answers and how often each two methods were both right."""
    first = next(iter(answers_by_variant.values()))
    # cells with other prompts have another test split
    comparable = {
        key: answers for key, answers in answers_by_variant.items() if answers.prompt_hashes == first.prompt_hashes
    }
    is_correct = np.stack([answers.is_correct for answers in comparable.values()])
    indices = choose_examples(is_correct[:, :MAX_CANDIDATES], MAX_EXAMPLES)
    prompts: dict[str, str] = {}
    note = TEXTS_WITHHELD
    if include_prompts:
        prompts, note = load_prompt_texts(profile, task, first, indices)
    comparisons = {}
    for shots in dict.fromkeys(shots for _, shots in comparable):
        answers_by_method = {
            method: answers for (method, variant_shots), answers in comparable.items() if variant_shots == shots
        }
        comparisons[str(shots)] = build_comparison(answers_by_method, indices)
    return ExampleSection(
        num_examples=len(first.uids),
        seed=profile.seeds[0],
        examples=[ExampleRecord(first.uids[i], first.gold_answers[i], prompts.get(first.uids[i])) for i in indices],
        note=note,
        comparisons=comparisons,
    )


def build_comparison(answers_by_method: Mapping[str, CellAnswers], indices: Sequence[int]) -> AnswerComparison:
    """Build the answers to the chosen examples, and the counts over all examples."""
    is_correct = np.stack([answers.is_correct for answers in answers_by_method.values()]).astype(int)
    return AnswerComparison(
        methods=list(answers_by_method),
        num_both_correct=(is_correct @ is_correct.T).tolist(),
        answers={
            method: MethodAnswers(
                predictions=[answers.predictions[i] for i in indices],
                is_correct=[bool(answers.is_correct[i]) for i in indices],
            )
            for method, answers in answers_by_method.items()
        },
    )


def choose_examples(is_correct: np.ndarray, max_examples: int) -> list[int]:
    """Choose examples greedily so that most pairs of methods differ on some, then those that most methods got wrong.

    `is_correct` is [methods, examples]. Returns example indices.
    """
    is_correct = is_correct.astype(float)
    wanted = EXAMPLES_PER_DIRECTION * (1 - np.eye(len(is_correct)))
    chosen: list[int] = []
    for _ in range(min(max_examples, is_correct.shape[1])):
        # number of ordered pairs (a, b) with a right and b wrong, weighted by how many examples they still need
        gain = ((wanted @ (1 - is_correct)) * is_correct).sum(0)
        gain += 1e-3 * (1 - is_correct).mean(0)  # tie-break: the examples that most methods got wrong
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        wanted = np.maximum(0, wanted - np.outer(is_correct[:, best], 1 - is_correct[:, best]))
    return chosen


def load_prompt_texts(
    profile: Profile, task: str, answers: CellAnswers, indices: Sequence[int]
) -> tuple[dict[str, str], str]:
    """Load prompts whose hash matches that of the prediction. Returns (uid -> prompt, note on missing prompts)."""
    uids = answers.uids[:MAX_CANDIDATES]
    try:
        records = data_hash.hash_records(task, profile.source, profile.data_dir)
        key = ["prompts", task, specs.get_task_spec(task).code_hash, records, hashing.hash_json(uids)]
        texts = disk_cache.load_or_compute(key, lambda: read_prompts(profile, task, set(uids)))
    except (UsageError, OSError) as error:
        return {}, f"prompts cannot be read: {error}"
    prompts = {}
    for i in indices:
        text = texts.get(answers.uids[i])
        if text and hash_prompt(text[0], *text[1]) == answers.prompt_hashes[i]:
            prompts[answers.uids[i]] = shorten_prompt(text[0])
    if len(prompts) == len(indices):
        return prompts, ""
    return prompts, "some prompts are not shown: the data differ from those of the run"


def read_prompts(profile: Profile, task: str, uids: set[str]) -> dict[str, list]:
    """Read the test examples with these uids from the task's data. Uid -> [prompt, accepted answers]."""

    pool, _ = tasks.load_task(task)(data_source=profile.source, data_dir=profile.data_dir).load_pool()
    return {example.uid: [example.prompt, list(example.answers)] for example in pool["test"] if example.uid in uids}


def shorten_prompt(text: str) -> str:
    """Replace the middle of a long prompt by […]."""
    if len(text) <= PROMPT_HEAD_LENGTH + PROMPT_TAIL_LENGTH + 20:
        return text
    return f"{text[:PROMPT_HEAD_LENGTH]} […] {text[-PROMPT_TAIL_LENGTH:]}"
