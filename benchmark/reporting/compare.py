"""`benchmark compare A B`: paired comparison of two methods by task and overall, with costs and a verdict."""

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
    """Print the comparison for each number of shots; raises UsageError without results of either method."""
    if first_method == second_method:
        raise UsageError(f"compare {first_method} {second_method}: name two different methods")
    pair = validation.validate_profile(replace(profile, methods=(first_method, second_method)))
    _, results, num_stale = load.collect_results(pair, ResultStore(pair.results_folder))
    if not results:
        command = f"python -m benchmark run {profile.cli_flags} --methods {first_method},{second_method}"
        stale = f" ({num_stale} cells are of other code, options or data)" if num_stale else ""
        raise UsageError(
            f"no results of {first_method} or {second_method} in {pair.results_folder}{stale}; "
            f"to create them: `{command}`"
        )
    leaderboard = build_leaderboard(pair, results)
    paired_scores = PairedScores(pair, results)
    for shots in dict.fromkeys(row.shots for row in leaderboard.rows):
        print_comparison(leaderboard, paired_scores, shots, console)
    for reason, count in Counter(paired_scores.unusable_cells.values()).items():
        console.print(f"{count} cells are excluded from the differences: {reason}", style="dim")
    return 0


def print_comparison(leaderboard: Leaderboard, paired_scores: PairedScores, shots: int | str, console: Console) -> None:
    """Print tasks, averages and costs at one number of shots, then the verdict."""
    first, second = (
        row for method in leaderboard.profile.methods for row in leaderboard.get_rows(shots) if row.method == method
    )
    variants = ((first.method, (shots,)), (second.method, (shots,)))
    all_tasks = tuple(leaderboard.metrics)
    differences = {task: paired_scores.compute_difference(*variants, task) for task in all_tasks}
    group_differences = {
        name: paired_scores.compute_difference(*variants, tasks)
        for name, tasks in {**leaderboard.task_groups, ALL_TASKS: all_tasks}.items()
    }
    verdicts = decide_task_verdicts(differences, first.method, second.method)
    grid = Table(box=SIMPLE_HEAD, header_style="dim", title_justify="left", title_style="bold", padding=(0, 1, 0, 0))
    grid.title = f"{first.method} against {second.method}, {format_shots(shots)}"
    for name in ("", first.method, second.method, "difference", "verdict"):
        grid.add_column(name, justify="left" if name in ("", "verdict") else "right")
    for task, difference in differences.items():
        scores = (format.format_score(row.task_scores[task], row.num_planned_seeds) for row in (first, second))
        is_last = task == all_tasks[-1]
        grid.add_row(task, *scores, format_difference(difference), verdicts[task], end_section=is_last)
    for name, difference in group_differences.items():
        scores = (format.format_score(row.averages.get(name)) for row in (first, second))
        p_value = difference.compute_p_value() if difference else None
        verdict = decide_verdict(difference, p_value, first.method, second.method)
        grid.add_row(name, *scores, format_difference(difference), verdict)
    for name, values in format_cost_rows(first, second).items():
        grid.add_row(name, *values)
    console.print(grid)
    overall = group_differences[ALL_TASKS]
    for sentence in describe_comparison(first, second, differences, verdicts, overall):
        console.print(sentence, soft_wrap=True)
    if overall and overall.variance_estimates:
        low, high = paired_scores.compute_bootstrap_interval(*variants, all_tasks)
        console.print(
            f"± is the half-width of the 95 % interval over {describe_interval_basis(overall)}; task verdicts are "
            "Holm-corrected for the number of tasks. Bootstrap over both (too narrow with few seeds): "
            f"{100 * low:+.1f} to {100 * high:+.1f}.",
            style="dim",
        )


def describe_interval_basis(difference: PairedDifference) -> str:
    """The sources of variation that an interval covers."""
    return (
        f"{difference.num_seeds} seeds and the test examples"
        if difference.num_seeds > 1
        else "the test examples; both methods are independent of the seed"
    )


def format_cost_rows(first_row: LeaderboardRow, second_row: LeaderboardRow) -> dict[str, Sequence[str]]:
    """Cost name -> formatted values of both methods."""
    rows = (first_row, second_row)
    return {
        "trained parameters": [formatting.format_count(row.trained_parameters) for row in rows],
        "seconds per cell": ["" if row.seconds_per_cell is None else f"{row.seconds_per_cell:.1f}" for row in rows],
        "peak memory": [formatting.format_bytes(row.peak_bytes) for row in rows],
    }


def describe_comparison(
    first_row: LeaderboardRow,
    second_row: LeaderboardRow,
    difference_by_task: dict[str, PairedDifference | None],
    verdict_by_task: dict[str, str],
    overall_difference: PairedDifference | None,
) -> Iterator[str]:
    """Sentences on the verdicts by task, the costs, and the difference over all tasks."""
    first = first_row.method
    second = second_row.method
    counts = Counter(verdict_by_task.values())
    better = [f"{name} is better on {counts[name]}" for name in (first, second) if counts[name]]
    num_compared = len(verdict_by_task) - counts[NOT_RUN] - counts[SINGLE_SEED]
    if num_compared:
        tied = f"{first} and {second} do not differ significantly on {counts[TIED]} of {num_compared} tasks"
        yield "; ".join([tied, *better, *describe_cost_advantages(first_row, second_row)]) + "."
    elif counts[SINGLE_SEED]:
        yield "A single seed allows no verdict. Run more seeds, e.g. --seeds 0,1,2."
    if overall_difference is None:
        missing = [task for task, difference in difference_by_task.items() if difference is None]
        if missing:
            yield f"No mean over all tasks: {len(missing)} lack results of both methods, e.g. {missing[0]}."
        else:
            yield "No mean over all tasks: seeds are missing."
    elif overall_difference.variance_estimates:
        p_value = overall_difference.compute_p_value()
        winner = decide_verdict(overall_difference, p_value, first, second)
        if winner == TIED:
            outcome = "they do not differ significantly"
        else:
            outcome = f"{winner} is better by {100 * abs(overall_difference.mean):.1f} points"
        detectable = 100 * overall_difference.compute_detectable_difference()
        yield (
            f"Over all {len(difference_by_task)} tasks {outcome} (p = {p_value:.2g}); "
            f"smallest detectable difference (80 % power): {detectable:.1f} points."
        )
