"""The leaderboard: in the terminal, as Markdown and CSV, and as a picture. Reads result files only."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmark.analysis.leaderboard import Leaderboard, sort_rows
from benchmark.reporting.format import CONTROL_MARK, format_score, format_seconds_with_dependencies
from benchmark.system.formatting import format_bytes, format_count, format_shots
from benchmark.system.redaction import get_backbone_display_name

if TYPE_CHECKING:
    from benchmark.analysis.significance import LeaderboardSignificance

INTERVAL_PATTERN = re.compile(r" ±[\d.]+")
TableRows = list[list[str]]
COST_COLUMNS = ("0 steps", "trained", "s/cell", "with sources", "memory", "cells")
DROPPABLE_COLUMNS = ("memory", "cells", "with sources", "s/cell")  # what a narrow terminal goes without, in this order


# -------------------------------------------------------------------- cells of a table


def build_tables(
    leaderboard: Leaderboard, significance: "LeaderboardSignificance", shots: int | str
) -> Iterator[tuple[str, list[str], TableRows]]:
    """(title, header, rows): averages, differences and costs, then the tasks of each role."""
    from benchmark.reporting.format import format_significance

    lines, first = sort_rows(leaderboard.get_rows(shots)), next(iter(leaderboard.task_groups))
    named = [(line, f"{line.method} {CONTROL_MARK}" if line.is_control else line.method) for line in lines]
    heads = [f"{name.split()[0]} ({len(members)})" for name, members in leaderboard.task_groups.items()]
    rows = [
        [name, *(format_score(line.averages[group]) for group in leaderboard.task_groups),
         format_significance(significance.entries[line.method, shots, first]), format_score(line.zero_step_averages[first]), format_count(line.trained_parameters),
         "" if line.seconds_per_cell is None else f"{line.seconds_per_cell:.1f}", format_seconds_with_dependencies(line), format_bytes(line.peak_bytes),
         f"{line.num_done}/{line.num_due}"]
        for line, name in named
    ]  # fmt: skip
    versus = f"{first.split()[0]} vs {significance.reference_by_shots[shots]}"
    header = ["method", *heads, versus, *COST_COLUMNS]
    said = [name not in COST_COLUMNS or any(row[place] for row in rows) for place, name in enumerate(header)]
    yield (
        f"{format_shots(shots)}: averages and cost",
        [*compress(header, said)],
        [[*compress(row, said)] for row in rows],
    )
    for group in list(leaderboard.task_groups):
        members = leaderboard.task_groups[group]
        if group.startswith("choice"):
            continue
        rows = [
            [name, *(format_score(line.task_scores[task], line.num_planned_seeds) for task in members)]
            for line, name in named
        ]
        yield f"{group}", ["method", *members], rows


# -------------------------------------------------------------------- the forms it takes


def print_leaderboard(
    leaderboard: Leaderboard, significance: "LeaderboardSignificance", console: Console, notes: Sequence[str]
) -> None:
    """In a terminal; where it is too narrow, costs and then the intervals of single tasks are left to the files."""
    for shots in dict.fromkeys(line.shots for line in leaderboard.rows):
        for title, header, rows in build_tables(leaderboard, significance, shots):
            header, rows, wide = fit_to_width(header, rows, console.width - 2)
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
                grid.add_column(name if wide else name.partition(" (")[0], justify="right", no_wrap=True)
            for row in rows:
                cells = row if wide else [INTERVAL_PATTERN.sub("", cell) for cell in row]
                grid.add_row(*cells, style="dim" if CONTROL_MARK in row[0] else "")
            console.print(grid)
    for note in notes:
        console.print(note, style="dim", highlight=False)


def fit_to_width(header: list[str], rows: TableRows, width: int) -> tuple[list[str], TableRows, bool]:
    """What of a table has room, and whether that is with its intervals: the last costs go first."""
    for drop in ((), *(DROPPABLE_COLUMNS[:n] for n in range(1, len(DROPPABLE_COLUMNS) + 1))):
        kept = [name not in drop for name in header]
        least, *others = [[*compress(row, kept)] for row in [header, *rows]]
        if sum(max(map(len, column)) + 2 for column in zip(least, *others, strict=True)) <= width:
            return least, others, True
    return header, rows, False


def format_markdown(leaderboard: Leaderboard, significance: "LeaderboardSignificance", notes: Sequence[str]) -> str:
    name = get_backbone_display_name(leaderboard.profile.backbone.name)
    lines = [f"# {leaderboard.profile.grid_name}", "", f"Backbone {name}, records: {leaderboard.profile.source}.", ""]
    for shots in dict.fromkeys(line.shots for line in leaderboard.rows):
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
    """One row per method, shots and task or average; numbers in 0..1, empty where there is none."""
    from benchmark.analysis.significance import DIFFERENCE_COLUMNS, list_difference_values

    rows = []
    for line in leaderboard.rows:
        named = [("task", task, leaderboard.metrics[task], figure) for task, figure in line.task_scores.items()]
        named += [("average", group, "", figure) for group, figure in line.averages.items()]
        for kind, name, metric, figure in named:
            mean, half, seeds = figure or (None, None, 0)
            low, high = (mean - half, mean + half) if half is not None else (None, None)
            standing = significance.entries[line.method, line.shots, name]
            rows.append([line.method, int(line.is_control), line.shots, kind, name, metric, mean, low, high, seeds,
                         line.trained_parameters, line.seconds_per_cell, line.amortised_seconds, line.standalone_seconds, line.peak_bytes,
                         significance.reference_by_shots[line.shots], *list_difference_values(standing), standing.tie_letters, standing.unranked_reason])  # fmt: skip
    header = "method control shots kind name metric mean low high seeds trained_parameters seconds_per_cell"
    header += f" seconds_amortised seconds_in_full peak_bytes reference {' '.join(DIFFERENCE_COLUMNS)} ties flag"
    return _format_csv(header.split(), rows)


def format_cells_csv(results: Sequence[dict[str, Any]]) -> str:
    """One row per cell."""
    rows = []
    for result in results:
        cell, cost = result["cell"], result.get("cost", {})
        test = result.get("metrics", {}).get("test", {})
        metric = result["task"]["metric"]
        rows.append([*cell.values(), result["state"], metric, test.get(metric), result["times"]["seconds"],
                     cost.get("trained_parameters"), cost.get("peak_bytes"), result["identity"][:16]])  # fmt: skip
    header = "method task shots seed stage state metric score seconds trained_parameters peak_bytes identity"
    return _format_csv(header.split(), rows)


def _format_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()
