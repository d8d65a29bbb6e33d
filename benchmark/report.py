"""The leaderboard: in the terminal, as Markdown and CSV, and as a picture. Reads result files only."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmark.profile import Profile
from benchmark.reading import Read, read
from benchmark.result import backbone_title
from benchmark.store import write
from benchmark.table import Board, Figure, Line, at_shots, hundred

if TYPE_CHECKING:
    from benchmark.standing import Standings

MARK = "†"
SPREAD = re.compile(r" ±[\d.]+")
Rows = list[list[str]]
COSTS = ("0 steps", "trained", "s/cell", "with sources", "memory", "cells")
NARROW = ("memory", "cells", "with sources", "s/cell")  # what a narrow terminal goes without, in this order


def make(profile: Profile, console: Console, seen: Read | None = None, *, texts: bool = False) -> Path:
    """Write the report's files and print the leaderboard. `texts` of test examples go into the page. -> the folder."""
    from benchmark import inside, page, standing  # numpy and scipy: not for `--help`

    seen = seen or read(profile)
    table, worth, results = seen.table, seen.worth, seen.results
    folder = profile.folder / "report"
    notes = [*remarks(table, results, seen.old, seen.stale), *standing.notes(table, worth)]
    write(folder / "leaderboard.md", markdown(table, worth, notes).encode())
    write(folder / "leaderboard.csv", figures_csv(table, worth).encode())
    write(folder / "cells.csv", cells_csv(results).encode())
    show(table, worth, console, notes)
    if any(figure for line in table.lines for figure in line.tasks.values()):
        from benchmark.picture import draw

        draw(table, folder)
    for path in inside.pictures(results, folder):
        console.print(f"what {path.stem.removeprefix('inside-')} learned from its sources: {path}", style="dim")
    path = page.write(seen, notes, folder, texts)
    console.print(f"page: {path}", soft_wrap=True)
    return folder


def remarks(table: Board, results: Sequence[dict], old: int, stale: bool) -> Iterator[str]:
    """What a reader has to know beside the numbers."""
    seeds, suite = len(table.profile.seeds), table.profile.suite
    own = "".join(
        f", {metric} for {task}" for task, metric in table.metrics.items() if metric not in ("accuracy", "f1")
    )
    yield f"Suite {suite.name}{f': {suite.about}' if suite.about else ''}."
    yield (
        f"Scores x 100: accuracy for choices, F1 for spans{own}. ± is half of the 95 % interval (t) over {seeds} "
        f"seed{'s' if seeds > 1 else ''}{'; one seed has none' if seeds == 1 else ''}. "
        f"{MARK} control: nothing trains by steps; without an interval one run, the same in every table."
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
    if any(resting(line) for line in table.lines):
        if table.profile.leave_out == "half":
            yield "A source task was learned for from the half of the sources without it, a target task from all."
        yield (
            "0 steps: the first average after the sources, before a step on the target. "
            "With sources: seconds of a cell and its share of the source prompts and stages that it rests on, divided "
            "among the cells that do; in brackets all of them, what the cell would cost alone."
        )
    failed = sum(result["state"] == "failed" for result in results)
    if failed:
        yield f"{failed} cells failed: `benchmark status` names them, `benchmark show CELL` says why."
    if old:
        verb = "are shown although they" if stale else "are left out: they"
        yield f"{old} cells {verb} come from other code, options or data; `benchmark plan` says which part changed."


# -------------------------------------------------------------------- cells of a table


def points(figure: Figure | None, due: int | None = None) -> str:
    """71.5 ±2.3, with (2/3) while seeds are missing."""
    if figure is None:
        return ""
    spread = "" if figure.half is None else f" ±{hundred(figure.half):.1f}"
    short = f" ({figure.seeds}/{due})" if due and figure.seeds < due else ""
    return f"{hundred(figure.mean):.1f}{spread}{short}"


def count(number: float | None) -> str:
    """1.3 M"""
    if number is None:
        return ""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def memory(number: float | None) -> str:
    return "" if number is None else f"{number / 2**30:.1f} GB" if number >= 2**30 else f"{number / 2**20:.0f} MB"


def resting(line: Line) -> str:
    """12.3 (95.0): seconds of a cell with its share of what it rests on, and with all; empty where it needs nothing."""
    if line.whole is None or line.whole == line.seconds:
        return ""
    return f"{line.amortised:.1f} ({line.whole:.1f})"


def ranked(lines: Sequence[Line]) -> list[Line]:
    """Controls, then by the first average, those without one last. For reading: the intervals say what it is worth."""
    return sorted(lines, key=lambda line: (not line.control, -(line.first.mean if line.first else -1.0)))


def tables(table: Board, worth: "Standings", shots: int | str) -> Iterator[tuple[str, list[str], Rows]]:
    """(title, header, rows): averages, differences and costs, then the tasks of each role."""
    from benchmark.standing import apart

    lines, first = ranked(table.at(shots)), next(iter(table.groups))
    named = [(line, f"{line.method} {MARK}" if line.control else line.method) for line in lines]
    heads = [f"{name.split()[0]} ({len(members)})" for name, members in table.groups.items()]
    rows = [
        [name, *(points(line.averages[group]) for group in table.groups),
         apart(worth.rows[line.method, shots, first]), points(line.before[first]), count(line.trained),
         "" if line.seconds is None else f"{line.seconds:.1f}", resting(line), memory(line.bytes),
         f"{line.done}/{line.due}"]
        for line, name in named
    ]  # fmt: skip
    versus = f"{first.split()[0]} vs {worth.reference[shots]}"
    header = ["method", *heads, versus, *COSTS]
    said = [name not in COSTS or any(row[place] for row in rows) for place, name in enumerate(header)]
    yield f"{at_shots(shots)}: averages and cost", [*compress(header, said)], [[*compress(row, said)] for row in rows]
    for group in list(table.groups):
        members = table.groups[group]
        if group.startswith("choice"):
            continue
        rows = [[name, *(points(line.tasks[task], line.seeds) for task in members)] for line, name in named]
        yield f"{group}", ["method", *members], rows


# -------------------------------------------------------------------- the forms it takes


def show(table: Board, worth: "Standings", console: Console, notes: Sequence[str]) -> None:
    """In a terminal; where it is too narrow, costs and then the intervals of single tasks are left to the files."""
    for shots in dict.fromkeys(line.shots for line in table.lines):
        for title, header, rows in tables(table, worth, shots):
            header, rows, wide = fitted(header, rows, console.width - 2)
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
                cells = row if wide else [SPREAD.sub("", cell) for cell in row]
                grid.add_row(*cells, style="dim" if MARK in row[0] else "")
            console.print(grid)
    for note in notes:
        console.print(note, style="dim", highlight=False)


def fitted(header: list[str], rows: Rows, width: int) -> tuple[list[str], Rows, bool]:
    """What of a table has room, and whether that is with its intervals: the last costs go first."""
    for drop in ((), *(NARROW[:n] for n in range(1, len(NARROW) + 1))):
        kept = [name not in drop for name in header]
        least, *others = [[*compress(row, kept)] for row in [header, *rows]]
        if sum(max(map(len, column)) + 2 for column in zip(least, *others, strict=True)) <= width:
            return least, others, True
    return header, rows, False


def markdown(table: Board, worth: "Standings", notes: Sequence[str]) -> str:
    name = backbone_title(table.profile.backbone.name)
    lines = [f"# {table.profile.title}", "", f"Backbone {name}, records: {table.profile.source}.", ""]
    for shots in dict.fromkeys(line.shots for line in table.lines):
        for title, header, rows in tables(table, worth, shots):
            lines += [
                f"## {title}",
                "",
                _row(header),
                _row(["---", *["---:"] * (len(header) - 1)]),
                *map(_row, rows),
                "",
            ]
    return "\n".join([*lines, *(f"{note}\n" for note in notes), "![quality against size](leaderboard.png)", ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def figures_csv(table: Board, worth: "Standings") -> str:
    """One row per method, shots and task or average; numbers in 0..1, empty where there is none."""
    from benchmark.standing import GAP, gap

    rows = []
    for line in table.lines:
        named = [("task", task, table.metrics[task], figure) for task, figure in line.tasks.items()]
        named += [("average", group, "", figure) for group, figure in line.averages.items()]
        for kind, name, metric, figure in named:
            mean, half, seeds = figure or (None, None, 0)
            low, high = (mean - half, mean + half) if half is not None else (None, None)
            standing = worth.rows[line.method, line.shots, name]
            rows.append([line.method, int(line.control), line.shots, kind, name, metric, mean, low, high, seeds,
                         line.trained, line.seconds, line.amortised, line.whole, line.bytes,
                         worth.reference[line.shots], *gap(standing), standing.letters, standing.flag])  # fmt: skip
    header = "method control shots kind name metric mean low high seeds trained_parameters seconds_per_cell"
    header += f" seconds_amortised seconds_in_full peak_bytes reference {' '.join(GAP)} ties flag"
    return _csv(header.split(), rows)


def cells_csv(results: Sequence[dict[str, Any]]) -> str:
    """One row per cell."""
    rows = []
    for result in results:
        cell, cost = result["cell"], result.get("cost", {})
        test = result.get("metrics", {}).get("test", {})
        metric = result["task"]["metric"]
        rows.append([*cell.values(), result["state"], metric, test.get(metric), result["times"]["seconds"],
                     cost.get("trained_parameters"), cost.get("peak_bytes"), result["identity"][:16]])  # fmt: skip
    header = "method task shots seed stage state metric score seconds trained_parameters peak_bytes identity"
    return _csv(header.split(), rows)


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()
