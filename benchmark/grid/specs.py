"""What is known of methods and tasks without importing them: facts and hashes of their code, remembered on disk.

Importing Lightning takes seconds, and a plan needs only a few facts of each class. They are asked of the class once
and kept in the cache folder under the hash of its code, so an edit asks again and nothing else does.
"""

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import methods
import tasks
from benchmark.grid.code_hash import find_module_file, hash_code
from benchmark.system.disk_cache import load_or_compute
from benchmark.system.hashing import hash_json
from tasks.core import yaml_loading
from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError

if TYPE_CHECKING:
    from methods.base import Method


# ---------------------------------------------------------------- code


@cache
def find_defining_module(index: str, name: str) -> str:
    """The module behind a name of an index (`methods` or `tasks`), read from the index's rows."""
    if index == "tasks" and tasks.is_yaml_task(name):
        return "tasks.core.yaml_task"
    if ":" in name:
        return name.partition(":")[0]
    tree = ast.parse(find_module_file(index).read_text(encoding="utf-8"))
    for case in (case for node in ast.walk(tree) if isinstance(node, ast.Match) for case in node.cases):
        if name in [node.value for node in ast.walk(case.pattern) if isinstance(node, ast.Constant)]:
            return next(node.module for node in ast.walk(case) if isinstance(node, ast.ImportFrom))
    known = {"methods": methods.NAMES, "tasks": tasks.TASK_NAMES}[index]
    raise UsageError(f"no {index[:-1]} {name!r}; {suggest_name(name, known)}")


# ---------------------------------------------------------------- methods


@cache
def get_method_spec(method_name: str) -> dict[str, Any]:
    """name, what, paper, trains, fixed, packable, mergeable, forms, stages, parent, late, options, code.

    Of the method behind a row, so that `lora:rank-2` has the facts of lora.
    """
    method_name = methods.parse_method_name(method_name)
    module = find_defining_module("methods", method_name)
    if find_module_file(module) is None:
        methods.load_method(method_name)  # says in one line why it cannot be imported
    code = hash_code(module)

    def ask() -> dict[str, Any]:
        from methods.base import Method

        found = methods.load_method(method_name)
        flags = {
            "what": found.trained_part,
            "paper": found.paper,
            "trains": found.uses_gradient_descent,
            "fixed": found.is_seed_independent,
            "packable": found.is_packable,
            "mergeable": found.is_mergeable,
        }
        parent = found.dependency and found.dependency._asdict() | {"options": dict(found.dependency.options)}
        stages = [stage._asdict() for stage in found.stages]
        flags["late"] = list(found.target_only_options)
        flags["guesses"] = found.predict_without_scoring is not Method.predict_without_scoring
        return flags | {
            "forms": list(found.supported_forms),
            "stages": stages,
            "parent": parent,
            "options": list_option_values(found, {}),
        }

    return load_or_compute(["method", method_name, code], ask) | {"name": method_name, "code": code}


def list_option_values(method_class: "type[Method]", overrides: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a method as it would run with these."""
    config = method_class.parse_config(overrides)
    return {key: getattr(config, key) for key in config.__dataclass_fields__}


def resolve_option_values(method_name: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a method, checked by the method itself."""
    facts = get_method_spec(method_name)
    if not overrides:
        return facts["options"]
    return load_or_compute(
        ["options", facts["name"], facts["code"], overrides],
        lambda: list_option_values(methods.load_method(method_name), overrides),
    )


# ---------------------------------------------------------------- tasks and their records


@cache
def get_task_spec(task_name: str) -> dict[str, Any]:
    """name, called (by itself), role, family, form, metric, licence, words, template, files, home, hub, code."""
    module = find_defining_module("tasks", task_name)
    if find_module_file(module) is None:
        tasks.load_task(task_name)
    place, code = find_module_file(module), hash_code(module)
    if tasks.is_yaml_task(task_name):
        place = Path(task_name).resolve()
        code = hash_json([code, yaml_loading.load_yaml_fields(Path(task_name), "task", "template: ...")])

    def ask() -> dict[str, Any]:
        found = tasks.load_task(task_name)
        names = ("role", "family", "form", "metric", "licence", "words", "template")
        texts = {key: getattr(found, key) for key in names}
        files = [[file.part, list(file.paths), file.label_names_file] for file in found.files]
        hub = found.hub and repr(found.hub)
        home = found.home and str(found.home)
        return texts | {"called": found.name, "files": files, "home": home, "hub": hub}

    return load_or_compute(["task", task_name, str(place), code], ask) | {"name": task_name, "code": code}
