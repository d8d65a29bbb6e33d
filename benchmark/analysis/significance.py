"""Significance layer of the leaderboard: paired differences to a reference, flags, letters, ranks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

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
from benchmark.results.cell_result import CellResult

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
    """Significance of one leaderboard entry: a method at a number of shots, on a task or an average."""

    difference: PairedDifference | None  # to the reference
    corrected_p_value: float | None  # of the difference, Holm-corrected for the number of methods
    tie_letters: str  # compact letter display; empty for baselines and unranked methods
    unranked_reason: str  # empty if the method is ranked


class LeaderboardSignificance(NamedTuple):
    """Significance of all entries of a leaderboard."""

    reference_by_shots: dict[int | str, str]  # shots -> method
    entries: dict[tuple[str, int | str, str], RowSignificance]  # (method, shots, task or average)
    # (shots, average) -> (methods, best first; their average ranks over its tasks)
    average_ranks: dict[tuple[int | str, str], tuple[list[str], AverageRanks]]
    paired_scores: PairedScores

    @property
    def unusable_cells(self) -> dict[str, str]:
        """Cell key -> reason why the cell cannot be compared."""
        return self.paired_scores.unusable_cells


def compute_significance(
    leaderboard: Leaderboard, results: Sequence[CellResult], preferred_reference: str = DEFAULT_REFERENCE
) -> LeaderboardSignificance:
    """Compute differences to the reference, unranked reasons, letters and average ranks for every number of shots."""
    paired_scores = PairedScores(leaderboard.profile, results)
    significance = LeaderboardSignificance({}, {}, {}, paired_scores)
    for shots in dict.fromkeys(row.shots for row in leaderboard.rows):
        rows = leaderboard.get_rows(shots)
        reference = choose_reference(rows, preferred_reference)
        significance.reference_by_shots[shots] = reference
        for name, tasks in (leaderboard.task_groups | {task: task for task in leaderboard.metrics}).items():
            reasons = {
                row.method: find_unranked_reason(paired_scores, leaderboard.profile.methods, row, tasks) for row in rows
            }
            letters = find_tie_letters(paired_scores, [row for row in rows if not reasons[row.method]], name, tasks)
            differences = {
                row.method: paired_scores.compute_difference((row.method, (shots,)), (reference, (shots,)), tasks)
                for row in rows
                if row.method != reference
            }
            corrected = _correct_p_values(differences)
            for method in reasons:
                significance.entries[method, shots, name] = RowSignificance(
                    differences.get(method), corrected.get(method), letters.get(method, ""), reasons[method]
                )
        for name, tasks in leaderboard.task_groups.items():
            ranked = [row for row in rows if not significance.entries[row.method, shots, name].unranked_reason]
            if ranks := rank_methods(ranked, name, tasks):
                significance.average_ranks[shots, name] = ranks
    return significance


def _correct_p_values(difference_by_name: Mapping[str, PairedDifference | None]) -> dict[str, float]:
    """Holm-corrected p values by name; names without a variance estimate are left out."""
    p_values = {
        name: difference.compute_p_value()
        for name, difference in difference_by_name.items()
        if difference and difference.variance_estimates
    }
    return dict(zip(p_values, apply_holm_correction(list(p_values.values())), strict=True))


def choose_reference(rows: Sequence[LeaderboardRow], preferred_reference: str) -> str:
    """Choose the method that the others are compared with.

    Candidates are the trained methods with a primary average (if there are none: with any score). The preferred
    reference comes first, then the base method if all variants (`method:name`) share it, then the best method.
    """
    trained = [row for row in rows if not row.is_control] or list(rows)
    candidates = (
        [row for row in trained if row.primary_average]
        or [row for row in trained if any(row.task_scores.values())]
        or trained
    )
    names = [row.method for row in candidates]
    if preferred_reference in names:
        return preferred_reference
    base_methods = {name.partition(":")[0] for name in names if ":" in name}
    if len(base_methods) == 1 and base_methods <= set(names):
        return base_methods.pop()
    return max(candidates, key=lambda row: row.primary_average.mean if row.primary_average else -1.0).method


def find_unranked_reason(
    paired_scores: PairedScores, methods: Sequence[str], row: LeaderboardRow, tasks: Sequence[str] | str
) -> str:
    """Why a method is not ranked on these tasks, or "".

    Unranked is a method that is not significantly above the majority class, or that is significantly below a
    classifier on frozen hidden states (head_only).
    """
    if row.is_control:
        return ""
    for baseline, reason in (("majority", AT_MAJORITY), ("head_only", BELOW_HEAD)):
        if baseline not in methods:
            continue
        difference = paired_scores.compute_difference((row.method, (row.shots,)), (baseline, (row.shots,)), tasks)
        if difference is None or (interval := difference.compute_interval()) is None:
            continue
        low, high = interval
        is_unranked = low <= 0 if baseline == "majority" else high < 0
        if is_unranked:
            return reason
    return ""


def find_tie_letters(
    paired_scores: PairedScores, rows: Sequence[LeaderboardRow], group_name: str, tasks: Sequence[str] | str
) -> dict[str, str]:
    """Letters of the trained methods that have this score, best first; methods that cannot be compared get none."""
    estimates = {
        row.method: row.averages.get(group_name) or row.task_scores.get(group_name)
        for row in rows
        if not row.is_control
    }
    names = sorted((method for method, estimate in estimates.items() if estimate), key=lambda m: -estimates[m].mean)
    shots = tuple({row.shots for row in rows})
    differences = {
        (a, b): paired_scores.compute_difference((a, shots), (b, shots), tasks) for a, b in combinations(names, 2)
    }
    incomparable = [pair for pair, gap in differences.items() if not gap or not gap.variance_estimates]
    while incomparable:  # drop methods with one seed or without predictions, so that they do not affect the others
        ((dropped, _),) = Counter(name for pair in incomparable for name in pair).most_common(1)
        names.remove(dropped)
        incomparable = [pair for pair in incomparable if dropped not in pair]
    return find_tie_groups(names, differences)


def rank_methods(
    rows: Sequence[LeaderboardRow], group_name: str, tasks: Sequence[str]
) -> tuple[list[str], AverageRanks] | None:
    """(methods, best first; their average ranks) over the tasks of an average, for trained methods that have all tasks.

    None with fewer than two such methods or fewer than two tasks.
    """
    complete = [row for row in rows if not row.is_control and row.averages[group_name]]
    if len(complete) < 2 or len(tasks) < 2:
        return None
    ranks = compute_average_ranks(np.array([[row.task_scores[task].mean for row in complete] for task in tasks]))
    order = np.argsort(ranks.mean_ranks, kind="stable")
    return [complete[i].method for i in order], ranks._replace(mean_ranks=[ranks.mean_ranks[i] for i in order])


# -------------------------------------------------------------------- verdicts and table values


def list_difference_values(significance: RowSignificance) -> list[float | None]:
    """Values of DIFFERENCE_COLUMNS for one entry; all None without a difference."""
    if significance.difference is None:
        return [None] * len(DIFFERENCE_COLUMNS)
    difference = significance.difference
    low, high = difference.compute_interval() or (None, None)
    return [
        difference.mean,
        low,
        high,
        significance.corrected_p_value,
        difference.num_seeds,
        difference.compute_detectable_difference(),
    ]


TIED = "tied"  # not significantly different
SINGLE_SEED = "one seed"
NOT_RUN = "not run"


def decide_task_verdicts(
    difference_by_task: dict[str, PairedDifference | None], first_method: str, second_method: str
) -> dict[str, str]:
    """Verdict per task, Holm-corrected for the number of tasks."""
    corrected = _correct_p_values(difference_by_task)
    return {
        task: decide_verdict(gap, corrected.get(task), first_method, second_method)
        for task, gap in difference_by_task.items()
    }


def decide_verdict(
    difference: PairedDifference | None, p_value: float | None, first_method: str, second_method: str
) -> str:
    """The significantly better method, or TIED, SINGLE_SEED (no p value) or NOT_RUN (no difference)."""
    if difference is None:
        return NOT_RUN
    if p_value is None:
        return SINGLE_SEED
    if p_value >= 1 - CONFIDENCE_LEVEL:
        return TIED
    return first_method if difference.mean > 0 else second_method
