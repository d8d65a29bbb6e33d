"""`benchmark compare A B`: two methods by task and overall, what each costs, and in words what that is worth."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmark.analysis import load
from benchmark.analysis.leaderboard import Leaderboard, LeaderboardRow, build_leaderboard
from benchmark.analysis.paired import PairedScores
from benchmark.analysis.significance import NOT_RUN, SINGLE_SEED, TIED, decide_task_verdicts, decide_verdict
from benchmark.analysis.statistics import PairedDifference
from benchmark.config import validation
from benchmark.config.profile import Profile
from benchmark.reporting import format
from benchmark.reporting.format import describe_cost_advantages, format_difference
from benchmark.results.store import ResultStore
from benchmark.system import formatting
from benchmark.system.formatting import format_shots
from tasks.core.types import UsageError

ALL_TASKS = "all tasks"


def compare_methods(profile: Profile, first_method: str, second_method: str, console: Console) -> int:
    """A screen for each number of shots."""
    if first_method == second_method:
        raise UsageError(f"compare {first_method} {second_method}: name two different methods")
    pair = validation.validate_profile(replace(profile, methods=(first_method, second_method)))
    _, results, old = load.collect_results(pair, ResultStore(pair.results_folder))
    if not results:
        run = f"python -m benchmark run {profile.cli_flags} --methods {first_method},{second_method}"
        stale = f" ({old} cells are of other code, options or data)" if old else ""
        raise UsageError(
            f"no results of {first_method} or {second_method} in {pair.results_folder}{stale}; `{run}` makes them"
        )
    table, kept = build_leaderboard(pair, results), PairedScores(pair, results)
    for shots in dict.fromkeys(line.shots for line in table.rows):
        print_comparison(table, kept, shots, console)
    for why, number in Counter(kept.unusable_cells.values()).items():
        console.print(f"{number} cells are in no difference: {why}", style="dim")
    return 0


def print_comparison(leaderboard: Leaderboard, paired_scores: PairedScores, shots: int | str, console: Console) -> None:
    """Tasks, averages and costs of one number of shots, then the verdict."""
    first, second = (
        line for method in leaderboard.profile.methods for line in leaderboard.get_rows(shots) if line.method == method
    )
    rows, every = ((first.method, (shots,)), (second.method, (shots,))), tuple(leaderboard.metrics)
    gaps = {task: paired_scores.compute_difference(*rows, task) for task in every}
    means = {
        name: paired_scores.compute_difference(*rows, tasks)
        for name, tasks in {**leaderboard.task_groups, ALL_TASKS: every}.items()
    }
    said = decide_task_verdicts(gaps, first.method, second.method)
    grid = Table(box=SIMPLE_HEAD, header_style="dim", title_justify="left", title_style="bold", padding=(0, 1, 0, 0))
    grid.title = f"{first.method} against {second.method}, {format_shots(shots)}"
    for name in ("", first.method, second.method, "difference", "verdict"):
        grid.add_column(name, justify="left" if name in ("", "verdict") else "right")
    for task, gap in gaps.items():
        figures = (format.format_score(line.task_scores[task], line.num_planned_seeds) for line in (first, second))
        grid.add_row(task, *figures, format_difference(gap), said[task], end_section=task == every[-1])
    for name, gap in means.items():
        figures = (format.format_score(line.averages.get(name)) for line in (first, second))
        grid.add_row(
            name,
            *figures,
            format_difference(gap),
            decide_verdict(gap, gap and gap.compute_p_value(), first.method, second.method),
        )
    for name, values in format_cost_rows(first, second).items():
        grid.add_row(name, *values)
    console.print(grid)
    for line in describe_comparison(first, second, gaps, said, means[ALL_TASKS]):
        console.print(line, soft_wrap=True)
    if means[ALL_TASKS] and means[ALL_TASKS].variance_estimates:
        low, high = paired_scores.compute_bootstrap_interval(*rows, every)
        console.print(
            f"± is half of the 95 % interval over {describe_interval_basis(means[ALL_TASKS])}; tasks are corrected for their number (Holm). "
            f"Bootstrap over both, which is too narrow with few seeds: {100 * low:+.1f} to {100 * high:+.1f}.",
            style="dim",
        )


def describe_interval_basis(difference: PairedDifference) -> str:
    """What an interval is over."""
    return (
        f"{difference.num_seeds} seeds and the test examples"
        if difference.num_seeds > 1
        else "the test examples; no seed changes either"
    )


def format_cost_rows(first_row: LeaderboardRow, second_row: LeaderboardRow) -> dict[str, Sequence[str]]:
    lines = (first_row, second_row)
    return {
        "trained parameters": [formatting.format_count(line.trained_parameters) for line in lines],
        "seconds per cell": ["" if line.seconds_per_cell is None else f"{line.seconds_per_cell:.1f}" for line in lines],
        "peak memory": [formatting.format_bytes(line.peak_bytes) for line in lines],
    }


def describe_comparison(first_row: LeaderboardRow, second_row: LeaderboardRow, difference_by_task: dict[str, PairedDifference | None], verdict_by_task: dict[str, str],
          overall_difference: PairedDifference | None) -> Iterator[str]:  # fmt: skip
    """The verdict: task by task, over all of them, and what it costs."""
    a, b = first_row.method, second_row.method
    counts = Counter(verdict_by_task.values())
    ahead = [f"{name} is ahead on {counts[name]}" for name in (a, b) if counts[name]]
    done = len(verdict_by_task) - counts[NOT_RUN] - counts[SINGLE_SEED]
    if done:
        tied = f"{a} and {b} are tied on {counts[TIED]} of {done} tasks at this size"
        yield "; ".join([tied, *ahead, *describe_cost_advantages(first_row, second_row)]) + "."
    elif counts[SINGLE_SEED]:
        yield "One seed says nothing about another: no verdict. Run more, such as --seeds 0,1,2."
    if overall_difference is None:
        missing = [task for task, gap in difference_by_task.items() if gap is None]
        yield (
            f"No mean over all tasks: {len(missing)} have no pair of results, such as {missing[0]}."
            if missing
            else ("No mean over all tasks: seeds are missing.")
        )
    elif overall_difference.variance_estimates:
        size = 100 * overall_difference.compute_detectable_difference()
        known = f"a true difference would be found with 80 % probability from {size:.1f} points on"
        winner = decide_verdict(overall_difference, overall_difference.compute_p_value(), a, b)
        told = (
            "they are not told apart"
            if winner == TIED
            else f"{winner} is ahead by {100 * abs(overall_difference.mean):.1f} points"
        )
        yield f"Over all {len(difference_by_task)} tasks {told} (p = {overall_difference.compute_p_value():.2g}); {known}."
