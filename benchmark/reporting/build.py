"""TODO."""

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
from benchmark.reporting.format import (
    CONTROL_MARK,
    UNRANKED_MARK,
    format_percent_range,
    format_seconds_with_dependencies,
)
from benchmark.reporting.tables import format_cells_csv, format_markdown, format_scores_csv, print_leaderboard
from benchmark.results.files import write_file_atomically
from benchmark.system.formatting import format_shots


def build_report(
    profile: Profile, console: Console, loaded_results: LoadedResults | None = None, *, include_texts: bool = False
) -> Path:
    """Write the report's files and print the leaderboard. `texts` of test examples go into the page. -> the folder."""
    from benchmark.reporting import diagnostics
    from benchmark.reporting.html import render  # numpy and scipy: not for `--help`

    loaded_results = loaded_results or load_results(profile)
    table, worth, results = loaded_results.leaderboard, loaded_results.significance, loaded_results.results
    folder = profile.results_folder / "report"
    notes = [
        *describe_leaderboard(table, results, loaded_results.num_stale, loaded_results.has_stale_results),
        *describe_significance(table, worth),
    ]
    write_file_atomically(folder / "leaderboard.md", format_markdown(table, worth, notes).encode())
    write_file_atomically(folder / "leaderboard.csv", format_scores_csv(table, worth).encode())
    write_file_atomically(folder / "cells.csv", format_cells_csv(results).encode())
    print_leaderboard(table, worth, console, notes)
    if any(figure for line in table.rows for figure in line.task_scores.values()):
        from benchmark.reporting.figures import draw_leaderboard

        draw_leaderboard(table, folder)
    for path in diagnostics.draw_diagnostics(results, folder):
        console.print(f"what {path.stem.removeprefix('inside-')} learned from its sources: {path}", style="dim")
    path = render.write_html_report(loaded_results, notes, folder, include_texts)
    console.print(f"page: {path}", soft_wrap=True)
    return folder


def describe_leaderboard(
    leaderboard: Leaderboard, results: Sequence[dict], num_stale: int, has_stale_results: bool
) -> Iterator[str]:
    """What a reader has to know beside the numbers."""
    seeds, suite = len(leaderboard.profile.seeds), leaderboard.profile.suite
    own = "".join(
        f", {metric} for {task}" for task, metric in leaderboard.metrics.items() if metric not in ("accuracy", "f1")
    )
    yield f"Suite {suite.name}{f': {suite.about}' if suite.about else ''}."
    yield (
        f"Scores x 100: accuracy for choices, F1 for spans{own}. ± is half of the 95 % interval (t) over {seeds} "
        f"seed{'s' if seeds > 1 else ''}{'; one seed has none' if seeds == 1 else ''}. "
        f"{CONTROL_MARK} control: nothing trains by steps; without an interval one run, the same in every table."
    )
    yield (
        "An average is empty while one of its cells is missing, or where the method has no answer to one of its tasks; "
        "(2/3) marks a mean over fewer seeds than planned."
    )
    shared = {
        (r["cell"]["task"], source, n) for r in results for source, n in r.get("data", {}).get("leaked", {}).items()
    }
    for task, source, n in sorted(shared):
        yield f"Leak: {n} test texts of {task} are training texts of {source}; methods that learn from it saw them."
    if any(format_seconds_with_dependencies(line) for line in leaderboard.rows):
        if leaderboard.profile.leave_out == "half":
            yield "A source task was learned for from the half of the sources without it, a target task from all."
        yield (
            "0 steps: the first average after the sources, before a step on the target. "
            "With sources: seconds of a cell and its share of the source prompts and stages that it rests on, divided "
            "among the cells that do; in brackets all of them, what the cell would cost alone."
        )
    failed = sum(result["state"] == "failed" for result in results)
    if failed:
        yield f"{failed} cells failed: `benchmark status` names them, `benchmark show CELL` says why."
    if num_stale:
        verb = "are shown although they" if has_stale_results else "are left out: they"
        yield f"{num_stale} cells {verb} come from other code, options or data; `benchmark plan` says which part changed."


def describe_significance(leaderboard: Leaderboard, significance: LeaderboardSignificance) -> Iterator[str]:
    """What the paired differences rest on, the average ranks, and what the grid is too small to find."""
    group, tasks = next(iter(leaderboard.task_groups.items()))
    yield (
        "vs: paired difference to that method, ± half of its 95 % interval over seeds and test examples. Methods that "
        "share a letter are not told apart (all pairs, Holm-corrected, 5 %)."
    )
    shown = {standing.unranked_reason for (*_, name), standing in significance.entries.items() if name == group}
    if flags := sorted(filter(None, shown)):
        yield f"{UNRANKED_MARK} not ranked: {', or '.join(flags)}."
    if len(leaderboard.profile.seeds) == 1:
        yield "One seed says nothing about another: differences have no interval, and there are no ties and no flags."
    for shots, reference in significance.reference_by_shots.items():
        rows = [
            significance.entries[line.method, shots, group]
            for line in leaderboard.get_rows(shots)
            if not line.is_control
        ]
        found = [row.difference for row in rows if row.difference and row.difference.variance_estimates]
        if found:
            lettered = sum(bool(row.tie_letters) for row in rows)
            pairs = max(1, comb(lettered, 2))
            alone, letters = (
                format_percent_range(
                    [gap.compute_detectable_difference(1 - (1 - CONFIDENCE_LEVEL) / n) for gap in found]
                )
                for n in (1, pairs)
            )
            among = f"; by the letters, as the first of {pairs} pairs, from {letters}" if pairs > 1 else ""
            yield (
                f"{format_shots(shots)}: a true difference to {reference} in {group}, asked about alone, would be found "
                f"with 80 % probability from {alone} points on{among}. More seeds find smaller ones."
            )
        if (shots, group) in significance.average_ranks:
            names, ranks = significance.average_ranks[shots, group]
            each = ", ".join(f"{name} {rank:.1f}" for name, rank in zip(names, ranks.mean_ranks, strict=True))
            test = "" if ranks.p_value is None else f"Friedman p = {ranks.p_value:.2g}, "
            yield (
                f"{format_shots(shots)}: average rank over the {len(tasks)} {group} ({test}ranks closer than "
                f"{ranks.critical_difference:.1f} are not told apart, Nemenyi): {each}."
            )
    for why, number in Counter(significance.unusable_cells.values()).items():
        yield f"{number} cells are in no difference: {why}."
