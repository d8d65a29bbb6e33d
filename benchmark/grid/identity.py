"""Identity of a cell: a content hash over everything that can change its score.

Hashed are options, budget and seeds; the code of the method, of its tasks and of training and scoring; the raw data
(their content, not the drawn split: the split is a function of data, code, shots and seed, and its own digest is in the
result); the backbone; the versions of libraries; and the identities of the cells that this one depends on. The device
is not part of it; it is recorded in the result.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from sys import version_info
from typing import Any

from benchmark.config.budget import Budget
from benchmark.config.profile import Profile
from benchmark.grid import code_hash, data_hash, specs
from benchmark.grid.cells import TARGET_STAGE, Cell, CellIdentity, CellSettings, PlannedCell, StreamSeeds
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
    "benchmark.results.cell_result": "holds a result",
    "benchmark.results.files": "writes and reads result files",
    "benchmark.results.index": "caches result files",
    "benchmark.results.locks": "keeps two processes from running one cell",
    "benchmark.results.schema": "holds the parts of a result",
    "benchmark.results.store": "saves results and adapters as they are",
    "benchmark.system": "empty",
    "benchmark.system.disk_cache": "caches values under a key with the hash of the code that computes them",
    "benchmark.system.environment": "records versions and the device",
    "benchmark.system.hardware": "finds the device, which is recorded in the result",
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


CODE_LABELS = {
    "method_code": "method code",
    "task_code": "task code",
    "training_code": "training or scoring code",
}


HASHED_LIBRARIES = ("torch", "transformers", "tokenizers", "lightning", "torchmetrics", "numpy", "peft", "datasets")


def build_planned_cell(
    profile: Profile,
    cell: Cell,
    training_tasks: tuple[str, ...],
    option_values: Mapping[str, Any],
    dependency_cells: Iterable[PlannedCell],
    *,
    is_source: bool = False,
) -> PlannedCell:
    """Plan a cell: collect everything that can change its score."""
    spec = specs.get_method_spec(cell.method)
    inputs = CellIdentity(
        cell=cell,
        training_tasks=training_tasks,
        options=option_values,
        budget=get_cell_budget(profile, cell, is_source) if spec.uses_gradient_descent else None,
        settings=_collect_settings(profile),
        seeds=StreamSeeds(**profile.get_stream_seeds(cell.seed)),
        method_code=spec.code_hash,
        task_code=_hash_tasks(training_tasks),
        training_code=hash_training_code(),
        records=_hash_records(training_tasks, profile.source, profile.data_dir),
        backbone=data_hash.hash_backbone(profile.backbone.name, profile.backbone.revision),
        libraries=get_library_versions(),
        dependencies=tuple(parent.identity for parent in dependency_cells),
    )
    return PlannedCell(inputs, inputs.compute_hash())


def hash_training_code() -> str:
    """Return the hash of the code that trains and scores a cell, whatever its method and tasks."""
    return code_hash.hash_code(*TRAINING_MODULES, excluded=frozenset(NEUTRAL_MODULES))


def get_cell_budget(profile: Profile, cell: Cell, is_source: bool = False) -> Budget:
    """Source stages may have their own."""
    return profile.source_budget or profile.budget if is_source or cell.stage != TARGET_STAGE else profile.budget


def _collect_settings(profile: Profile) -> CellSettings:
    backbone = profile.backbone
    return CellSettings(
        profile.limit,
        profile.max_length,
        profile.normalise,
        backbone.dtype,
        backbone.attention,
        backbone.checkpointing,
    )


@cache
def _hash_tasks(training_tasks: tuple[str, ...]) -> str:
    return hashing.hash_json([specs.get_task_spec(name).code_hash for name in training_tasks])


@cache
def _hash_records(training_tasks: tuple[str, ...], data_source: str, data_dir: str | None) -> str:
    return hashing.hash_json([data_hash.hash_records(name, data_source, data_dir) for name in training_tasks])


@cache
def get_library_versions() -> dict[str, str]:
    """Versions of what computes the numbers; a build tag such as +cpu does not count."""
    libraries = {name: version(name).partition("+")[0] for name in HASHED_LIBRARIES}
    return libraries | {"python": f"{version_info.major}.{version_info.minor}"}


def describe_changes(old_inputs: CellIdentity, new_inputs: CellIdentity) -> list[str]:
    """List the identity inputs that differ, such as `budget.epochs 20 -> 30` or `method code`."""
    old_values = old_inputs.to_json()
    changes = []
    for name, new in new_inputs.to_json().items():
        old = old_values[name]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
            changes += [f"{name}.{key} {old.get(key)} -> {new.get(key)}" for key in keys]
        elif old != new:
            changes.append(CODE_LABELS.get(name, name))
    return changes
