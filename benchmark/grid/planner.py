"""The grid: cells, what they rest on, and an identity for each that changes when its number could.

The identity hashes what decides a cell's number and can be known without loading anything: options, budget and seeds,
code of method, task and scoring, the raw records (their content, not the drawn split: the split is a function of
records, code, shots and seed, and its own digest is in the result), backbone, libraries, and the parents' identities.
The device is not part of it; it is in the result.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from json import dumps, loads
from typing import Any

from benchmark.config.profile import Profile
from benchmark.grid import specs
from benchmark.grid.cells import Cell, PlannedCell, get_shots_sort_key
from benchmark.grid.identity import build_planned_cell
from benchmark.grid.specs import MethodSpec
from methods.core.stages import MethodDependency
from tasks.core.types import UsageError


def plan_grid(profile: Profile) -> list[PlannedCell]:
    """Every cell of the profile, parents before children, all methods for one (task, shots, seed) before the next."""
    found: dict[str, PlannedCell] = {}
    chains: dict[tuple, list[PlannedCell]] = {}
    tabled = {_add_cell(profile, cell, found, chains).identity for cell in iterate_table_cells(profile)}
    needed = {parent for planned in found.values() for parent in planned.dependencies}
    keep = profile.keep_adapters
    return [
        replace(one, should_save_adapter=keep or name in needed, is_in_table=name in tabled)
        for name, one in found.items()
    ]


def iterate_table_cells(profile: Profile) -> Iterator[Cell]:
    """The table's cells: what no seed changes once per task, then seed by seed."""
    facts = {name: specs.get_method_spec(name) for name in profile.methods}
    for task in profile.tasks:
        for method, fact in facts.items():
            if fact.is_seed_independent and supports_task(fact, task):
                yield Cell(method, task, 0, 0)
    for seed in profile.seeds:
        for shots in sorted(profile.shots, key=get_shots_sort_key):
            for task in profile.tasks:
                for method, fact in facts.items():
                    if not fact.is_seed_independent and supports_task(fact, task):
                        yield Cell(method, task, shots, seed)


def supports_task(method_spec: MethodSpec, task_name: str) -> bool:
    """Whether a method has a score on tasks of this form; where not, there is no cell."""
    return specs.get_task_spec(task_name).form in method_spec.supported_forms


def get_task_role(profile: Profile, task_name: str) -> str:
    """Source or target: as the suite has it, or a task of elsewhere itself."""
    return profile.suite.get_role(task_name) or specs.get_task_spec(task_name).role


def _add_cell(
    profile: Profile,
    cell: Cell,
    planned_cells: dict[str, PlannedCell],
    dependency_chains: dict[tuple, list[PlannedCell]],
) -> PlannedCell:
    """Plan a cell of the table after the cells it rests on."""
    values = resolve_method_options(profile, cell.method)
    rest, sources = get_source_tasks(profile, cell.task)
    if (cell.method, rest, cell.seed) not in dependency_chains:  # the same for all shots, and for most tasks
        dependency_chains[cell.method, rest, cell.seed] = _plan_dependencies(
            profile, cell, rest, sources, values, planned_cells
        )
    chain = dependency_chains[cell.method, rest, cell.seed]
    return _add_once(planned_cells, build_planned_cell(profile, cell, (cell.task,), values, chain))


def _plan_dependencies(
    profile: Profile,
    cell: Cell,
    source_group: str,
    sources: tuple[str, ...],
    option_values: dict,
    planned_cells: dict[str, PlannedCell],
) -> list[PlannedCell]:
    """What a cell rests on directly, planned with all that this rests on."""
    facts = specs.get_method_spec(cell.method)
    chain: list[PlannedCell] = []
    before = [stage for stage in facts.stages if stage.trained_on == "sources"]
    if not facts.dependency and not before:
        return chain
    if not sources:
        raise UsageError(f"method {cell.method} learns from source tasks, and none is left for {cell.task}")
    chain = [
        _add_once(planned_cells, parent)
        for parent in _plan_parent_cells(profile, facts.dependency, sources, cell.seed, option_values)
    ]
    early = option_values | {name: facts.options[name] for name in facts.target_only_options}
    for stage in before:  # under the method's own name: rows that differ only later share them
        source = Cell(facts.name, source_group, profile.source_shots, cell.seed, stage.name)
        chain = [_add_once(planned_cells, build_planned_cell(profile, source, sources, early, chain))]
    return chain


def get_source_tasks(profile: Profile, target_task: str) -> tuple[str, tuple[str, ...]]:
    """(what the group is called, the source tasks a target may learn from): never itself."""
    if target_task not in profile.sources:
        return "sources", profile.sources
    if profile.leave_out == "half":
        half = profile.sources.index(target_task) % 2
        return f"sources-half-{1 - half}", profile.sources[1 - half :: 2]
    return f"sources-{target_task}", tuple(task for task in profile.sources if task != target_task)


def _plan_parent_cells(
    profile: Profile,
    dependency: MethodDependency | None,
    sources: Iterable[str],
    seed: int,
    dependent_options: dict[str, Any],
) -> Iterator[PlannedCell]:
    """The parent method alone on each source, with the options its heir asks for."""
    if dependency is None:
        return
    shared = {name: dependent_options[name] for name in dependency.shared_options}
    values = resolve_method_options(profile, dependency.method_name, {**dependency.options, **shared})
    for task in sources:
        cell = Cell(dependency.method_name, task, profile.source_shots, seed)
        yield build_planned_cell(profile, cell, (task,), values, (), is_source=True)


def _add_once(planned_cells: dict[str, PlannedCell], new_cell: PlannedCell) -> PlannedCell:
    return planned_cells.setdefault(new_cell.identity, new_cell)


def resolve_method_options(profile: Profile, method_name: str, dependent_options: dict | None = None) -> dict[str, Any]:
    """A row's options under this profile: for all methods that have them, for its method, for it, asked by an heir."""
    facts = specs.get_method_spec(method_name)
    found = {key: value for key, value in profile.config.get("method", {}).items() if key in facts.options}
    for name in dict.fromkeys((facts.name, method_name)):
        found |= profile.config.get(name, {})
    return _resolve_cached(method_name, dumps(found | (dependent_options or {})))


@cache
def _resolve_cached(method_name: str, serialized_options: str) -> dict[str, Any]:
    return specs.resolve_option_values(method_name, loads(serialized_options))


def check_options_exist(profile: Profile) -> None:
    """Options that no method of the profile would see are typing errors."""
    every = [specs.get_method_spec(name) for name in profile.methods]
    for key in profile.config.get("method", {}):
        if not any(key in facts.options for facts in every):
            raise UsageError(f"method.config.{key}: none of {', '.join(profile.methods)} has an option {key!r}")
    for name in profile.config:
        if name != "method":
            specs.get_method_spec(name)
