"""Load the results that belong to a profile and compute the leaderboard and significance tests of all reports."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from benchmark.analysis.leaderboard import Leaderboard, build_leaderboard
from benchmark.analysis.task_groups import build_task_groups
from benchmark.config.profile import Profile
from benchmark.grid.cells import PlannedCell
from benchmark.grid.planner import plan_grid
from benchmark.results.cell_result import CellResult
from benchmark.results.store import ResultStore
from benchmark.system.redaction import get_backbone_display_name

if TYPE_CHECKING:
    from benchmark.analysis.significance import LeaderboardSignificance

DEPENDENCY_STAGE = "parent"  # stage given to a cell that other cells depend on but that is not in the table itself


class LoadedResults(NamedTuple):
    """Results of one profile in its results folder, with leaderboard and significance."""

    planned_cells: list[PlannedCell]
    results: list[CellResult]  # of the planned cells
    all_results: list[CellResult]  # of the folder, including runs with other seed streams
    num_stale: int  # cells that only have results from other code, options or data
    has_stale_results: bool  # whether `results` includes stale results
    leaderboard: Leaderboard
    extended_leaderboard: Leaderboard  # with an average for every task group that the page offers
    significance: "LeaderboardSignificance"  # of the extended leaderboard


def load_results(profile: Profile, *, include_stale: bool = False) -> LoadedResults:
    """Load results, leaderboard and significance; `include_stale` as in `collect_results`."""
    from benchmark.analysis.significance import compute_significance  # imports numpy and scipy; keeps `--help` fast

    store = ResultStore(profile.results_folder)
    planned_cells, results, num_stale = collect_results(profile, store, include_stale=include_stale)
    extended = build_leaderboard(profile, results, build_task_groups(profile))
    return LoadedResults(
        planned_cells=planned_cells,
        results=results,
        all_results=store.load_results(),
        num_stale=num_stale,
        has_stale_results=include_stale,
        leaderboard=build_leaderboard(profile, results),
        extended_leaderboard=extended,
        significance=compute_significance(extended, results),
    )


def collect_results(
    profile: Profile, store: ResultStore, *, include_stale: bool = False
) -> tuple[list[PlannedCell], list[CellResult], int]:
    """Return (planned cells, their results, number of cells with stale results only).

    Stale results come from other code, options or data; `include_stale` adds them for cells without a current result.
    A dependency may have the key of a table cell but other options and another budget: its stage is set to
    DEPENDENCY_STAGE.
    """
    cells = plan_grid(profile)
    all_results = store.load_results()
    index_by_identity = {cell.identity: index for index, cell in enumerate(cells)}
    keys = {cell.cell.key for cell in cells}
    results = [result for result in all_results if result.identity in index_by_identity]
    results.sort(key=lambda result: index_by_identity[result.identity])  # plan order, not completion order
    stale = [result for result in all_results if result.key in keys and result.identity not in index_by_identity]
    stale_keys = {result.key for result in stale} - {result.key for result in results}
    table_identities = {cell.identity for cell in cells if cell.is_in_table}
    num_stale = len(stale_keys)
    if include_stale:
        backbone_name = get_backbone_display_name(profile.backbone.name)
        stale, newest = select_stale_results(stale, stale_keys, backbone_name)
        table_identities |= {newest[cell.cell.key] for cell in cells if cell.is_in_table and cell.cell.key in newest}
        results = stale + results
        num_stale = len(newest)
    labelled = []
    for result in results:
        if result.is_target and result.identity not in table_identities:
            result = replace(result, cell=result.cell._replace(stage=DEPENDENCY_STAGE))
        labelled.append(result)
    return cells, labelled, num_stale


def select_stale_results(
    stale_results: Sequence[CellResult], missing_keys: set[str], backbone_name: str
) -> tuple[list[CellResult], dict[str, str]]:
    """Select one result per missing cell, with its dependencies: (results, cell key -> identity).

    `stale_results` are ordered oldest first. Only results on this backbone count; finished ones are preferred, then
    ones that are not a dependency of another result, then the newest.
    """
    of_backbone = {result.identity: result for result in stale_results if result.backbone.name == backbone_name}
    parents = {parent for result in of_backbone.values() for parent in result.dependencies}
    by_preference = sorted(of_backbone.values(), key=lambda result: (result.is_done, result.identity not in parents))
    newest = {result.key: result.identity for result in by_preference if result.key in missing_keys}
    selected = set()
    pending = list(newest.values())
    while pending:
        identity = pending.pop()
        if identity in of_backbone and identity not in selected:
            selected.add(identity)
            pending += of_backbone[identity].dependencies
    return [result for identity, result in of_backbone.items() if identity in selected], newest
