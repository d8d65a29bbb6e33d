"""`benchmark status` and `benchmark show`: the state of a grid, and the result of one cell."""

import json
from collections import Counter
from collections.abc import Sequence
from time import sleep
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from benchmark.config.profile import Profile
from benchmark.grid import planner
from benchmark.grid.cells import PlannedCell
from benchmark.results import schema, store
from benchmark.results.cell_result import CellResult
from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError

WATCH_INTERVAL_SECONDS = 2.0  # seconds between updates
MAX_CELLS_FOR_SUGGESTION = 40  # grids below this size get a suggestion for an unknown cell name


class StatusReport(NamedTuple):
    """Lines about the state of a grid, and whether cells are still due (also those that run elsewhere)."""

    lines: list[str]
    has_due_cells: bool


def print_status(profile: Profile, watch: bool, console: Console) -> int:
    """Print the state of the grid once, or with `watch` again and again until no cell is due."""
    cells = planner.plan_grid(profile)
    result_store = store.ResultStore(profile.results_folder)
    if not watch:
        for line in build_status_report(profile, cells, result_store).lines:
            console.print(line, soft_wrap=True, markup=False)
        return 0
    with Live(console=console, auto_refresh=False) as live:
        while True:
            report = build_status_report(profile, cells, result_store)
            live.update(Group(*map(Text, report.lines)), refresh=True)
            if not report.has_due_cells:
                return 0
            sleep(WATCH_INTERVAL_SECONDS)


def build_status_report(
    profile: Profile, cells: Sequence[PlannedCell], result_store: store.ResultStore
) -> StatusReport:
    """Count the cells by state, then list those that run, those that failed and those that are stale."""
    statuses = result_store.compute_statuses(cells, result_store.load_results())
    counts = Counter(status.state for status in statuses)
    by_state = ", ".join(f"{counts[state]} {state}" for state in schema.CELL_STATES)
    has_due_cells = counts["planned"] + counts["running"] + counts["stale"] > 0
    ending = "" if has_due_cells else "; nothing is due"
    lines = [f"{profile.results_folder}: {by_state} of {len(cells)}{ending}"]
    for cell, status in zip(cells, statuses, strict=True):
        if status.state in ("running", "failed"):
            lines.append(f"  {status.state:<8} {cell.cell.key:<34} {status.reason}")
    stale = Counter(status.reason for status in statuses if status.state == "stale")
    lines += [f"  stale    {number} cells, changed: {reason}" for reason, number in stale.most_common()]
    return StatusReport(lines, has_due_cells)


def print_cell(profile: Profile, cell_name: str, console: Console) -> int:
    """Print the results of one cell: scores and cost first, then identity inputs, environment and traceback."""
    for result in find_results(profile, cell_name):
        values = result.to_json()
        hidden = ("training", "task", "error")
        details = {name: values.pop(name) for name in ("identity_inputs", "environment")}
        summary = {name: value for name, value in values.items() if name not in hidden}
        for part in (summary, details):
            console.print_json(json.dumps(part, ensure_ascii=False))
        if result.error:
            console.print(result.error.traceback or result.error.reason, markup=False)
    return 0


def find_results(profile: Profile, cell_name: str) -> list[CellResult]:
    """Find results by cell name or the first characters of an identity, oldest first. Raises `UsageError` if none."""
    results = [
        result
        for result in store.ResultStore(profile.results_folder).load_results()
        if result.key == cell_name or result.identity.startswith(cell_name)
    ]
    if results:
        return results
    cell_keys = [cell.cell.key for cell in planner.plan_grid(profile)]
    if cell_name in cell_keys:
        raise UsageError(f"cell {cell_name} is planned but not done yet (folder {profile.results_folder})")
    if len(cell_keys) < MAX_CELLS_FOR_SUGGESTION:
        raise UsageError(
            f"cell {cell_name} is unknown; {suggest_name(cell_name, cell_keys)} (folder {profile.results_folder})"
        )
    raise UsageError(f"no cell {cell_name!r} in {profile.results_folder}; write it as method/task/shots/seed")
