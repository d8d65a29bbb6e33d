"""Records of the HTML page and their JSON. The template and the scripts read the fields under the names given here.

Scores, differences, half widths and standard deviations are x 100; half widths are those of 95 % confidence intervals.
`shots` is a number of training examples per label or "full"; keys of mappings by shots are strings, as in JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any


@dataclass(frozen=True)
class ScoreRecord:
    """The score of a method at one number of shots, on a task or averaged over a task group (all x 100)."""

    mean: float
    half_width: float | None  # None with a single seed
    num_seeds: int
    difference: float | None  # paired difference to the reference; None for the reference itself
    difference_half_width: float | None  # None without a variance estimate
    corrected_p_value: float | None  # of the difference, Holm-corrected for the number of methods
    tie_letters: str  # methods that share a letter are not significantly different
    unranked_reason: str  # empty if the method is ranked


@dataclass(frozen=True)
class CostRecord:
    """The cost of a method at one number of shots: means over its cells, peak memory as the largest."""

    trained_parameters: float | None
    seconds_per_cell: float | None  # without dependencies
    amortised_seconds: float | None  # with the cell's share of its dependencies
    standalone_seconds: float | None  # with all dependencies in full
    peak_bytes: float | None
    num_done: int  # finished cells
    num_due: int  # planned cells
    phase_seconds: dict[str, float]  # phase -> seconds per cell; phases that take no time are absent


@dataclass(frozen=True)
class RankClique:
    """Methods that do not differ significantly in rank: positions in `RankDiagram.methods`, both ends included."""

    first_index: int
    last_index: int


@dataclass(frozen=True)
class RankDiagram:
    """A critical-difference diagram: average ranks over the tasks of a group (1 is best)."""

    methods: list[str]  # best first
    mean_ranks: list[float]  # one per method
    critical_difference: float  # Nemenyi, in ranks
    p_value: float | None  # of Friedman's test; None with fewer than three methods
    num_tasks: int
    cliques: list[RankClique]


@dataclass(frozen=True)
class CrossingRecord:
    """A crossing of two methods' shot curves; see `analysis.shot_curves.Crossing`."""

    group_name: str  # a task group or a task
    method_a: str
    method_b: str
    shots_before: int | str
    shots_after: int | str
    crossing_shots: float | None  # interpolated; None if `shots_after` is full data
    is_first_above: bool  # whether method a is above after the crossing
    is_significant: bool


@dataclass(frozen=True)
class VarianceRow:
    """Standard deviation of a method's scores (x 100) if one random stream varies, with its 95 % interval."""

    method: str
    shots: int | str
    stream_title: str
    standard_deviation: float
    low: float
    high: float


@dataclass(frozen=True)
class CellRecord:
    """The result of one cell."""

    method: str
    task: str
    shots: int | str  # 0 where the seed changes nothing
    seed: int
    stage: str
    state: str  # done or failed
    score: float | None  # test score x 100
    seconds: float
    identity: str  # first 16 characters
    failure_reason: str  # empty unless failed


@dataclass(frozen=True)
class CurveRecord:
    """The learning curves of one cell. Step and value lists of a curve have the same length."""

    method: str
    task: str
    shots: str
    seed: int
    stage: str
    loss_steps: list[int]
    losses: list[float]  # training loss, nats
    dev_steps: list[int]
    dev_scores: list[float]  # x 100


@dataclass(frozen=True)
class TaskRecord:
    """Facts about a task that do not depend on results."""

    role: str  # source or target
    family: str
    form: str
    metric: str
    licence: str


@dataclass(frozen=True)
class MethodRecord:
    """Facts about a method that do not depend on results."""

    trained_part: str
    paper: str
    is_control: bool  # not trained by gradient descent
    is_seed_independent: bool
    has_source_stages: bool


@dataclass(frozen=True)
class ExampleRecord:
    """A test example shown on the page."""

    uid: str
    expected_answer: str | None  # None if texts are withheld
    prompt: str | None  # None if withheld or not readable


@dataclass(frozen=True)
class MethodAnswers:
    """Answers of one method, one entry per example of `ExampleSection.examples`."""

    predictions: list[str | None]  # None if texts are withheld
    is_correct: list[bool]


@dataclass(frozen=True)
class AnswerComparison:
    """Answers of all methods at one number of shots."""

    methods: list[str]
    num_both_correct: list[list[int]]  # [methods, methods] test examples that both methods answer correctly
    answers: dict[str, MethodAnswers]  # by method


@dataclass(frozen=True)
class ExampleSection:
    """The examples section of a task."""

    num_examples: int  # in the test split
    seed: int  # seed of the cells that gave the answers
    examples: list[ExampleRecord]
    note: str  # why texts are missing; empty if none is
    comparisons: dict[str, AnswerComparison]  # by shots


@dataclass(frozen=True)
class PageState:
    """What the reader selects on the page, stored in the address."""

    shots: str
    role: str
    family: str
    method_a: str  # the two compared methods
    method_b: str
    cost: str  # a key of `PageData.cost_titles`
    sort: str  # column of the leaderboard
    direction: str  # up or down
    task: str  # the open task section; empty if none is open


@dataclass(frozen=True)
class PageData:
    """All numbers that the scripts of the page read."""

    scores: dict[str, dict[str, dict[str, ScoreRecord]]]  # shots -> task group or task -> method
    costs: dict[str, dict[str, CostRecord]]  # shots -> method
    cautions: dict[str, dict[str, list[str]]]  # shots -> method -> remarks
    references: dict[str, str]  # shots -> method that the others are compared to
    headlines: dict[str, str]  # by shots
    shots_titles: dict[str, str]  # shots -> title, in the order of the leaderboard
    group_names: dict[str, str]  # "role/family" -> task group or task
    task_groups: dict[str, tuple[str, ...]]  # task group -> tasks
    methods: dict[str, MethodRecord]
    tasks: dict[str, TaskRecord]
    rank_diagrams: dict[str, dict[str, RankDiagram]]  # shots -> task group
    crossings: list[CrossingRecord]
    curves: list[CurveRecord]
    cells: list[CellRecord]
    examples: dict[str, ExampleSection]  # by task
    rerun_command: str  # without the cell
    cost_titles: dict[str, str]
    phases: tuple[str, ...]  # keys of `CostRecord.phase_seconds`, in the order of the time chart
    num_seeds: int
    default_state: PageState


# Fields of `PageData` with many records: encoded as tables, because field names in each record would double their size.
TABLES: dict[str, type] = {
    "scores": ScoreRecord,
    "costs": CostRecord,
    "crossings": CrossingRecord,
    "curves": CurveRecord,
    "cells": CellRecord,
}


def encode_page_data(page_data: PageData) -> dict[str, Any]:
    """Convert the data of the page to JSON values; `decodeRecords` of state.js decodes the fields in `TABLES`."""
    return {
        field.name: encode_table(TABLES[field.name], getattr(page_data, field.name))
        if field.name in TABLES
        else convert_to_json(getattr(page_data, field.name))
        for field in fields(page_data)
    }


def encode_table(record_type: type, records: Any) -> dict[str, Any]:
    """Encode records as {"columns": field names, "rows": values in the order of the columns}.

    `records` is a list, or nested mappings with one record at each leaf; `rows` has the same shape.
    """
    columns = [field.name for field in fields(record_type)]

    def encode_rows(part: Any) -> Any:
        if isinstance(part, record_type):
            return [convert_to_json(getattr(part, column)) for column in columns]
        if isinstance(part, Mapping):
            return {key: encode_rows(value) for key, value in part.items()}
        return [encode_rows(value) for value in part]

    return {"columns": columns, "rows": encode_rows(records)}


def convert_to_json(value: Any) -> Any:
    """Convert records to objects with the names of their fields, also inside mappings and sequences."""
    if is_dataclass(value):
        return {field.name: convert_to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: convert_to_json(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [convert_to_json(entry) for entry in value]
    return value
