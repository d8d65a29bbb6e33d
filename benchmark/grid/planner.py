"""Planning of a grid: its cells, the cells that these depend on, and the options of each.

Every cell gets an identity, a content hash that changes whenever its score could change (see `identity.py`).
Once the specs of methods and tasks are cached, planning imports neither their classes nor torch.
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
    """Return all cells of the profile, dependencies first, ordered by seed, shots, task and method."""
    planned_cells: dict[str, PlannedCell] = {}  # by identity
    chains: dict[tuple, list[PlannedCell]] = {}  # (method, source group, seed) -> direct dependencies
    table = {_add_cell(profile, cell, planned_cells, chains).identity for cell in iterate_table_cells(profile)}
    dependencies = {identity for planned in planned_cells.values() for identity in planned.dependencies}
    return [
        replace(
            planned,
            should_save_adapter=profile.keep_adapters or identity in dependencies,
            is_in_table=identity in table,
        )
        for identity, planned in planned_cells.items()
    ]


def iterate_table_cells(profile: Profile) -> Iterator[Cell]:
    """Yield the cells of the table: seed-independent methods once per task, then the others seed by seed."""
    method_specs = {name: specs.get_method_spec(name) for name in profile.methods}
    for task in profile.tasks:
        for method, spec in method_specs.items():
            if spec.is_seed_independent and supports_task(spec, task):
                yield Cell(method, task, 0, 0)
    for seed in profile.seeds:
        for shots in sorted(profile.shots, key=get_shots_sort_key):
            for task in profile.tasks:
                for method, spec in method_specs.items():
                    if not spec.is_seed_independent and supports_task(spec, task):
                        yield Cell(method, task, shots, seed)


def supports_task(method_spec: MethodSpec, task_name: str) -> bool:
    """Whether the method supports tasks of this form; if not, the grid has no such cell."""
    return specs.get_task_spec(task_name).form in method_spec.supported_forms


def get_task_role(profile: Profile, task_name: str) -> str:
    """Return "source" or "target", as defined by the suite or, for a custom task, by the task itself."""
    return profile.suite.get_role(task_name) or specs.get_task_spec(task_name).role


def _add_cell(
    profile: Profile,
    cell: Cell,
    planned_cells: dict[str, PlannedCell],
    dependency_chains: dict[tuple, list[PlannedCell]],
) -> PlannedCell:
    """Plan a cell of the table after the cells that it depends on."""
    option_values = resolve_method_options(profile, cell.method)
    source_group, sources = get_source_tasks(profile, cell.task)
    key = (cell.method, source_group, cell.seed)
    if key not in dependency_chains:  # the same for all shots, and for most tasks
        dependency_chains[key] = _plan_dependencies(profile, cell, source_group, sources, option_values, planned_cells)
    new_cell = build_planned_cell(profile, cell, (cell.task,), option_values, dependency_chains[key])
    return _add_once(planned_cells, new_cell)


def _plan_dependencies(
    profile: Profile,
    cell: Cell,
    source_group: str,
    sources: tuple[str, ...],
    option_values: dict,
    planned_cells: dict[str, PlannedCell],
) -> list[PlannedCell]:
    """Plan everything that a cell depends on; returns its direct dependencies."""
    spec = specs.get_method_spec(cell.method)
    source_stages = [stage for stage in spec.stages if stage.trained_on == "sources"]
    if not spec.dependency and not source_stages:
        return []
    if not sources:
        raise UsageError(f"method {cell.method} learns from source tasks, and none is left for {cell.task}")
    chain = [
        _add_once(planned_cells, parent)
        for parent in _plan_parent_cells(profile, spec.dependency, sources, cell.seed, option_values)
    ]
    source_options = option_values | {name: spec.options[name] for name in spec.target_only_options}
    for stage in source_stages:  # named by the method, so that variants that differ only on the target share them
        source_cell = Cell(spec.name, source_group, profile.source_shots, cell.seed, stage.name)
        chain = [_add_once(planned_cells, build_planned_cell(profile, source_cell, sources, source_options, chain))]
    return chain


def get_source_tasks(profile: Profile, target_task: str) -> tuple[str, tuple[str, ...]]:
    """Return the name of the group of source tasks for a target, and the tasks, which never include the target."""
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
    """Plan the method that another depends on, alone on each source, with the options that the dependant requires."""
    if dependency is None:
        return
    shared_options = {name: dependent_options[name] for name in dependency.shared_options}
    option_values = resolve_method_options(profile, dependency.method_name, {**dependency.options, **shared_options})
    for task in sources:
        cell = Cell(dependency.method_name, task, profile.source_shots, seed)
        yield build_planned_cell(profile, cell, (task,), option_values, (), is_source=True)


def _add_once(planned_cells: dict[str, PlannedCell], new_cell: PlannedCell) -> PlannedCell:
    return planned_cells.setdefault(new_cell.identity, new_cell)


def resolve_method_options(profile: Profile, method_name: str, dependent_options: dict | None = None) -> dict[str, Any]:
    """Return all options of a method or variant under this profile.

    Later settings override earlier ones: those of the profile for all methods, for the method, for the variant, and
    `dependent_options`, which a method that depends on this one requires.
    """
    spec = specs.get_method_spec(method_name)
    overrides = {key: value for key, value in profile.config.get("method", {}).items() if key in spec.options}
    for name in dict.fromkeys((spec.name, method_name)):
        overrides |= profile.config.get(name, {})
    return _resolve_cached(method_name, dumps(overrides | (dependent_options or {})))


@cache
def _resolve_cached(method_name: str, serialized_options: str) -> dict[str, Any]:
    return specs.resolve_option_values(method_name, loads(serialized_options))


def check_options_exist(profile: Profile) -> None:
    """Raise `UsageError` for options that no method of the profile has, and for unknown methods in `config`."""
    method_specs = [specs.get_method_spec(name) for name in profile.methods]
    for key in profile.config.get("method", {}):
        if not any(key in spec.options for spec in method_specs):
            raise UsageError(f"method.config.{key}: none of {', '.join(profile.methods)} has an option {key!r}")
    for name in profile.config:
        if name != "method":
            specs.get_method_spec(name)
