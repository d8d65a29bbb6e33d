"""`benchmark status` and `benchmark show`: how a grid stands, and everything about one cell."""

import json
from collections import Counter
from collections.abc import Sequence
from time import sleep

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from benchmark import grid, profile, store
from benchmark.grid import Planned
from benchmark.profile import Profile
from tasks.example import UsageError

WATCH = 2.0  # seconds between looks
FEW = 40  # cells among which a wrong name is looked for


def status(found: Profile, watch: bool, say: Console) -> int:
    """Once, or again and again until nothing is due."""
    cells, place = grid.plan(found), store.Store(found.folder)
    if not watch:
        for line in standing(found, cells, place):
            say.print(line, soft_wrap=True, markup=False)
        return 0
    with Live(console=say, auto_refresh=False) as live:
        while True:
            lines = standing(found, cells, place)
            live.update(Group(*map(Text, lines)), refresh=True)
            if lines[0].endswith("nothing is due"):
                return 0
            sleep(WATCH)


def standing(found: Profile, cells: Sequence[Planned], place: store.Store) -> list[str]:
    """Counts, then who runs, who failed and what is stale."""
    states = place.states(cells, place.results())
    counts = Counter(state for state, _ in states)
    named = ", ".join(f"{counts[state]} {state}" for state in store.STATES)
    over = "" if counts["planned"] + counts["running"] + counts["stale"] else "; nothing is due"
    lines = [f"{found.folder}: {named} of {len(cells)}{over}"]
    for cell, (state, why) in zip(cells, states, strict=True):
        if state in ("running", "failed"):
            lines.append(f"  {state:<8} {cell.cell.key:<34} {why}")
    stale = Counter(why for state, why in states if state == "stale")
    return lines + [f"  stale    {number} cells, changed: {why}" for why, number in stale.most_common()]


def show(found: Profile, wanted: str, say: Console) -> int:
    """One cell's result: what people ask for first, the whole file on request by its path."""
    for result in matching(found, wanted):
        hidden = ("schema", "parts", "training", "environment", "task", "error")
        first = {key: value for key, value in result.items() if key not in hidden}
        for part in (first, {"parts": result["parts"], "environment": result["environment"]}):
            say.print_json(json.dumps(part, ensure_ascii=False))
        if result["state"] == "failed":
            say.print(result["error"]["traceback"] or result["error"]["reason"], markup=False)
    return 0


def matching(found: Profile, wanted: str) -> list[store.Result]:
    """Results by the cell's name or the start of an identity, oldest first."""
    results = [r for r in store.Store(found.folder).results() if r["key"] == wanted or r["identity"].startswith(wanted)]
    if results:
        return results
    known = [cell.cell.key for cell in grid.plan(found)]
    if wanted in known:
        raise UsageError(f"cell {wanted} is planned and not done yet (folder {found.folder})")
    if len(known) < FEW:
        raise UsageError(f"cell {wanted} is unknown; {profile.near(wanted, known)} (folder {found.folder})")
    raise UsageError(f"no cell {wanted!r} in {found.folder}; write it as method/task/shots/seed")
