"""What a recommendation rests on: the methods, tasks, shots and seeds of a folder that can be compared with each other.

A folder is rarely a full grid. Compared are the tasks that were asked for and are there, at the number of shots that is
nearest, on the seeds that most methods have; a method that lacks a cell of these is named and not ranked.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import log
from typing import Any, NamedTuple

from benchmark.analysis import load
from benchmark.analysis.leaderboard import Leaderboard, build_leaderboard
from benchmark.analysis.paired import PairedScores
from benchmark.analysis.statistics import PairedDifference
from benchmark.config.profile import FULL, Profile
from benchmark.grid import specs
from benchmark.grid.cells import TARGET_STAGE, Cell, get_shots_sort_key
from benchmark.results.store import ResultStore
from benchmark.system.formatting import format_shots
from methods import NAMES
from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError

REQUESTED_TASKS = "asked"  # the average over the tasks asked for


class Evidence(NamedTuple):
    """What is compared, who is left out, and what it lacks."""

    leaderboard: Leaderboard
    paired_scores: PairedScores
    title: str
    tasks: tuple[str, ...]
    shots: int | str
    excluded_methods: dict[str, str]  # method -> why
    limitations: list[str]  # of what was asked for
    results: Sequence[Mapping[str, Any]]

    def compute_partial_difference(self, method: str, other_method: str) -> PairedDifference | None:
        """The difference on the seeds that a method has which is left out."""
        own = {cell["seed"] for cell in list_done_cells(self.results) if cell["method"] == method}
        profile = replace(
            self.leaderboard.profile, seeds=tuple(seed for seed in self.leaderboard.profile.seeds if seed in own)
        )
        shots = (self.shots,)
        return PairedScores(profile, self.results).compute_difference(
            (method, shots), (other_method, shots), self.tasks
        )


def collect_evidence(profile: Profile, query: argparse.Namespace) -> Evidence:
    """The results of a profile's folder that belong to its code, options and data, as far as they can be compared."""
    place = ResultStore(profile.results_folder)
    wide = extend_profile(profile, list_done_cells(place.load_results()), query)
    _, results, old = load.collect_results(wide, place) if wide.methods and wide.shots else ((), [], 0)
    trained = [row for row in wide.methods if specs.get_method_spec(row)["trains"]]
    has: dict[tuple, set[int]] = defaultdict(set)
    for cell in list_done_cells(results):
        if cell["method"] in trained:
            has[cell["method"], cell["task"], cell["shots"]].add(cell["seed"])
    run = f"python -m benchmark run {profile.cli_flags}"
    if not has:
        aged = f" ({old} cells are of other code, options or data)" if old else ""
        raise UsageError(f"no results of a trained method in {profile.results_folder}{aged}; `{run}` makes them")
    title, asked, lacks = resolve_requested_tasks(profile, query, {task for _, task, _ in has}, run)
    shots = find_nearest_shots(profile.shots[0], {shots for _, task, shots in has if task in asked})
    if query.shots and shots != profile.shots[0]:
        lacks.append(f"nothing was run at {format_shots(profile.shots[0])}, {format_shots(shots)} are the nearest")
    counts = {task: sum((row, task, shots) in has for row in trained) for task in asked}
    tasks = tuple(task for task in asked if counts[task] >= min(2, max(counts.values())))
    lacks += [f"too few results on {task} at {format_shots(shots)}" for task in asked if task not in tasks]
    seeds = {row: frozenset.intersection(*(frozenset(has.get((row, task, shots), ())) for task in tasks))
             for row in trained}  # fmt: skip
    if not any(seeds.values()):
        need = f"{run} --tasks {','.join(tasks)} --shots {shots}"
        raise UsageError(
            f"no method has all of {', '.join(tasks)} at {format_shots(shots)} on any seed; `{need}` makes them"
        )
    common = choose_common_seeds(seeds.values())
    left = {row: describe_missing_seeds(own, common) for row, own in seeds.items() if not common <= own}
    rows = tuple(row for row in wide.methods if row not in left)
    narrow = replace(wide, methods=rows, seeds=tuple(sorted(common)), shots=(shots,))
    table = build_leaderboard(narrow, results, {REQUESTED_TASKS: tasks})
    return Evidence(table, PairedScores(narrow, results), title, tasks, shots, left, lacks, results)


def list_done_cells(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The cells of the table that are done."""
    return [
        result["cell"] for result in results if result["state"] == "done" and result["cell"]["stage"] == TARGET_STAGE
    ]


def extend_profile(profile: Profile, done_cells: Sequence[Mapping[str, Any]], query: argparse.Namespace) -> Profile:
    """The profile with every row of the suite or of its own, every task, shots and seed that its folder knows of."""
    known = {name: {cell[name] for cell in done_cells} for name in Cell._fields}
    controls = [row for row in NAMES if not specs.get_method_spec(row)["trains"]]
    rows = profile.methods if query.methods else (*NAMES, *profile.methods)
    return replace(
        profile,
        methods=tuple(row for row in dict.fromkeys((*controls, *rows)) if row in known["method"]),
        tasks=tuple(task for task in dict.fromkeys((*profile.suite.tasks, *profile.tasks)) if task in known["task"]),
        shots=tuple(sorted(known["shots"] - {0}, key=get_shots_sort_key)),
        seeds=profile.seeds if query.seeds else tuple(sorted(known["seed"])),
    )


def resolve_requested_tasks(
    profile: Profile, query: argparse.Namespace, available_tasks: set[str], run_command: str
) -> tuple[str, tuple[str, ...], list[str]]:
    """(what the tasks are called, those with results, reasons for doubt) of --family, --tasks, or all."""
    families = {
        task: specs.get_task_spec(task)["family"] for task in dict.fromkeys((*profile.suite.tasks, *profile.tasks))
    }
    asked = list(profile.tasks) if query.tasks else list(families)
    if query.family:
        if query.family not in families.values():
            raise UsageError(f"no family {query.family!r}; {suggest_name(query.family, sorted({*families.values()}))}")
        asked = [task for task in asked if families[task] == query.family]
    names = f"{query.family} tasks" if query.family else ", ".join(asked) if query.tasks else "all tasks"
    there = tuple(task for task in asked if task in available_tasks)
    if there and not (query.family or query.tasks):
        return f"all {len(there)} tasks", there, []
    if there:
        title = f"{names} ({', '.join(there)})" if query.family else ", ".join(there)
        return title, there, [f"no results on {task}" for task in asked if query.tasks and task not in available_tasks]
    alike = {families[task] for task in asked}
    there = tuple(task for task, family in families.items() if task in available_tasks and family in alike)
    if query.family or not there:
        where = "" if query.family else ", nor on a task of that family"
        raise UsageError(f"no results on {names}{where}; `{run_command} --tasks {','.join(asked)}` makes them")
    return f"{names} by {', '.join(there)}", there, [f"no results on {names}, only on others of its family"]


def find_nearest_shots(requested_shots: int | str, available_shots: set[int | str]) -> int | str:
    """The number of shots that is there, by its logarithm; full data is nearest to the most."""
    if requested_shots in available_shots:
        return requested_shots
    numbers = sorted(shots for shots in available_shots if isinstance(shots, int))
    if not numbers:
        return FULL
    return (
        min(numbers, key=lambda k: abs(log(k / requested_shots))) if isinstance(requested_shots, int) else numbers[-1]
    )


def choose_common_seeds(seed_sets: Iterable[frozenset[int]]) -> frozenset[int]:
    """The seeds that give most comparisons of methods, times their degrees of freedom; then those of most methods."""
    seed_sets = [seeds for seeds in seed_sets if seeds]
    covered = {seeds: sum(seeds <= other for other in seed_sets) for seeds in seed_sets}
    return max(covered, key=lambda seeds: ((covered[seeds] - 1) * (len(seeds) - 1), covered[seeds], len(seeds)))


def describe_missing_seeds(method_seeds: frozenset[int], common_seeds: frozenset[int]) -> str:
    return (
        f"seed {', '.join(map(str, sorted(method_seeds)))} only" if method_seeds & common_seeds else "cells are missing"
    )
