"""`benchmark status` and `benchmark show`: how a grid stands, and everything about one cell."""

import json
from collections import Counter
from collections.abc import Sequence
from time import sleep

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from benchmark.config.profile import Profile
from benchmark.grid import planner
from benchmark.grid.cells import PlannedCell
from benchmark.results import index, schema, store
from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError

WATCH_INTERVAL_SECONDS = 2.0  # seconds between looks
MAX_CELLS_FOR_SUGGESTION = 40  # cells among which a wrong name is looked for


def print_status(profile: Profile, watch: bool, console: Console) -> int:
    """Once, or again and again until nothing is due."""
    cells, place = planner.plan_grid(profile), store.ResultStore(profile.results_folder)
    if not watch:
        for line in format_status(profile, cells, place):
            console.print(line, soft_wrap=True, markup=False)
        return 0
    with Live(console=console, auto_refresh=False) as live:
        while True:
            lines = format_status(profile, cells, place)
            live.update(Group(*map(Text, lines)), refresh=True)
            if not status.is_any_due:
                return 0
            sleep(WATCH_INTERVAL_SECONDS)


def format_status(profile: Profile, cells: Sequence[PlannedCell], result_store: store.ResultStore) -> list[str]:
    """Counts, then who runs, who failed and what is stale."""
    states = result_store.compute_statuses(cells, result_store.load_results())
    counts = Counter(state for state, _ in states)
    named = ", ".join(f"{counts[state]} {state}" for state in schema.CELL_STATES)
    over = "" if counts["planned"] + counts["running"] + counts["stale"] else "; nothing is due"
    lines = [f"{profile.results_folder}: {named} of {len(cells)}{over}"]
    for cell, (state, why) in zip(cells, states, strict=True):
        if state in ("running", "failed"):
            lines.append(f"  {state:<8} {cell.cell.key:<34} {why}")
    stale = Counter(why for state, why in states if state == "stale")
    return lines + [f"  stale    {number} cells, changed: {why}" for why, number in stale.most_common()]


def print_cell(profile: Profile, cell_name: str, console: Console) -> int:
    """One cell's result: what people ask for first, the whole file on request by its path."""
    for result in find_results(profile, cell_name):
        hidden = ("schema", "parts", "training", "environment", "task", "error")
        first = {key: value for key, value in result.items() if key not in hidden}
        for part in (first, {"parts": result["parts"], "environment": result["environment"]}):
            console.print_json(json.dumps(part, ensure_ascii=False))
        if result["state"] == "failed":
            console.print(result["error"]["traceback"] or result["error"]["reason"], markup=False)
    return 0


def find_results(profile: Profile, cell_name: str) -> list[index.IndexedResult]:
    """Results by the cell's name or the start of an identity, oldest first."""
    results = [
        r
        for r in store.ResultStore(profile.results_folder).load_results()
        if r["key"] == cell_name or r["identity"].startswith(cell_name)
    ]
    if results:
        return results
    known = [cell.cell.key for cell in planner.plan_grid(profile)]
    if cell_name in known:
        raise UsageError(f"cell {cell_name} is planned and not done yet (folder {profile.results_folder})")
    if len(known) < MAX_CELLS_FOR_SUGGESTION:
        raise UsageError(
            f"cell {cell_name} is unknown; {suggest_name(cell_name, known)} (folder {profile.results_folder})"
        )
    raise UsageError(f"no cell {cell_name!r} in {profile.results_folder}; write it as method/task/shots/seed")
