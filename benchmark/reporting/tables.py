"""Leaderboard tables for the terminal, Markdown and CSV."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import compress
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmark.analysis.leaderboard import Leaderboard, sort_rows
from benchmark.reporting.format import CONTROL_MARK, format_score, format_seconds_with_dependencies
from benchmark.results.cell_result import CellResult
from benchmark.system.formatting import format_bytes, format_count, format_shots
from benchmark.system.redaction import get_backbone_display_name

if TYPE_CHECKING:
    from benchmark.analysis.significance import LeaderboardSignificance

INTERVAL_PATTERN = re.compile(r" ±[\d.]+")
TableRows = list[list[str]]
COST_COLUMNS = ("0 steps", "trained", "s/cell", "with sources", "memory", "cells")
DROPPABLE_COLUMNS = ("memory", "cells", "with sources", "s/cell")  # dropped in this order in a narrow terminal


# -------------------------------------------------------------------- table contents


def build_tables(
    leaderboard: Leaderboard, significance: "LeaderboardSignificance", shots: int | str
) -> Iterator[tuple[str, list[str], TableRows]]:
    """Yield (title, header, rows) of the tables at one number of shots.

    The first has averages, differences and costs; the others have the tasks of one role each. Empty cost columns are
    left out.
    """
    from benchmark.reporting.format import format_significance

    primary_group = next(iter(leaderboard.task_groups))
    labelled_rows = [
        (f"{row.method} {CONTROL_MARK}" if row.is_control else row.method, row)
        for row in sort_rows(leaderboard.get_rows(shots))
    ]
    group_columns = [f"{name.split()[0]} ({len(members)})" for name, members in leaderboard.task_groups.items()]
    table_rows = [
        [
            label,
            *(format_score(row.averages[group]) for group in leaderboard.task_groups),
            format_significance(significance.entries[row.method, shots, primary_group]),
            format_score(row.zero_step_averages[primary_group]),
            format_count(row.trained_parameters),
            "" if row.seconds_per_cell is None else f"{row.seconds_per_cell:.1f}",
            format_seconds_with_dependencies(row),
            format_bytes(row.peak_bytes),
            f"{row.num_done}/{row.num_due}",
        ]
        for label, row in labelled_rows
    ]
    difference_column = f"{primary_group.split()[0]} vs {significance.reference_by_shots[shots]}"
    header = ["method", *group_columns, difference_column, *COST_COLUMNS]
    is_shown = [
        name not in COST_COLUMNS or any(table_row[index] for table_row in table_rows)
        for index, name in enumerate(header)
    ]
    yield (
        f"{format_shots(shots)}: averages and cost",
        [*compress(header, is_shown)],
        [[*compress(table_row, is_shown)] for table_row in table_rows],
    )
    for group, members in leaderboard.task_groups.items():
        if group.startswith("choice"):
            continue
        table_rows = [
            [label, *(format_score(row.task_scores[task], row.num_planned_seeds) for task in members)]
            for label, row in labelled_rows
        ]
        yield group, ["method", *members], table_rows


# -------------------------------------------------------------------- output formats


def print_leaderboard(
    leaderboard: Leaderboard, significance: "LeaderboardSignificance", console: Console, notes: Sequence[str]
) -> None:
    """Print the tables; in a narrow terminal cost columns are dropped first, then intervals."""
    for shots in dict.fromkeys(row.shots for row in leaderboard.rows):
        for title, header, rows in build_tables(leaderboard, significance, shots):
            header, rows, has_intervals = fit_to_width(header, rows, console.width - 2)
            grid = Table(
                title=title,
                title_justify="left",
                title_style="bold",
                header_style="dim",
                box=SIMPLE_HEAD,
                padding=(0, 0, 0, 1),
            )
            grid.add_column(header[0], no_wrap=True)
            for name in header[1:]:
                grid.add_column(name if has_intervals else name.partition(" (")[0], justify="right", no_wrap=True)
            for row in rows:
                cells = row if has_intervals else [INTERVAL_PATTERN.sub("", cell) for cell in row]
                grid.add_row(*cells, style="dim" if CONTROL_MARK in row[0] else "")
            console.print(grid)
    for note in notes:
        console.print(note, style="dim", highlight=False)


def fit_to_width(header: list[str], rows: TableRows, width: int) -> tuple[list[str], TableRows, bool]:
    """Drop cost columns until the table fits: (header, rows, whether intervals fit too).

    If it is too wide even without costs, all columns are returned and the intervals have to be removed.
    """
    for drop in ((), *(DROPPABLE_COLUMNS[:n] for n in range(1, len(DROPPABLE_COLUMNS) + 1))):
        is_shown = [name not in drop for name in header]
        narrow_header, *narrow_rows = [[*compress(row, is_shown)] for row in [header, *rows]]
        if sum(max(map(len, column)) + 2 for column in zip(narrow_header, *narrow_rows, strict=True)) <= width:
            return narrow_header, narrow_rows, True
    return header, rows, False


def format_markdown(leaderboard: Leaderboard, significance: "LeaderboardSignificance", notes: Sequence[str]) -> str:
    """The leaderboard tables and notes as a Markdown document."""
    name = get_backbone_display_name(leaderboard.profile.backbone.name)
    lines = [f"# {leaderboard.profile.grid_name}", "", f"Backbone {name}, data: {leaderboard.profile.source}.", ""]
    for shots in dict.fromkeys(row.shots for row in leaderboard.rows):
        for title, header, rows in build_tables(leaderboard, significance, shots):
            lines += [
                f"## {title}",
                "",
                _format_markdown_row(header),
                _format_markdown_row(["---", *["---:"] * (len(header) - 1)]),
                *map(_format_markdown_row, rows),
                "",
            ]
    return "\n".join([*lines, *(f"{note}\n" for note in notes), "![quality against size](leaderboard.png)", ""])


def _format_markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def format_scores_csv(leaderboard: Leaderboard, significance: "LeaderboardSignificance") -> str:
    """CSV with one row per method, shots and task or average; scores in 0..1, missing values empty."""
    from benchmark.analysis.significance import DIFFERENCE_COLUMNS, list_difference_values

    rows = []
    for row in leaderboard.rows:
        scores = [("task", task, leaderboard.metrics[task], estimate) for task, estimate in row.task_scores.items()]
        scores += [("average", group, "", estimate) for group, estimate in row.averages.items()]
        for kind, name, metric, estimate in scores:
            mean, half_width, num_seeds = estimate or (None, None, 0)
            low = None if half_width is None else mean - half_width
            high = None if half_width is None else mean + half_width
            entry = significance.entries[row.method, row.shots, name]
            rows.append(
                [
                    *(row.method, int(row.is_control), row.shots, kind, name, metric, mean, low, high, num_seeds),
                    *(row.trained_parameters, row.seconds_per_cell, row.amortised_seconds, row.standalone_seconds),
                    *(row.peak_bytes, significance.reference_by_shots[row.shots], *list_difference_values(entry)),
                    *(entry.tie_letters, entry.unranked_reason),
                ]
            )
    header = "method control shots kind name metric mean low high seeds trained_parameters seconds_per_cell"
    header += f" seconds_amortised seconds_in_full peak_bytes reference {' '.join(DIFFERENCE_COLUMNS)} ties flag"
    return _format_csv(header.split(), rows)


def format_cells_csv(results: Sequence[CellResult]) -> str:
    """CSV with one row per cell."""
    rows = []
    for result in results:
        costs = result.costs
        rows.append(
            [
                *result.cell,
                result.state,
                result.task.metric,
                result.test_score,
                result.times.seconds,
                costs.trained_parameters if costs else None,
                costs.peak_bytes if costs else None,
                result.identity[:16],
            ]
        )
    header = "method task shots seed stage state metric score seconds trained_parameters peak_bytes identity"
    return _format_csv(header.split(), rows)


def _format_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()
