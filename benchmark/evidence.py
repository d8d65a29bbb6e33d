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

from benchmark import catalogue, reading
from benchmark.grid import TARGET, Cell, order
from benchmark.paired import Kept
from benchmark.profile import FULL, METHODS, Profile, near
from benchmark.stats import Difference
from benchmark.store import Store
from benchmark.table import Board, at_shots, board
from tasks.example import UsageError

ASKED = "asked"  # the average over the tasks asked for


class Evidence(NamedTuple):
    """What is compared, who is left out, and what it lacks."""

    table: Board
    kept: Kept
    title: str
    tasks: tuple[str, ...]
    shots: int | str
    left_out: dict[str, str]  # method -> why
    lacks: list[str]  # of what was asked for
    results: Sequence[Mapping[str, Any]]

    def partly(self, method: str, other: str) -> Difference | None:
        """The difference on the seeds that a method has which is left out."""
        own = {cell["seed"] for cell in cells(self.results) if cell["method"] == method}
        profile = replace(self.table.profile, seeds=tuple(seed for seed in self.table.profile.seeds if seed in own))
        shots = (self.shots,)
        return Kept(profile, self.results).difference((method, shots), (other, shots), self.tasks)


def gathered(found: Profile, options: argparse.Namespace) -> Evidence:
    """The results of a profile's folder that belong to its code, options and data, as far as they can be compared."""
    place = Store(found.folder)
    wide = widened(found, cells(place.results()), options)
    _, results, old = reading.collect(wide, place) if wide.methods and wide.shots else ((), [], 0)
    trained = [row for row in wide.methods if catalogue.method(row)["trains"]]
    has: dict[tuple, set[int]] = defaultdict(set)
    for cell in cells(results):
        if cell["method"] in trained:
            has[cell["method"], cell["task"], cell["shots"]].add(cell["seed"])
    run = f"python -m benchmark run {found.flags}"
    if not has:
        aged = f" ({old} cells are of other code, options or data)" if old else ""
        raise UsageError(f"no results of a trained method in {found.folder}{aged}; `{run}` makes them")
    title, asked, lacks = scope(found, options, {task for _, task, _ in has}, run)
    shots = nearest(found.shots[0], {shots for _, task, shots in has if task in asked})
    if options.shots and shots != found.shots[0]:
        lacks.append(f"nothing was run at {at_shots(found.shots[0])}, {at_shots(shots)} are the nearest")
    counts = {task: sum((row, task, shots) in has for row in trained) for task in asked}
    tasks = tuple(task for task in asked if counts[task] >= min(2, max(counts.values())))
    lacks += [f"too few results on {task} at {at_shots(shots)}" for task in asked if task not in tasks]
    seeds = {row: frozenset.intersection(*(frozenset(has.get((row, task, shots), ())) for task in tasks))
             for row in trained}  # fmt: skip
    if not any(seeds.values()):
        need = f"{run} --tasks {','.join(tasks)} --shots {shots}"
        raise UsageError(
            f"no method has all of {', '.join(tasks)} at {at_shots(shots)} on any seed; `{need}` makes them"
        )
    common = most(seeds.values())
    left = {row: lacking(own, common) for row, own in seeds.items() if not common <= own}
    rows = tuple(row for row in wide.methods if row not in left)
    narrow = replace(wide, methods=rows, seeds=tuple(sorted(common)), shots=(shots,))
    table = board(narrow, results, {ASKED: tasks})
    return Evidence(table, Kept(narrow, results), title, tasks, shots, left, lacks, results)


def cells(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The cells of the table that are done."""
    return [result["cell"] for result in results if result["state"] == "done" and result["cell"]["stage"] == TARGET]


def widened(found: Profile, done: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> Profile:
    """The profile with every row of the suite or of its own, every task, shots and seed that its folder knows of."""
    known = {name: {cell[name] for cell in done} for name in Cell._fields}
    controls = [row for row in METHODS if not catalogue.method(row)["trains"]]
    rows = found.methods if options.methods else (*METHODS, *found.methods)
    return replace(
        found,
        methods=tuple(row for row in dict.fromkeys((*controls, *rows)) if row in known["method"]),
        tasks=tuple(task for task in dict.fromkeys((*found.suite.tasks, *found.tasks)) if task in known["task"]),
        shots=tuple(sorted(known["shots"] - {0}, key=order)),
        seeds=found.seeds if options.seeds else tuple(sorted(known["seed"])),
    )


def scope(
    found: Profile, options: argparse.Namespace, known: set[str], run: str
) -> tuple[str, tuple[str, ...], list[str]]:
    """(what the tasks are called, those with results, reasons for doubt) of --family, --tasks, or all."""
    families = {task: catalogue.task(task)["family"] for task in dict.fromkeys((*found.suite.tasks, *found.tasks))}
    asked = list(found.tasks) if options.tasks else list(families)
    if options.family:
        if options.family not in families.values():
            raise UsageError(f"no family {options.family!r}; {near(options.family, sorted({*families.values()}))}")
        asked = [task for task in asked if families[task] == options.family]
    names = f"{options.family} tasks" if options.family else ", ".join(asked) if options.tasks else "all tasks"
    there = tuple(task for task in asked if task in known)
    if there and not (options.family or options.tasks):
        return f"all {len(there)} tasks", there, []
    if there:
        title = f"{names} ({', '.join(there)})" if options.family else ", ".join(there)
        return title, there, [f"no results on {task}" for task in asked if options.tasks and task not in known]
    alike = {families[task] for task in asked}
    there = tuple(task for task, family in families.items() if task in known and family in alike)
    if options.family or not there:
        where = "" if options.family else ", nor on a task of that family"
        raise UsageError(f"no results on {names}{where}; `{run} --tasks {','.join(asked)}` makes them")
    return f"{names} by {', '.join(there)}", there, [f"no results on {names}, only on others of its family"]


def nearest(wanted: int | str, known: set[int | str]) -> int | str:
    """The number of shots that is there, by its logarithm; full data is nearest to the most."""
    if wanted in known:
        return wanted
    numbers = sorted(shots for shots in known if isinstance(shots, int))
    if not numbers:
        return FULL
    return min(numbers, key=lambda k: abs(log(k / wanted))) if isinstance(wanted, int) else numbers[-1]


def most(sets: Iterable[frozenset[int]]) -> frozenset[int]:
    """The seeds that give most comparisons of methods, times their degrees of freedom; then those of most methods."""
    sets = [seeds for seeds in sets if seeds]
    covered = {seeds: sum(seeds <= other for other in sets) for seeds in sets}
    return max(covered, key=lambda seeds: ((covered[seeds] - 1) * (len(seeds) - 1), covered[seeds], len(seeds)))


def lacking(own: frozenset[int], common: frozenset[int]) -> str:
    return f"seed {', '.join(map(str, sorted(own)))} only" if own & common else "cells are missing"
