"""Specs of methods and tasks, cached on disk, so that a plan does not import torch.

Importing Lightning takes seconds, and a plan needs only a few fields of each class. They are read from the class once
and cached under the hash of its code.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import methods
import tasks
from benchmark.grid.code_hash import find_module_file, hash_code
from benchmark.system.disk_cache import load_or_compute
from benchmark.system.hashing import hash_json
from methods.core.stages import MethodDependency, Stage
from tasks.core import yaml_loading
from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError

if TYPE_CHECKING:
    from methods.base import Method


# ---------------------------------------------------------------- code


@cache
def find_defining_module(index: str, name: str) -> str:
    """Return the module that defines a method or task, read from the source of the index (`methods` or `tasks`).

    Raises `UsageError` if the index has no such name.
    """
    if index == "tasks" and tasks.is_yaml_task(name):
        return "tasks.core.yaml_task"
    if ":" in name:
        return name.partition(":")[0]
    tree = ast.parse(find_module_file(index).read_text(encoding="utf-8"))
    for case in (case for node in ast.walk(tree) if isinstance(node, ast.Match) for case in node.cases):
        if name in [node.value for node in ast.walk(case.pattern) if isinstance(node, ast.Constant)]:
            return next(node.module for node in ast.walk(case) if isinstance(node, ast.ImportFrom))
    valid_names = {"methods": methods.NAMES, "tasks": tasks.TASK_NAMES}[index]
    raise UsageError(f"no {index[:-1]} {name!r}; {suggest_name(name, valid_names)}")


# ---------------------------------------------------------------- methods


@dataclass(frozen=True)
class MethodSpec:
    """What a plan and a report need to know of a method; names as in `methods.base.Method`.

    `options` holds the defaults. `code_hash` is the hash of the method's module and of all that it imports.
    """

    name: str
    trained_part: str
    paper: str
    uses_gradient_descent: bool
    is_seed_independent: bool
    is_packable: bool
    is_mergeable: bool
    supported_forms: tuple[str, ...]
    stages: tuple[Stage, ...]
    dependency: MethodDependency | None
    target_only_options: tuple[str, ...]
    predicts_without_scoring: bool
    options: Mapping[str, Any]
    code_hash: str

    @property
    def learns_from_sources(self) -> bool:
        """Whether something is trained on source tasks before the target: a stage, or the method it depends on."""
        return self.dependency is not None or any(stage.trained_on == "sources" for stage in self.stages)


@cache
def get_method_spec(method_name: str) -> MethodSpec:
    """Return the spec of a method, or of the method behind a variant such as `lora:rank-2`.

    The class is imported once; afterwards its spec comes from the disk cache until its code changes.
    """
    method_name = methods.parse_method_name(method_name)
    module = find_defining_module("methods", method_name)
    if find_module_file(module) is None:
        methods.load_method(method_name)  # raises the error that explains why it cannot be imported
    code = hash_code(module)

    def describe() -> dict[str, Any]:
        from methods.base import Method

        cls = methods.load_method(method_name)
        names = ("trained_part", "paper", "uses_gradient_descent", "is_seed_independent", "is_packable", "is_mergeable")
        dependency = cls.dependency and cls.dependency._asdict() | {"options": dict(cls.dependency.options)}
        return {name: getattr(cls, name) for name in names} | {
            "supported_forms": list(cls.supported_forms),
            "stages": [stage._asdict() for stage in cls.stages],
            "dependency": dependency,
            "target_only_options": list(cls.target_only_options),
            "predicts_without_scoring": cls.predict_without_scoring is not Method.predict_without_scoring,
            "options": list_option_values(cls, {}),
        }

    fields = load_or_compute(["method", method_name, code], describe)
    dependency = fields["dependency"]
    if dependency:
        dependency = MethodDependency(**dependency | {"shared_options": tuple(dependency["shared_options"])})
    typed = {
        "supported_forms": tuple(fields["supported_forms"]),
        "stages": tuple(Stage(**stage) for stage in fields["stages"]),
        "dependency": dependency,
        "target_only_options": tuple(fields["target_only_options"]),
    }
    return MethodSpec(**fields | typed, name=method_name, code_hash=code)


def list_option_values(method_class: "type[Method]", overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a method class under these overrides; raises `UsageError` for invalid ones."""
    config = method_class.parse_config(overrides)
    return {key: getattr(config, key) for key in config.__dataclass_fields__}


def resolve_option_values(method_name: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a method under these overrides, validated by the method and cached."""
    spec = get_method_spec(method_name)
    if not overrides:
        return dict(spec.options)
    return load_or_compute(
        ["options", spec.name, spec.code_hash, overrides],
        lambda: list_option_values(methods.load_method(method_name), overrides),
    )


# ---------------------------------------------------------------- tasks


@dataclass(frozen=True)
class TaskSpec:
    """What a plan and a report need to know of a task; names as in `tasks.base.Task`.

    `name` is the name in the grid (of a custom task its path), `own_name` that in the task's class. `files` are
    (raw part, paths, file of label names). `code_hash` covers the module and, of a YAML task, the file.
    """

    name: str
    own_name: str
    role: str
    family: str
    form: str
    metric: str
    licence: str
    words: Mapping[str, str]
    template: str
    files: tuple[tuple[str, tuple[str, ...], str | None], ...]
    home: str | None
    hub: str | None
    code_hash: str


@cache
def get_task_spec(task_name: str) -> TaskSpec:
    """Return the spec of a task. Like a method's, it comes from the disk cache until the code or the YAML changes."""
    module = find_defining_module("tasks", task_name)
    if find_module_file(module) is None:
        tasks.load_task(task_name)  # raises the error that explains why it cannot be imported
    file = find_module_file(module)
    code = hash_code(module)
    if tasks.is_yaml_task(task_name):
        file = Path(task_name).resolve()
        code = hash_json([code, yaml_loading.load_yaml_fields(Path(task_name), "task", "template: ...")])

    def describe() -> dict[str, Any]:
        cls = tasks.load_task(task_name)
        names = ("role", "family", "form", "metric", "licence", "words", "template")
        return {name: getattr(cls, name) for name in names} | {
            "own_name": cls.name,
            "files": [[file.part, list(file.paths), file.label_names_file] for file in cls.files],
            "home": str(cls.home) if cls.home else None,
            "hub": repr(cls.hub) if cls.hub else None,
        }

    fields = load_or_compute(["task", task_name, str(file), code], describe)
    files = tuple((part, tuple(paths), label_names) for part, paths, label_names in fields["files"])
    return TaskSpec(**fields | {"files": files}, name=task_name, code_hash=code)
