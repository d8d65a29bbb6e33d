"""Write the report of a results folder: tables, figures and the HTML page, with explanatory notes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import comb
from pathlib import Path

from rich.console import Console

from benchmark.analysis.intervals import CONFIDENCE_LEVEL
from benchmark.analysis.leaderboard import Leaderboard
from benchmark.analysis.load import LoadedResults, load_results
from benchmark.analysis.significance import LeaderboardSignificance
from benchmark.config.profile import Profile
from benchmark.reporting import diagnostics
from benchmark.reporting.figures import draw_leaderboard
from benchmark.reporting.format import (
    CONTROL_MARK,
    UNRANKED_MARK,
    format_percent_range,
    format_seconds_with_dependencies,
)
from benchmark.reporting.tables import format_cells_csv, format_markdown, format_scores_csv, print_leaderboard
from benchmark.results.cell_result import CellResult
from benchmark.results.files import write_file_atomically
from benchmark.system.formatting import format_shots


def build_report(
    profile: Profile, console: Console, loaded_results: LoadedResults | None = None, *, include_texts: bool = False
) -> Path:
    """Write the report files, print the leaderboard and return the report folder.

    `include_texts` puts test examples into the page.
    """
    from benchmark.reporting.html import render  # imports numpy and scipy; keeps `--help` fast

    loaded_results = loaded_results or load_results(profile)
    leaderboard = loaded_results.leaderboard
    significance = loaded_results.significance
    results = loaded_results.results
    folder = profile.results_folder / "report"
    notes = [
        *describe_leaderboard(leaderboard, results, loaded_results.num_stale, loaded_results.has_stale_results),
        *describe_significance(leaderboard, significance),
    ]
    write_file_atomically(folder / "leaderboard.md", format_markdown(leaderboard, significance, notes).encode())
    write_file_atomically(folder / "leaderboard.csv", format_scores_csv(leaderboard, significance).encode())
    write_file_atomically(folder / "cells.csv", format_cells_csv(results).encode())
    print_leaderboard(leaderboard, significance, console, notes)
    if any(estimate for row in leaderboard.rows for estimate in row.task_scores.values()):
        draw_leaderboard(leaderboard, folder)
    for path in diagnostics.draw_diagnostics(results, folder):
        console.print(f"source-stage diagnostics of {path.stem.removeprefix('inside-')}: {path}", style="dim")
    path = render.write_html_report(loaded_results, notes, folder, include_texts)
    console.print(f"page: {path}", soft_wrap=True)
    return folder


def describe_leaderboard(
    leaderboard: Leaderboard, results: Sequence[CellResult], num_stale: int, has_stale_results: bool
) -> Iterator[str]:
    """Notes that explain the scores: metrics, intervals, leaks, costs, failed and stale cells."""
    num_seeds = len(leaderboard.profile.seeds)
    suite = leaderboard.profile.suite
    other_metrics = "".join(
        f", {metric} for {task}" for task, metric in leaderboard.metrics.items() if metric not in ("accuracy", "f1")
    )
    yield f"Suite {suite.name}{f': {suite.about}' if suite.about else ''}."
    yield (
        f"Scores x 100: accuracy for classification, F1 for spans{other_metrics}. "
        f"± is the half-width of the 95 % t interval over {num_seeds} "
        f"seed{'s' if num_seeds > 1 else ''}{'; one seed has none' if num_seeds == 1 else ''}. "
        f"{CONTROL_MARK} baseline without gradient training; without an interval: one run, shown in every table."
    )
    yield (
        "An average is empty if one of its cells is missing or the method does not support one of its tasks; "
        "(2/3) marks a mean over fewer seeds than planned."
    )
    leaks = {
        (result.cell.task, source, count)
        for result in results
        for record in result.data.values()
        for source, count in record.leaked.items()
    }
    for task, source, count in sorted(leaks):
        yield f"Leak: {count} test texts of {task} are training texts of {source}; methods that train on it saw them."
    if any(format_seconds_with_dependencies(row) for row in leaderboard.rows):
        if leaderboard.profile.leave_out == "half":
            yield "For a source task, methods train on the half of the sources without it; for a target task, on all."
        yield (
            "0 steps: the first average after source training, before target training. "
            "With sources: seconds per cell including its share of the source training that it depends on "
            "(in brackets: including the whole source training)."
        )
    num_failed = sum(not result.is_done for result in results)
    if num_failed:
        yield f"{num_failed} cells failed: `benchmark status` lists them, `benchmark show CELL` prints the error."
    if num_stale:
        verb = "are shown although they" if has_stale_results else "are left out: they"
        yield (
            f"{num_stale} cells {verb} come from other code, options or data; `benchmark plan` says which part changed."
        )


def describe_significance(leaderboard: Leaderboard, significance: LeaderboardSignificance) -> Iterator[str]:
    """Notes on the paired differences, the detectable differences and the average ranks."""
    group, tasks = next(iter(leaderboard.task_groups.items()))
    yield (
        "vs: paired difference to that method, ± the half-width of its 95 % interval over seeds and test examples. "
        "Methods with the same letter do not differ significantly (all pairs, Holm-corrected, 5 %)."
    )
    reasons = {entry.unranked_reason for (*_, name), entry in significance.entries.items() if name == group}
    if reasons := sorted(filter(None, reasons)):
        yield f"{UNRANKED_MARK} not ranked: {', or '.join(reasons)}."
    if len(leaderboard.profile.seeds) == 1:
        yield "One seed gives no variance over seeds: differences have no interval, and there are no letters or flags."
    for shots, reference in significance.reference_by_shots.items():
        entries = [
            significance.entries[row.method, shots, group] for row in leaderboard.get_rows(shots) if not row.is_control
        ]
        differences = [
            entry.difference for entry in entries if entry.difference and entry.difference.variance_estimates
        ]
        if differences:
            num_pairs = max(1, comb(sum(bool(entry.tie_letters) for entry in entries), 2))
            single, corrected = (
                format_percent_range(
                    [
                        difference.compute_detectable_difference(1 - (1 - CONFIDENCE_LEVEL) / num_comparisons)
                        for difference in differences
                    ]
                )
                for num_comparisons in (1, num_pairs)
            )
            after_holm = f", {corrected} after Holm correction for {num_pairs} pairs" if num_pairs > 1 else ""
            yield (
                f"{format_shots(shots)}: smallest detectable difference to {reference} in {group} (80 % power): "
                f"{single} points for one planned comparison{after_holm}. More seeds detect smaller differences."
            )
        if (shots, group) in significance.average_ranks:
            names, ranks = significance.average_ranks[shots, group]
            each = ", ".join(f"{name} {rank:.1f}" for name, rank in zip(names, ranks.mean_ranks, strict=True))
            test = "" if ranks.p_value is None else f"Friedman p = {ranks.p_value:.2g}, "
            yield (
                f"{format_shots(shots)}: average rank over the {len(tasks)} {group} ({test}critical difference "
                f"{ranks.critical_difference:.1f}, Nemenyi): {each}."
            )
    for reason, count in Counter(significance.unusable_cells.values()).items():
        yield f"{count} cells are excluded from the differences: {reason}."
