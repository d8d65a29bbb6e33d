"""Select the comparable part of a results folder for a recommendation: methods, tasks, shots and seeds.

A folder is rarely a full grid. The comparison uses the requested tasks that have results, at the nearest number of
shots, on the seeds that most methods share; a method that lacks one of these cells is listed but not ranked.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import log
from typing import NamedTuple

from benchmark.analysis import load
from benchmark.analysis.leaderboard import Leaderboard, build_leaderboard
from benchmark.analysis.paired import PairedScores
from benchmark.analysis.statistics import PairedDifference
from benchmark.config.profile import FULL, Profile
from benchmark.grid import specs
from benchmark.grid.cells import Cell, get_shots_sort_key
from benchmark.results.cell_result import CellResult
from benchmark.results.store import ResultStore
from benchmark.system.formatting import format_shots
from methods import NAMES
from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError

REQUESTED_TASKS = "asked"  # name of the average over the requested tasks


class Evidence(NamedTuple):
    """The comparable results, the excluded methods and the limitations of the evidence."""

    leaderboard: Leaderboard
    paired_scores: PairedScores
    title: str  # describes the tasks
    tasks: tuple[str, ...]
    shots: int | str
    excluded_methods: dict[str, str]  # method -> reason
    limitations: list[str]  # deviations from the request
    results: Sequence[CellResult]

    def compute_partial_difference(self, method: str, other_method: str) -> PairedDifference | None:
        """Difference of an excluded method to another one, on the seeds that the excluded method has."""
        method_seeds = {cell.seed for cell in list_done_cells(self.results) if cell.method == method}
        common_seeds = tuple(seed for seed in self.leaderboard.profile.seeds if seed in method_seeds)
        profile = replace(self.leaderboard.profile, seeds=common_seeds)
        shots = (self.shots,)
        return PairedScores(profile, self.results).compute_difference(
            (method, shots), (other_method, shots), self.tasks
        )


def collect_evidence(profile: Profile, query: argparse.Namespace) -> Evidence:
    """Collect the comparable results of a profile's folder that belong to its code, options and data.

    Raises UsageError if no trained method has results on the requested tasks.
    """
    store = ResultStore(profile.results_folder)
    extended = extend_profile(profile, list_done_cells(store.load_results()), query)
    results: list[CellResult] = []
    num_stale = 0
    if extended.methods and extended.shots:
        _, results, num_stale = load.collect_results(extended, store)
    trained = [method for method in extended.methods if specs.get_method_spec(method).uses_gradient_descent]
    available_seeds: dict[tuple, set[int]] = defaultdict(set)  # by (method, task, shots)
    for cell in list_done_cells(results):
        if cell.method in trained:
            available_seeds[cell.method, cell.task, cell.shots].add(cell.seed)
    run_command = f"python -m benchmark run {profile.cli_flags}"
    if not available_seeds:
        stale = f" ({num_stale} cells are of other code, options or data)" if num_stale else ""
        raise UsageError(
            f"no results of a trained method in {profile.results_folder}{stale}; to create them: `{run_command}`"
        )
    title, requested_tasks, limitations = resolve_requested_tasks(
        profile, query, {task for _, task, _ in available_seeds}, run_command
    )
    shots = find_nearest_shots(
        profile.shots[0], {shots for _, task, shots in available_seeds if task in requested_tasks}
    )
    if query.shots and shots != profile.shots[0]:
        limitations.append(f"no results at {format_shots(profile.shots[0])}; nearest: {format_shots(shots)}")
    counts = {task: sum((method, task, shots) in available_seeds for method in trained) for task in requested_tasks}
    tasks = tuple(task for task in requested_tasks if counts[task] >= min(2, max(counts.values())))
    limitations += [
        f"too few results on {task} at {format_shots(shots)}" for task in requested_tasks if task not in tasks
    ]
    seeds_by_method = {
        method: frozenset.intersection(*(frozenset(available_seeds.get((method, task, shots), ())) for task in tasks))
        for method in trained
    }
    if not any(seeds_by_method.values()):
        command = f"{run_command} --tasks {','.join(tasks)} --shots {shots}"
        raise UsageError(
            f"no method has all of {', '.join(tasks)} at {format_shots(shots)} on any seed; to create them: `{command}`"
        )
    common_seeds = choose_common_seeds(seeds_by_method.values())
    excluded = {
        method: describe_missing_seeds(seeds, common_seeds)
        for method, seeds in seeds_by_method.items()
        if not common_seeds <= seeds
    }
    compared = tuple(method for method in extended.methods if method not in excluded)
    comparable = replace(extended, methods=compared, seeds=tuple(sorted(common_seeds)), shots=(shots,))
    return Evidence(
        leaderboard=build_leaderboard(comparable, results, {REQUESTED_TASKS: tasks}),
        paired_scores=PairedScores(comparable, results),
        title=title,
        tasks=tasks,
        shots=shots,
        excluded_methods=excluded,
        limitations=limitations,
        results=results,
    )


def list_done_cells(results: Iterable[CellResult]) -> list[Cell]:
    """Cells of finished target-stage results."""
    return [result.cell for result in results if result.is_done and result.is_target]


def extend_profile(profile: Profile, done_cells: Sequence[Cell], query: argparse.Namespace) -> Profile:
    """Extend the profile to all methods, tasks, shots and seeds with finished cells, as far as the query allows."""
    available_methods = {cell.method for cell in done_cells}
    available_tasks = {cell.task for cell in done_cells}
    controls = [method for method in NAMES if not specs.get_method_spec(method).uses_gradient_descent]
    candidates = profile.methods if query.methods else (*NAMES, *profile.methods)
    return replace(
        profile,
        methods=tuple(method for method in dict.fromkeys((*controls, *candidates)) if method in available_methods),
        tasks=tuple(task for task in dict.fromkeys((*profile.suite.tasks, *profile.tasks)) if task in available_tasks),
        shots=tuple(sorted({cell.shots for cell in done_cells} - {0}, key=get_shots_sort_key)),
        seeds=profile.seeds if query.seeds else tuple(sorted({cell.seed for cell in done_cells})),
    )


def resolve_requested_tasks(
    profile: Profile, query: argparse.Namespace, available_tasks: set[str], run_command: str
) -> tuple[str, tuple[str, ...], list[str]]:
    """Resolve --family, --tasks or all tasks to (title, tasks with results, limitations).

    Without results on the requested tasks, other tasks of their family are used. Raises UsageError if
    there are none.
    """
    families = {
        task: specs.get_task_spec(task).family for task in dict.fromkeys((*profile.suite.tasks, *profile.tasks))
    }
    requested = list(profile.tasks) if query.tasks else list(families)
    if query.family:
        if query.family not in families.values():
            raise UsageError(f"no family {query.family!r}; {suggest_name(query.family, sorted({*families.values()}))}")
        requested = [task for task in requested if families[task] == query.family]
    if query.family:
        names = f"{query.family} tasks"
    elif query.tasks:
        names = ", ".join(requested)
    else:
        names = "all tasks"
    available = tuple(task for task in requested if task in available_tasks)
    if available and not (query.family or query.tasks):
        return f"all {len(available)} tasks", available, []
    if available:
        title = f"{names} ({', '.join(available)})" if query.family else ", ".join(available)
        missing = [task for task in requested if task not in available_tasks] if query.tasks else []
        return title, available, [f"no results on {task}" for task in missing]
    requested_families = {families[task] for task in requested}
    available = tuple(
        task for task, family in families.items() if task in available_tasks and family in requested_families
    )
    if query.family or not available:
        where = "" if query.family else " or other tasks of the family"
        raise UsageError(f"no results on {names}{where}; to create them: `{run_command} --tasks {','.join(requested)}`")
    return (
        f"{names} by {', '.join(available)}",
        available,
        [f"no results on {names}, only on other tasks of the family"],
    )


def find_nearest_shots(requested_shots: int | str, available_shots: set[int | str]) -> int | str:
    """The available number of shots nearest on a log scale; full data is nearest to the largest number."""
    if requested_shots in available_shots:
        return requested_shots
    numbers = sorted(shots for shots in available_shots if isinstance(shots, int))
    if not numbers:
        return FULL
    if isinstance(requested_shots, int):
        return min(numbers, key=lambda shots: abs(log(shots / requested_shots)))
    return numbers[-1]


def choose_common_seeds(seed_sets: Iterable[frozenset[int]]) -> frozenset[int]:
    """Choose the seed set with the largest (methods - 1) * (seeds - 1), then the most methods, then the most seeds."""
    seed_sets = [seeds for seeds in seed_sets if seeds]
    covered = {seeds: sum(seeds <= other for other in seed_sets) for seeds in seed_sets}
    return max(covered, key=lambda seeds: ((covered[seeds] - 1) * (len(seeds) - 1), covered[seeds], len(seeds)))


def describe_missing_seeds(method_seeds: frozenset[int], common_seeds: frozenset[int]) -> str:
    """Why a method that lacks some of the common seeds is excluded."""
    if method_seeds & common_seeds:
        return f"seed {', '.join(map(str, sorted(method_seeds)))} only"
    return "cells are missing"
