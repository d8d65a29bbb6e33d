"""What all views of a folder are made of, read once: the results that belong to a profile, and what they are worth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from benchmark.analysis.leaderboard import Leaderboard, build_leaderboard
from benchmark.config.profile import Profile
from benchmark.grid.cells import TARGET_STAGE, PlannedCell
from benchmark.grid.planner import plan_grid
from benchmark.results.index import IndexedResult
from benchmark.results.store import ResultStore
from benchmark.system.redaction import get_backbone_display_name

if TYPE_CHECKING:
    from benchmark.analysis.significance import LeaderboardSignificance

DEPENDENCY_STAGE = "parent"  # stage of a cell that is like one of the table, and that others alone rest on


class LoadedResults(NamedTuple):
    """Of one folder and profile."""

    planned_cells: list[PlannedCell]
    results: list[IndexedResult]  # of these cells
    all_results: list[IndexedResult]  # of the folder, other seeds' streams too
    num_stale: int  # cells of other code, options or data
    has_stale_results: bool  # whether those are among the results
    leaderboard: Leaderboard
    extended_leaderboard: Leaderboard  # with an average for every selection of tasks that a reader may ask for
    significance: "LeaderboardSignificance"  # of the wide one


def load_results(profile: Profile, *, include_stale: bool = False) -> LoadedResults:
    """`stale`: with results of other code, options or data where nothing newer is there."""
    from benchmark.analysis.significance import compute_significance  # numpy and scipy: not for `--help`
    from benchmark.analysis.task_groups import build_task_groups

    store = ResultStore(profile.results_folder)
    cells, results, old = collect_results(profile, store, include_stale=include_stale)
    wide = build_leaderboard(profile, results, build_task_groups(profile))
    table = build_leaderboard(profile, results)
    return LoadedResults(
        cells, results, store.load_results(), old, include_stale, table, wide, compute_significance(wide, results)
    )


def collect_results(
    profile: Profile, store: ResultStore, *, include_stale: bool = False
) -> tuple[list[PlannedCell], list[IndexedResult], int]:
    """The plan, its results, and how many results of the folder are of other code, options or data.

    `stale` takes those too where nothing newer is there: for reading an old folder, with its age said. What others
    rest on may have the name of a cell of the table, with other options and another budget: it gets a stage of its own.
    """
    cells = plan_grid(profile)
    every = store.load_results()
    place, keys = {cell.identity: index for index, cell in enumerate(cells)}, {cell.cell.key for cell in cells}
    own = [result for result in every if result["identity"] in place]
    own.sort(key=lambda result: place[result["identity"]])  # a table does not tell in which order its cells ended
    old = [result for result in every if result["key"] in keys and result["identity"] not in place]
    missing = {result["key"] for result in old} - {result["key"] for result in own}
    tabled = {cell.identity for cell in cells if cell.is_in_table}
    if include_stale:
        old, newest = select_stale_results(old, missing, get_backbone_display_name(profile.backbone.name))
        tabled |= {newest[cell.cell.key] for cell in cells if cell.is_in_table and cell.cell.key in newest}
        own, missing = old + own, newest.keys()
    for result in own:
        if result["cell"]["stage"] == TARGET_STAGE and result["identity"] not in tabled:
            result["cell"] = result["cell"] | {"stage": DEPENDENCY_STAGE}
    return cells, own, len(missing)


def select_stale_results(
    stale_results: Sequence[IndexedResult], missing_keys: set[str], backbone_name: str
) -> tuple[list[IndexedResult], dict[str, str]]:
    """Of results oldest first, one for each missing cell, with all that it rests on. -> (they, cell -> identity).

    The newest on this backbone; rather one that is done, and one on which no other rests.
    """
    of_backbone = {
        result["identity"]: result for result in stale_results if result["backbone"]["name"] == backbone_name
    }
    parents = {parent for result in of_backbone.values() for parent in result["parents"]}
    better = sorted(of_backbone.values(), key=lambda one: (one["state"] == "done", one["identity"] not in parents))
    newest = {result["key"]: result["identity"] for result in better if result["key"] in missing_keys}
    kept, waiting = set(), list(newest.values())
    while waiting:
        if (identity := waiting.pop()) in of_backbone and identity not in kept:
            kept.add(identity)
            waiting += of_backbone[identity]["parents"]
    return [result for identity, result in of_backbone.items() if identity in kept], newest
