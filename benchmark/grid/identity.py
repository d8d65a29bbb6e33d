"""TODO."""

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

SCORING_MODULES = ("benchmark.evaluation.evaluate", "benchmark.training.stage")


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
        if specs.get_method_spec(cell.method)["trains"]
        else {},
        "settings": _collect_settings(profile) | cell._asdict() | {"members": list(training_tasks)},
        "seeds": profile.get_stream_seeds(cell.seed),
        "method": specs.get_method_spec(cell.method)["code"],
        "task": _hash_tasks(training_tasks),
        "records": _hash_records(training_tasks, profile.source, profile.data_dir),
        "backbone": data_hash.hash_backbone(profile.backbone.name, profile.backbone.revision),
        "scoring": code_hash.hash_code(*SCORING_MODULES),
        "libraries": get_library_versions(),
        "parents": list(dependency_cells),
    }
    return PlannedCell(cell, training_tasks, option_values, parts, hashing.hash_json(parts), dependency_cells)


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
    return hashing.hash_json([specs.get_task_spec(name)["code"] for name in training_tasks])


@cache
def _hash_records(training_tasks: tuple[str, ...], data_source: str, data_dir: str | None) -> str:
    return hashing.hash_json([data_hash.hash_records(name, data_source, data_dir) for name in training_tasks])


@cache
def get_library_versions() -> dict[str, str]:
    """Versions of what computes the numbers; a build tag such as +cpu does not count."""
    found = {name: version(name).partition("+")[0] for name in HASHED_LIBRARIES}
    return found | {"python": f"{version_info.major}.{version_info.minor}"}


def describe_changes(old_inputs: dict[str, Any], new_inputs: dict[str, Any]) -> list[str]:
    """Which parts of an identity differ, for people: `budget.epochs 20 -> 30`, `method code`."""
    found = []
    for part in sorted(old_inputs.keys() | new_inputs.keys()):
        a, b = old_inputs.get(part), new_inputs.get(part)
        if isinstance(a, dict) and isinstance(b, dict):
            keys = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
            found += [f"{part}.{key} {a.get(key)} -> {b.get(key)}" for key in keys]
        elif a != b:
            found.append(CODE_LABELS.get(part, part))
    return found
