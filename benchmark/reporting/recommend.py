"""`benchmark recommend`: recommend a method and report how reliable the choice is.

The rule chooses, among the methods within the cost limits, the one with the highest mean over the requested tasks. The
report contains

- ties: methods that do not differ significantly from the recommended one (paired, Holm-corrected);
- regret: per bootstrap resample of seeds and test examples, the best method's score minus the recommended one's;
- held-out evaluation: the rule is applied to all tasks but one, and its choice is compared with the best method on the
  held-out task.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from statistics import fmean
from typing import NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmark.analysis import significance
from benchmark.analysis.comparable import REQUESTED_TASKS, Evidence, collect_evidence
from benchmark.analysis.intervals import CONFIDENCE_LEVEL
from benchmark.analysis.leaderboard import LeaderboardRow
from benchmark.analysis.significance import TIED, decide_task_verdicts
from benchmark.analysis.statistics import PairedDifference
from benchmark.config.profile import Profile
from benchmark.reporting import format
from benchmark.reporting.format import describe_cost_advantages, format_difference
from benchmark.system import formatting
from benchmark.system.formatting import format_shots
from tasks.core.types import UsageError

MAX_TABLE_METHODS = 8
MAX_NAMED_TASKS = 3  # held-out tasks that are named in the report
AHEAD = "ahead"  # verdict: better than the recommended method
BEHIND = "behind"  # verdict: worse than the recommended method


class HeldOutResult(NamedTuple):
    """Result of the rule on one held-out task; losses are in units of the metric (0..1)."""

    task: str
    chosen_method: str
    best_method: str
    loss: float  # best score minus the score of the chosen method
    random_choice_loss: float  # expected loss of a method drawn at random


def recommend_method(profile: Profile, query: argparse.Namespace, console: Console) -> int:
    """Print the recommendation with its reliability; raises UsageError if no method is within the limits."""
    evidence = collect_evidence(profile, query)
    candidates, rejection_reasons = filter_by_limits(evidence, query)
    candidates.sort(key=lambda row: -get_mean_score(row))
    first, *others = candidates
    differences = {row.method: compute_row_difference(evidence, row, first) for row in others}
    verdicts = decide_task_verdicts(differences, AHEAD, BEHIND)
    heading = f"Try {first.method} first: {evidence.title}, {format_shots(evidence.shots)}"
    console.print(heading, style="bold", soft_wrap=True)
    print_candidates(console, candidates, differences, verdicts)
    held_out = evaluate_held_out(
        candidates, evidence.tasks if len(evidence.tasks) > 1 else evidence.leaderboard.profile.tasks
    )
    for sentence in (
        *describe_reliability(evidence, candidates, verdicts, held_out),
        *describe_limitations(profile, evidence, candidates, verdicts, held_out, rejection_reasons),
    ):
        console.print(sentence, soft_wrap=True, markup=False)
    return 0


# -------------------------------------------------------------------- selection and reliability


def get_mean_score(row: LeaderboardRow) -> float:
    """Mean score over the requested tasks, in 0..1."""
    return row.averages[REQUESTED_TASKS].mean


def compute_row_difference(
    evidence: Evidence, row: LeaderboardRow, other_row: LeaderboardRow
) -> PairedDifference | None:
    """Paired difference of two rows in the mean over the requested tasks."""
    return evidence.paired_scores.compute_difference(
        (row.method, (row.shots,)), (other_row.method, (other_row.shots,)), evidence.tasks
    )


def filter_by_limits(evidence: Evidence, query: argparse.Namespace) -> tuple[list[LeaderboardRow], dict[str, str]]:
    """Return (candidates, rejection reason by method) for the methods that have all requested tasks.

    Rejected are methods over the cost limits and unranked ones; if all are unranked, they stay candidates. Raises
    UsageError if no method is within the limits.
    """
    rows = [
        row
        for row in evidence.leaderboard.get_rows(evidence.shots)
        if not row.is_control and row.averages[REQUESTED_TASKS]
    ]
    within_limits = [row for row in rows if is_within_limits(row, query)]
    if not within_limits:
        cheapest = min(rows, key=lambda row: (row.peak_bytes, get_total_seconds(row)))
        memory = formatting.format_bytes(cheapest.peak_bytes)
        cost = f"{cheapest.method} takes {memory} and {get_total_seconds(cheapest):.1f} s"
        raise UsageError(f"no method within the limits: {cost}; allow more with --memory and --seconds")
    methods = evidence.leaderboard.profile.methods
    reasons = {
        row.method: significance.find_unranked_reason(evidence.paired_scores, methods, row, evidence.tasks)
        for row in within_limits
    }
    reasons |= {row.method: "over the limits" for row in rows if row not in within_limits}
    ranked = [row for row in within_limits if not reasons[row.method]]
    return ranked or within_limits, {name: reason for name, reason in reasons.items() if reason}


def is_within_limits(row: LeaderboardRow, query: argparse.Namespace) -> bool:
    """Whether peak memory and seconds per cell, including dependencies, are within --memory and --seconds."""
    return row.peak_bytes <= (query.memory or inf) and get_total_seconds(row) <= (query.seconds or inf)


def get_total_seconds(row: LeaderboardRow) -> float:
    """Seconds per cell including all dependencies, if they are known."""
    return row.seconds_per_cell if row.standalone_seconds is None else row.standalone_seconds


def resample_losses(evidence: Evidence, candidates: Sequence[LeaderboardRow]) -> np.ndarray | None:
    """Regret [resamples] of the first candidate under the paired bootstrap; None if a difference has no variance."""
    differences = [compute_row_difference(evidence, row, candidates[0]) for row in candidates[1:]]
    if not differences or not all(difference and difference.variance_estimates for difference in differences):
        return None
    first, *others = [(row.method, (row.shots,)) for row in candidates]
    return np.maximum(evidence.paired_scores.resample_differences(others, first, evidence.tasks).max(1), 0.0)


def evaluate_held_out(rows: Sequence[LeaderboardRow], tasks: Sequence[str]) -> list[HeldOutResult]:
    """Apply the rule to all other tasks, for each task that all methods have; empty with a single task or method."""
    num_seeds = max(row.averages[REQUESTED_TASKS].num_seeds for row in rows)
    tasks = [
        task for task in tasks if all((score := row.task_scores[task]) and score.num_seeds == num_seeds for row in rows)
    ]
    if len(tasks) < 2 or len(rows) < 2:
        return []
    results = []
    for task in tasks:
        chosen = max(rows, key=lambda row: fmean(row.task_scores[other].mean for other in tasks if other != task))
        best = max(rows, key=lambda row: row.task_scores[task].mean)
        best_score = best.task_scores[task].mean
        results.append(
            HeldOutResult(
                task=task,
                chosen_method=chosen.method,
                best_method=best.method,
                loss=best_score - chosen.task_scores[task].mean,
                random_choice_loss=best_score - fmean(row.task_scores[task].mean for row in rows),
            )
        )
    return results


# -------------------------------------------------------------------- output


def print_candidates(
    console: Console,
    candidates: Sequence[LeaderboardRow],
    difference_by_method: Mapping[str, PairedDifference | None],
    verdict_by_method: Mapping[str, str],
) -> None:
    """Print the best candidates with their difference to the first and their costs."""
    grid = Table(box=SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0))
    for name in ("method", "mean", "to the first", "", "trained", "s/cell", "with sources", "memory"):
        grid.add_column(name, justify="left" if name in ("method", "") else "right", no_wrap=True)
    for row in candidates[:MAX_TABLE_METHODS]:
        grid.add_row(
            row.method,
            format.format_score(row.averages[REQUESTED_TASKS]),
            format_difference(difference_by_method.get(row.method)),
            verdict_by_method.get(row.method, "first"),
            formatting.format_count(row.trained_parameters),
            f"{row.seconds_per_cell:.1f}",
            format.format_seconds_with_dependencies(row),
            formatting.format_bytes(row.peak_bytes),
        )
    console.print(grid)


def describe_reliability(
    evidence: Evidence,
    candidates: Sequence[LeaderboardRow],
    verdict_by_method: Mapping[str, str],
    held_out_results: Sequence[HeldOutResult],
) -> Iterator[str]:
    """Sentences on ties, expected regret, the gain over zero_shot and the held-out evaluation."""
    first = candidates[0]
    not_in_table = [row.method for row in candidates[MAX_TABLE_METHODS:]]
    if not_in_table:
        yield f"Lower means: {', '.join(not_in_table)}."
    tied = [row for row in candidates[1:] if verdict_by_method[row.method] == TIED]
    if tied:
        cheapest = min((first, *tied), key=get_total_seconds)
        advantages = [
            text for text in describe_cost_advantages(first, cheapest) if text.startswith(f"{cheapest.method} ")
        ]
        cost = f" ({', '.join(advantages)})" if advantages else ""
        yield f"Not significantly different from {first.method}: {', '.join(row.method for row in tied)}{cost}."
    regret = resample_losses(evidence, candidates)
    if regret is not None:
        yield (
            f"Expected regret: {100 * regret.mean():.1f} points, at most "
            f"{100 * np.quantile(regret, CONFIDENCE_LEVEL):.1f} in 95 % of the bootstrap resamples of "
            f"{len(evidence.leaderboard.profile.seeds)} seeds and the test examples (too narrow with few seeds). "
            f"{first.method} is best in {100 * np.mean(regret == 0):.0f} %."
        )
    for row in evidence.leaderboard.get_rows(evidence.shots):
        if row.method == "zero_shot" and row.averages[REQUESTED_TASKS]:
            gain = format_difference(compute_row_difference(evidence, first, row))
            yield f"Gain over the untrained backbone (zero_shot): {gain} points."
    if held_out_results:
        losses = sorted((result for result in held_out_results if result.loss > 0), key=lambda result: -result.loss)
        largest = ", ".join(
            f"{result.task} {100 * result.loss:.1f}: {result.chosen_method}, best {result.best_method}"
            for result in losses[:MAX_NAMED_TASKS]
        )
        mean_loss = 100 * fmean(result.loss for result in held_out_results)
        random_loss = 100 * fmean(result.random_choice_loss for result in held_out_results)
        yield (
            f"Leave-one-task-out over {len(held_out_results)} tasks: the chosen method is on average {mean_loss:.1f} "
            f"points below the best method of the held-out task, a random method {random_loss:.1f}"
            f"{f' (largest: {largest})' if largest else ''}."
        )


def describe_limitations(
    profile: Profile,
    evidence: Evidence,
    candidates: Sequence[LeaderboardRow],
    verdict_by_method: Mapping[str, str],
    held_out_results: Sequence[HeldOutResult],
    rejection_reasons: Mapping[str, str],
) -> Iterator[str]:
    """Sentences on weak evidence, rejected and excluded methods, and the commands that add the missing results."""
    first = candidates[0]
    seeds = evidence.leaderboard.profile.seeds
    weaknesses = list(evidence.limitations)
    if len(seeds) < 2:
        weaknesses.append("a single seed gives no significance tests and no expected regret")
    if len(candidates) < 2:
        weaknesses.append(f"there is no other method to compare {first.method} with")
    elif set(verdict_by_method.values()) == {TIED}:
        weaknesses.append(f"no method differs significantly from {first.method}")
    if len(evidence.tasks) < 2:
        weaknesses.append(f"{evidence.tasks[0]} is the only task")
    if held_out_results:
        mean_loss = fmean(result.loss for result in held_out_results)
        if mean_loss >= fmean(result.random_choice_loss for result in held_out_results):
            weaknesses.append("on held-out tasks the rule was no better than a random method")
    if first.method in rejection_reasons:
        weaknesses.append(f"{first.method} itself is {rejection_reasons[first.method]}")
    if weaknesses:
        yield f"Weak evidence: {'; '.join(weaknesses)}."
    for reason, count in Counter(evidence.paired_scores.unusable_cells.values()).items():
        yield f"{count} cells are excluded from the differences: {reason}."
    candidate_names = {row.method for row in candidates}
    rejected_by_reason: dict[str, list[str]] = {}
    for name, reason in rejection_reasons.items():
        if name not in candidate_names:
            rejected_by_reason.setdefault(reason, []).append(name)
    for reason, names in rejected_by_reason.items():
        yield f"Rejected ({reason}): {', '.join(names)}."
    if evidence.excluded_methods:
        names = list(evidence.excluded_methods)
        better = [
            f"{name} {format_difference(difference)}"
            for name in names
            if (difference := evidence.compute_partial_difference(name, first.method)) and difference.mean > 0
        ]
        reasons = ", ".join(f"{name} ({reason})" for name, reason in evidence.excluded_methods.items())
        yield (
            f"Left out: {reasons}{f', there above {first.method}: ' + ', '.join(better) if better else ''}. "
            f"To compare them: python -m benchmark run {profile.cli_flags} --methods {','.join(names)} "
            f"--tasks {','.join(evidence.tasks)} --shots {evidence.shots} --seeds {','.join(map(str, seeds))}"
        )
    if profile.source == "sample":
        yield "The data are generated samples: the ranking need not carry over to your data."
