"""What a leaderboard's numbers are worth: differences to a reference, flags, ties, ranks; in words and numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from benchmark.analysis.intervals import CONFIDENCE_LEVEL
from benchmark.analysis.leaderboard import Leaderboard, LeaderboardRow
from benchmark.analysis.paired import PairedScores
from benchmark.analysis.statistics import (
    AverageRanks,
    PairedDifference,
    apply_holm_correction,
    compute_average_ranks,
    find_tie_groups,
)

DEFAULT_REFERENCE = "lora"
AT_MAJORITY = "within noise of majority"
BELOW_HEAD = "below head_only"
DIFFERENCE_COLUMNS = (
    "difference",
    "difference_low",
    "difference_high",
    "difference_p",
    "difference_seeds",
    "detectable",
)


class RowSignificance(NamedTuple):
    """What a line's number on a task or an average is worth beside others."""

    difference: PairedDifference | None  # to the reference
    corrected_p_value: float | None  # of it, corrected for the number of methods (Holm)
    tie_letters: str  # of its tie groups; none for controls and flagged lines
    unranked_reason: str


class LeaderboardSignificance(NamedTuple):
    """Of a whole board."""

    reference_by_shots: dict[int | str, str]  # shots -> method
    entries: dict[tuple[str, int | str, str], RowSignificance]  # (method, shots, task or average)
    average_ranks: dict[
        tuple[int | str, str], tuple[list[str], AverageRanks]
    ]  # (shots, average) -> methods in order, over its tasks
    paired_scores: PairedScores

    @property
    def unusable_cells(self) -> dict[str, str]:
        """Cell -> why it cannot be compared."""
        return self.paired_scores.unusable_cells


def compute_significance(
    leaderboard: Leaderboard, results: Sequence[Mapping[str, Any]], preferred_reference: str = DEFAULT_REFERENCE
) -> LeaderboardSignificance:
    """Differences, flags, ties and ranks at every number of shots."""
    kept = PairedScores(leaderboard.profile, results)
    found = LeaderboardSignificance({}, {}, {}, kept)
    for shots in dict.fromkeys(line.shots for line in leaderboard.rows):
        lines = leaderboard.get_rows(shots)
        against = found.reference_by_shots[shots] = choose_reference(lines, preferred_reference)
        for name, tasks in (leaderboard.task_groups | {task: task for task in leaderboard.metrics}).items():
            flags = {
                line.method: find_unranked_reason(kept, leaderboard.profile.methods, line, tasks) for line in lines
            }
            letters = find_tie_letters(kept, [line for line in lines if not flags[line.method]], name, tasks)
            gaps = {line.method: kept.compute_difference((line.method, (shots,)), (against, (shots,)), tasks)
                    for line in lines if line.method != against}  # fmt: skip
            values = {method: gap.compute_p_value() for method, gap in gaps.items() if gap and gap.variance_estimates}
            corrected = dict(zip(values, apply_holm_correction(list(values.values())), strict=True))
            for method in flags:
                found.entries[method, shots, name] = RowSignificance(
                    gaps.get(method), corrected.get(method), letters.get(method, ""), flags[method]
                )
        for name, tasks in leaderboard.task_groups.items():
            ranked = [line for line in lines if not found.entries[line.method, shots, name].unranked_reason]
            if order := rank_methods(ranked, name, tasks):
                found.average_ranks[shots, name] = order
    return found


def choose_reference(rows: Sequence[LeaderboardRow], preferred_reference: str) -> str:
    """The method that the others are compared with: the wanted one; where it has no first average the method whose
    variants the rows are (`method:name`), else the best. (While nobody has one: of those with any number.)"""
    trained = [line for line in rows if not line.is_control] or list(rows)
    known = (
        [line for line in trained if line.primary_average]
        or [line for line in trained if any(line.task_scores.values())]
        or trained
    )
    names = [line.method for line in known]
    whole = {name.partition(":")[0] for name in names if ":" in name}
    for name in (preferred_reference, *(whole if len(whole) == 1 else ())):
        if name in names:
            return name
    return max(known, key=lambda line: line.primary_average.mean if line.primary_average else -1.0).method


def find_unranked_reason(
    paired_scores: PairedScores, methods: Sequence[str], row: LeaderboardRow, tasks: Sequence[str] | str
) -> str:
    """Why a line has no rank on these tasks: not clear of guessing, or clearly below a classifier on frozen states."""
    if row.is_control:
        return ""
    for other, why in (("majority", AT_MAJORITY), ("head_only", BELOW_HEAD)):
        rows = (row.method, (row.shots,)), (other, (row.shots,))
        gap = paired_scores.compute_difference(*rows, tasks) if other in methods else None
        if gap is None or (interval := gap.compute_interval()) is None:
            continue
        low, high = interval
        if low <= 0 if other == "majority" else high < 0:
            return why
    return ""


def find_tie_letters(
    paired_scores: PairedScores, rows: Sequence[LeaderboardRow], group_name: str, tasks: Sequence[str] | str
) -> dict[str, str]:
    """Letters of the trained methods that have this number, best first; none for one that cannot be compared."""
    figures = {
        line.method: line.averages.get(group_name) or line.task_scores.get(group_name)
        for line in rows
        if not line.is_control
    }
    names = sorted((method for method, figure in figures.items() if figure), key=lambda m: -figures[m].mean)
    shots = tuple({line.shots for line in rows})
    differences = {
        (a, b): paired_scores.compute_difference((a, shots), (b, shots), tasks) for a, b in combinations(names, 2)
    }
    unknown = [pair for pair, gap in differences.items() if not gap or not gap.variance_estimates]
    while unknown:  # one seed of a method, or its lost predictions, take no letter from the others
        ((lost, _),) = Counter(group_name for pair in unknown for group_name in pair).most_common(1)
        names.remove(lost)
        unknown = [pair for pair in unknown if lost not in pair]
    return find_tie_groups(names, differences)


def rank_methods(
    rows: Sequence[LeaderboardRow], group_name: str, tasks: Sequence[str]
) -> tuple[list[str], AverageRanks] | None:
    """Average ranks over the tasks of an average, of the trained methods that have all of them."""
    complete = [line for line in rows if not line.is_control and line.averages[group_name]]
    if len(complete) < 2 or len(tasks) < 2:
        return None
    found = compute_average_ranks(np.array([[line.task_scores[task].mean for line in complete] for task in tasks]))
    order = np.argsort(found.mean_ranks, kind="stable")
    return [complete[i].method for i in order], found._replace(mean_ranks=[found.mean_ranks[i] for i in order])


# -------------------------------------------------------------------- for people, and as numbers


def list_difference_values(significance: RowSignificance) -> list[float | None]:
    """The paired difference to the reference as numbers: GAP."""
    if significance.difference is None:
        return [None] * len(DIFFERENCE_COLUMNS)
    found = significance.difference
    low, high = found.compute_interval() or (None, None)
    return [
        found.mean,
        low,
        high,
        significance.corrected_p_value,
        found.num_seeds,
        found.compute_detectable_difference(),
    ]


TIED = "tied"


SINGLE_SEED = "one seed"


NOT_RUN = "not run"


def decide_task_verdicts(
    difference_by_task: dict[str, PairedDifference | None], first_method: str, second_method: str
) -> dict[str, str]:
    """By task, corrected for the number of tasks."""
    values = {task: gap.compute_p_value() for task, gap in difference_by_task.items() if gap and gap.variance_estimates}
    corrected = dict(zip(values, apply_holm_correction(list(values.values())), strict=True))
    return {
        task: decide_verdict(gap, corrected.get(task), first_method, second_method)
        for task, gap in difference_by_task.items()
    }


def decide_verdict(
    difference: PairedDifference | None, p_value: float | None, first_method: str, second_method: str
) -> str:
    if difference is None:
        return NOT_RUN
    if p_value is None:
        return SINGLE_SEED
    return TIED if p_value >= 1 - CONFIDENCE_LEVEL else first_method if difference.mean > 0 else second_method
