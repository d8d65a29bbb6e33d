"""Identity of a cell: a content hash over everything that can change its score.

Hashed are options, budget and seeds; the code of the method, of its tasks and of training and scoring; the raw data
(their content, not the drawn split: the split is a function of data, code, shots and seed, and its own digest is in the
result); the backbone; the versions of libraries; and the identities of the cells that this one depends on. The device
is not part of it; it is recorded in the result.
"""

from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from sys import version_info
from typing import Any

from benchmark.config.budget import Budget
from benchmark.config.profile import Profile
from benchmark.grid import code_hash, data_hash, specs
from benchmark.grid.cells import TARGET_STAGE, Cell, PlannedCell
from benchmark.system import hashing

# A cell runs from here. All modules that these import, across packages, are part of its identity ...
TRAINING_MODULES = ("benchmark.execution.cell_runner", "methods.base", "tasks.base")
# ... but those that are imported while a cell runs and cannot change its score, each with the reason.
NEUTRAL_MODULES = {
    "benchmark": "only the package's docstring",
    "benchmark.config": "empty",
    "benchmark.config.loading": "reads profiles; the settings that change a score are identity inputs",
    "benchmark.config.profile": "holds settings; those that change a score are identity inputs",
    "benchmark.config.validation": "refuses wrong settings and changes none",
    "benchmark.evaluation": "empty",
    "benchmark.execution": "empty",
    "benchmark.grid": "empty",
    "benchmark.grid.cells": "names a cell; its fields are identity inputs",
    "benchmark.grid.code_hash": "computes identities",
    "benchmark.grid.data_hash": "computes identities",
    "benchmark.grid.identity": "computes identities",
    "benchmark.grid.planner": "chooses cells, options and dependencies, which are identity inputs",
    "benchmark.grid.specs": "describes methods and tasks, whose code is hashed",
    "benchmark.results": "empty",
    "benchmark.results.files": "writes and reads result files",
    "benchmark.results.index": "caches result files",
    "benchmark.results.locks": "keeps two processes from running one cell",
    "benchmark.results.schema": "names states and versions of result files",
    "benchmark.results.store": "saves results and adapters as they are",
    "benchmark.system": "empty",
    "benchmark.system.disk_cache": "caches values under a key with the hash of the code that computes them",
    "benchmark.system.environment": "records versions and the device",
    "benchmark.system.hashing": "computes hashes",
    "benchmark.system.redaction": "removes secrets and folders from texts",
    "benchmark.system.resources": "measures time and memory",
    "benchmark.training": "empty",
    "methods.core": "empty",
    "methods.core.lightning_logs": "filters log messages",
    "tasks.core": "empty",
    "tasks.core.coercion": "checks the types of settings; of a YAML task it is hashed with the task",
    "tasks.core.yaml_loading": "reads YAML; of a YAML task it is hashed with the task",
    "tasks.suites": "names the tasks of a suite; a cell's tasks are identity inputs",
}


CODE_LABELS = {"method": "method code", "task": "task code", "scoring": "training or scoring code"}


HASHED_LIBRARIES = ("torch", "transformers", "tokenizers", "lightning", "torchmetrics", "numpy", "peft", "datasets")


def build_planned_cell(
    profile: Profile,
    cell: Cell,
    training_tasks: tuple[str, ...],
    option_values: dict[str, Any],
    dependency_cells: Iterable[PlannedCell],
    *,
    is_source: bool = False,
) -> PlannedCell:
    """A cell with its identity."""
    dependency_cells = tuple(parent.identity for parent in dependency_cells)
    parts = {
        "options": option_values,
        "budget": dict(_get_budget_fields(get_cell_budget(profile, cell, is_source)))
        if specs.get_method_spec(cell.method).uses_gradient_descent
        else {},
        "settings": _collect_settings(profile) | cell._asdict() | {"members": list(training_tasks)},
        "seeds": profile.get_stream_seeds(cell.seed),
        "method": specs.get_method_spec(cell.method).code_hash,
        "task": _hash_tasks(training_tasks),
        "records": _hash_records(training_tasks, profile.source, profile.data_dir),
        "backbone": data_hash.hash_backbone(profile.backbone.name, profile.backbone.revision),
        "scoring": hash_training_code(),
        "libraries": get_library_versions(),
        "parents": list(dependency_cells),
    }
    return PlannedCell(cell, training_tasks, option_values, parts, hashing.hash_json(parts), dependency_cells)


def hash_training_code() -> str:
    """Return the hash of the code that trains and scores a cell, whatever its method and tasks."""
    return code_hash.hash_code(*TRAINING_MODULES, excluded=frozenset(NEUTRAL_MODULES))


def get_cell_budget(profile: Profile, cell: Cell, is_source: bool = False) -> Budget:
    """Source stages may have their own."""
    return profile.source_budget or profile.budget if is_source or cell.stage != TARGET_STAGE else profile.budget


@cache
def _get_budget_fields(cell_budget: Budget) -> dict[str, int]:
    return asdict(cell_budget)


def _collect_settings(profile: Profile) -> dict[str, Any]:
    names = ("limit", "max_length", "normalise")
    weights = {name: getattr(profile.backbone, name) for name in ("dtype", "attention", "checkpointing")}
    return {name: getattr(profile, name) for name in names} | weights


@cache
def _hash_tasks(training_tasks: tuple[str, ...]) -> str:
    return hashing.hash_json([specs.get_task_spec(name).code_hash for name in training_tasks])


@cache
def _hash_records(training_tasks: tuple[str, ...], data_source: str, data_dir: str | None) -> str:
    return hashing.hash_json([data_hash.hash_records(name, data_source, data_dir) for name in training_tasks])


@cache
def get_library_versions() -> dict[str, str]:
    """Versions of what computes the numbers; a build tag such as +cpu does not count."""
    found = {name: version(name).partition("+")[0] for name in HASHED_LIBRARIES}
    return found | {"python": f"{version_info.major}.{version_info.minor}"}


def describe_changes(old_inputs: dict[str, Any], new_inputs: dict[str, Any]) -> list[str]:
    """List the identity inputs that differ, such as `budget.epochs 20 -> 30` or `method code`."""
    changes = []
    for part in sorted(old_inputs.keys() | new_inputs.keys()):
        old = old_inputs.get(part)
        new = new_inputs.get(part)
        if isinstance(old, dict) and isinstance(new, dict):
            keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
            changes += [f"{part}.{key} {old.get(key)} -> {new.get(key)}" for key in keys]
        elif old != new:
            changes.append(CODE_LABELS.get(part, part))
    return changes
