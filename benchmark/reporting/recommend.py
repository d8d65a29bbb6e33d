"""`benchmark recommend`: the method to try first, what is tied with it, and how much is lost if that is wrong.

The rule: of the methods within the limits, the one with the highest mean over the tasks asked for. What it is worth:

- tied: the difference to the first is not told from 0 (paired, Holm-corrected for the number of methods);
- loss: by how much the best method is above the first, in draws of seeds and test examples (paired bootstrap): 0 where
  the first is the best, so its average is what trusting it costs;
- held out: the rule on all but one task, and how far below that task's best method its choice ends.
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

MAX_TABLE_METHODS = 8  # methods of the table
MAX_NAMED_TASKS = 3  # held-out tasks that are named
AHEAD = "ahead"  # of the first
BEHIND = "behind"  # nobody is ahead of the highest mean


class HeldOutResult(NamedTuple):
    """A task that the rule did not see."""

    task: str
    chosen_method: str
    best_method: str
    loss: float
    random_choice_loss: float  # what a method drawn at random loses


def recommend_method(profile: Profile, query: argparse.Namespace, console: Console) -> int:
    seen = collect_evidence(profile, query)
    usable, refused = filter_by_limits(seen, query)
    usable.sort(key=lambda line: -get_mean_score(line))
    first, *others = usable
    gaps = {line.method: compute_row_difference(seen, line, first) for line in others}
    said = decide_task_verdicts(gaps, AHEAD, BEHIND)
    console.print(f"Try {first.method} first: {seen.title}, {format_shots(seen.shots)}", style="bold", soft_wrap=True)
    print_candidates(console, usable, gaps, said)
    held = evaluate_held_out(usable, seen.tasks if len(seen.tasks) > 1 else seen.leaderboard.profile.tasks)
    for line in (
        *describe_reliability(seen, usable, said, held),
        *describe_limitations(profile, seen, usable, said, held, refused),
    ):
        console.print(line, soft_wrap=True, markup=False)
    return 0


# -------------------------------------------------------------------- what it is worth


def get_mean_score(row: LeaderboardRow) -> float:
    return row.averages[REQUESTED_TASKS].mean


def compute_row_difference(
    evidence: Evidence, row: LeaderboardRow, other_row: LeaderboardRow
) -> PairedDifference | None:
    return evidence.paired_scores.compute_difference(
        (row.method, (row.shots,)), (other_row.method, (other_row.shots,)), evidence.tasks
    )


def filter_by_limits(evidence: Evidence, query: argparse.Namespace) -> tuple[list[LeaderboardRow], dict[str, str]]:
    """(methods that the limits allow and that are clear of guessing, why the others are not), unless none is clear."""
    lines = [
        line
        for line in evidence.leaderboard.get_rows(evidence.shots)
        if not line.is_control and line.averages[REQUESTED_TASKS]
    ]
    fitting = [line for line in lines if is_within_limits(line, query)]
    if not fitting:
        least = min(lines, key=lambda line: (line.peak_bytes, get_total_seconds(line)))
        need = f"{least.method} takes {formatting.format_bytes(least.peak_bytes)} and {get_total_seconds(least):.1f} s"
        raise UsageError(f"no method within the limits: {need}; allow more with --memory and --seconds")
    methods = evidence.leaderboard.profile.methods
    why = {
        line.method: significance.find_unranked_reason(evidence.paired_scores, methods, line, evidence.tasks)
        for line in fitting
    }
    why |= {line.method: "over the limits" for line in lines if line not in fitting}
    clear = [line for line in fitting if not why[line.method]]
    return clear or fitting, {name: reason for name, reason in why.items() if reason}


def is_within_limits(row: LeaderboardRow, query: argparse.Namespace) -> bool:
    return row.peak_bytes <= (query.memory or inf) and get_total_seconds(row) <= (query.seconds or inf)


def get_total_seconds(row: LeaderboardRow) -> float:
    return (
        row.seconds_per_cell if row.standalone_seconds is None else row.standalone_seconds
    )  # with all that it rests on


def resample_losses(evidence: Evidence, candidates: Sequence[LeaderboardRow]) -> np.ndarray | None:
    """What the first loses in each draw of seeds and examples; None where a pair has no interval."""
    gaps = [compute_row_difference(evidence, line, candidates[0]) for line in candidates[1:]]
    if not gaps or not all(one and one.variance_estimates for one in gaps):
        return None
    rows = [(line.method, (line.shots,)) for line in candidates]
    return np.maximum(evidence.paired_scores.resample_differences(rows[1:], rows[0], evidence.tasks).max(1), 0.0)


def evaluate_held_out(rows: Sequence[LeaderboardRow], tasks: Sequence[str]) -> list[HeldOutResult]:
    """The rule on all other tasks, for each task that all methods have."""
    due = max(line.averages[REQUESTED_TASKS].num_seeds for line in rows)
    tasks = [task for task in tasks if all((one := line.task_scores[task]) and one.num_seeds == due for line in rows)]
    if len(tasks) < 2 or len(rows) < 2:
        return []
    found = []
    for task in tasks:
        picked = max(rows, key=lambda line: fmean(line.task_scores[other].mean for other in tasks if other != task))
        best = max(rows, key=lambda line: line.task_scores[task].mean)
        top, blind = best.task_scores[task].mean, fmean(line.task_scores[task].mean for line in rows)
        found.append(HeldOutResult(task, picked.method, best.method, top - picked.task_scores[task].mean, top - blind))
    return found


# -------------------------------------------------------------------- telling


def print_candidates(
    console: Console,
    candidates: Sequence[LeaderboardRow],
    difference_by_method: Mapping[str, PairedDifference | None],
    verdict_by_method: Mapping[str, str],
) -> None:
    grid = Table(box=SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0))
    for name in ("method", "mean", "to the first", "", "trained", "s/cell", "with sources", "memory"):
        grid.add_column(name, justify="left" if name in ("method", "") else "right", no_wrap=True)
    for line in candidates[:MAX_TABLE_METHODS]:
        name = line.method
        grid.add_row(
            name, format.format_score(line.averages[REQUESTED_TASKS]), format_difference(difference_by_method.get(name)), verdict_by_method.get(name, "first"),
            formatting.format_count(line.trained_parameters), f"{line.seconds_per_cell:.1f}", format.format_seconds_with_dependencies(line), formatting.format_bytes(line.peak_bytes),
        )  # fmt: skip
    console.print(grid)


def describe_reliability(
    evidence: Evidence,
    candidates: Sequence[LeaderboardRow],
    verdict_by_method: Mapping[str, str],
    held_out_results: Sequence[HeldOutResult],
) -> Iterator[str]:
    """What a choice by this table is worth."""
    first, below = candidates[0], [line.method for line in candidates[MAX_TABLE_METHODS:]]
    if below:
        yield f"Below these: {', '.join(below)}."
    tied = [line for line in candidates[1:] if verdict_by_method[line.method] == TIED]
    if tied:
        least = min((first, *tied), key=get_total_seconds)
        less = ", ".join(text for text in describe_cost_advantages(first, least) if text.startswith(f"{least.method} "))
        yield f"Not told apart from {first.method}: {', '.join(line.method for line in tied)}{less and f' ({less})'}."
    lost = resample_losses(evidence, candidates)
    if lost is not None:
        average, most, best = 100 * lost.mean(), 100 * np.quantile(lost, CONFIDENCE_LEVEL), 100 * np.mean(lost == 0)
        yield (
            f"If that is wrong: {average:.1f} points are lost on average, up to {most:.1f} in 95 % of draws of "
            f"{len(evidence.leaderboard.profile.seeds)} seeds and of test examples (bootstrap; too narrow with few seeds). "
            f"{first.method} is best in {best:.0f} %."
        )
    idle = [
        line
        for line in evidence.leaderboard.get_rows(evidence.shots)
        if line.method == "zero_shot" and line.averages[REQUESTED_TASKS]
    ]
    for line in idle:
        yield f"Over the untrained backbone (zero_shot): {format_difference(compute_row_difference(evidence, first, line))} points."
    if held_out_results:
        worst = sorted((one for one in held_out_results if one.loss > 0), key=lambda one: -one.loss)[:MAX_NAMED_TASKS]
        each = ", ".join(
            f"{one.task} {100 * one.loss:.1f}: {one.chosen_method}, best {one.best_method}" for one in worst
        )
        yield (
            f"Held out, each of {len(held_out_results)} tasks by the others: the choice loses "
            f"{100 * fmean(one.loss for one in held_out_results):.1f} points on average to the task's own best method, a method "
            f"drawn at random {100 * fmean(one.random_choice_loss for one in held_out_results):.1f}{each and f' (most on {each})'}."
        )


def describe_limitations(profile: Profile, evidence: Evidence, candidates: Sequence[LeaderboardRow], verdict_by_method: Mapping[str, str], held_out_results: Sequence[HeldOutResult],
           rejection_reasons: Mapping[str, str]) -> Iterator[str]:  # fmt: skip
    """Why one should not trust it, and what would help."""
    thin, first, seeds = list(evidence.limitations), candidates[0], evidence.leaderboard.profile.seeds
    offered = {line.method for line in candidates}
    if len(seeds) < 2:
        thin.append("one seed says nothing of another, so there are no ties and no expected loss")
    if len(candidates) < 2:
        thin.append(f"{first.method} is compared with nothing")
    elif set(verdict_by_method.values()) == {TIED}:
        thin.append("no method is told from another")
    if len(evidence.tasks) < 2:
        thin.append(f"{evidence.tasks[0]} is the only task")
    if held_out_results and fmean(one.loss for one in held_out_results) >= fmean(
        one.random_choice_loss for one in held_out_results
    ):
        thin.append("on held-out tasks the rule was no better than a method drawn at random")
    if first.method in rejection_reasons:
        thin.append(f"{first.method} itself is {rejection_reasons[first.method]}")
    if thin:
        yield f"The evidence is thin: {'; '.join(thin)}."
    for why, number in Counter(evidence.paired_scores.unusable_cells.values()).items():
        yield f"{number} cells are in no difference: {why}."
    for why in dict.fromkeys(rejection_reasons.values()):
        if names := [name for name, reason in rejection_reasons.items() if reason == why and name not in offered]:
            yield f"Not offered, {why}: {', '.join(names)}."
    if evidence.excluded_methods:
        names = list(evidence.excluded_methods)
        ahead = [
            f"{name} {format_difference(one)}"
            for name in names
            if (one := evidence.compute_partial_difference(name, first.method)) and one.mean > 0
        ]
        yield (
            f"Left out: {', '.join(f'{name} ({why})' for name, why in evidence.excluded_methods.items())}"
            f"{ahead and f', ahead of {first.method} there: ' + ', '.join(ahead) or ''}. To compare them: python -m "
            f"benchmark run {profile.cli_flags} --methods {','.join(names)} --tasks {','.join(evidence.tasks)} "
            f"--shots {evidence.shots} --seeds {','.join(map(str, seeds))}"
        )
    if profile.source == "sample":
        yield "The records are invented samples: this ranks methods on them, not on data of yours."
