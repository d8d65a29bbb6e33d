"""What all views of a folder are made of, read once: the results that belong to a profile, and what they are worth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from benchmark.grid import TARGET, Planned, plan
from benchmark.profile import Profile
from benchmark.result import backbone_title
from benchmark.store import Result, Store
from benchmark.table import Board, board

if TYPE_CHECKING:
    from benchmark.standing import Standings

PARENT = "parent"  # stage of a cell that is like one of the table, and that others alone rest on


class Read(NamedTuple):
    """Of one folder and profile."""

    cells: list[Planned]
    results: list[Result]  # of these cells
    every: list[Result]  # of the folder, other seeds' streams too
    old: int  # cells of other code, options or data
    stale: bool  # whether those are among the results
    table: Board
    wide: Board  # with an average for every selection of tasks that a reader may ask for
    worth: "Standings"  # of the wide one


def read(profile: Profile, *, stale: bool = False) -> Read:
    """`stale`: with results of other code, options or data where nothing newer is there."""
    from benchmark.page.selection import averages
    from benchmark.standing import standings  # numpy and scipy: not for `--help`

    store = Store(profile.folder)
    cells, results, old = collect(profile, store, stale=stale)
    wide = board(profile, results, averages(profile))
    table = board(profile, results)
    return Read(cells, results, store.results(), old, stale, table, wide, standings(wide, results))


def collect(profile: Profile, store: Store, *, stale: bool = False) -> tuple[list[Planned], list[Result], int]:
    """The plan, its results, and how many results of the folder are of other code, options or data.

    `stale` takes those too where nothing newer is there: for reading an old folder, with its age said. What others
    rest on may have the name of a cell of the table, with other options and another budget: it gets a stage of its own.
    """
    cells = plan(profile)
    every = store.results()
    place, keys = {cell.identity: index for index, cell in enumerate(cells)}, {cell.cell.key for cell in cells}
    own = [result for result in every if result["identity"] in place]
    own.sort(key=lambda result: place[result["identity"]])  # a table does not tell in which order its cells ended
    old = [result for result in every if result["key"] in keys and result["identity"] not in place]
    missing = {result["key"] for result in old} - {result["key"] for result in own}
    tabled = {cell.identity for cell in cells if cell.tabled}
    if stale:
        old, newest = aged(old, missing, backbone_title(profile.backbone.name))
        tabled |= {newest[cell.cell.key] for cell in cells if cell.tabled and cell.cell.key in newest}
        own, missing = old + own, newest.keys()
    for result in own:
        if result["cell"]["stage"] == TARGET and result["identity"] not in tabled:
            result["cell"] = result["cell"] | {"stage": PARENT}
    return cells, own, len(missing)


def aged(old: Sequence[Result], missing: set[str], backbone: str) -> tuple[list[Result], dict[str, str]]:
    """Of results oldest first, one for each missing cell, with all that it rests on. -> (they, cell -> identity).

    The newest on this backbone; rather one that is done, and one on which no other rests.
    """
    of_backbone = {result["identity"]: result for result in old if result["backbone"]["name"] == backbone}
    parents = {parent for result in of_backbone.values() for parent in result["parents"]}
    better = sorted(of_backbone.values(), key=lambda one: (one["state"] == "done", one["identity"] not in parents))
    newest = {result["key"]: result["identity"] for result in better if result["key"] in missing}
    kept, waiting = set(), list(newest.values())
    while waiting:
        if (identity := waiting.pop()) in of_backbone and identity not in kept:
            kept.add(identity)
            waiting += of_backbone[identity]["parents"]
    return [result for identity, result in of_backbone.items() if identity in kept], newest
