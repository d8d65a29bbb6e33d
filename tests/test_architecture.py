"""The order of packages and rooms: imports point one way, and start-up stays light."""

import ast
import json
import re
import sys
import tomllib
from collections import defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("tasks", "methods", "benchmark")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
# Each room may import the rooms before it. `tasks` and `methods` on top: what people come for, and base.py.
ROOMS = [room for room, _ in json.loads((ROOT / "docs" / "rooms.json").read_text(encoding="utf-8"))]
# Imports against the order, each with its reason.
EXCEPTIONS = {
    ("tasks.core.yaml_task", "tasks.base"): "a YAML task is a Task",
    ("benchmark.reporting.build", "benchmark.reporting.html.render"): "the report's last step writes the page",
    ("methods.core.export", "methods.base"): "loads a Method",
    ("methods.core.export", "methods"): "the index finds the class by name",
    ("methods.core.instantiate", "methods.base"): "builds a Method on synthetic examples",
    ("methods.core.instantiate", "methods"): "the index finds the class by name",
    ("methods.core.meta_backbone", "methods.base"): "builds a Method on the meta device",
    ("methods.core.meta_backbone", "methods"): "the index finds the class by name",
}
HEAVY = {"torch", "lightning", "transformers", "pandas", "datasets", "torchmetrics", "wandb", "matplotlib", "numpy"}
LIGHT = ("config", "system", "grid", "results", "scheduling", "cli")  # rooms that a plan needs
# Libraries that are imported inside functions because they take long to import or are optional.
DEFERRED_LIBRARIES = HEAVY | {
    "tokenizers", "huggingface_hub", "pyarrow", "scipy", "safetensors", "PIL", "httpx", "jinja2", "yaml", "packaging",
    "wandb_workspaces", "ray", "vl_convert",
}  # fmt: skip
# Imports of our own modules inside functions that save no import of such a library, each with its reason. (The indexes
# `methods` and `tasks` and the commands of the command line import what was named.)
DEFERRED_MODULES = {
    ("tasks.core.class_checks", "tasks.core.sources"): "a cycle: sources checks its own classes",
    ("tasks.core.sources", "tasks.synthetic.generators"): "needed for generated data only",
    ("benchmark.cli.doctor", "tasks.core.sources"): "needed for the check of the network only",
    ("benchmark.cli.session", "benchmark.reporting.wandb.export"): "needed with --wandb only",
    ("benchmark.reporting.build", "benchmark.reporting.html.render"): "the last step of a report",
}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def walk_imports(
    body: list[ast.stmt], *, inside_functions: bool, for_types: bool = False
) -> list[ast.Import | ast.ImportFrom]:
    """Import statements that run; with `for_types` also those under TYPE_CHECKING."""
    found: list[ast.Import | ast.ImportFrom] = []
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        elif (is_type_checking(node) and not for_types) or (isinstance(node, ast.FunctionDef) and not inside_functions):
            continue
        else:
            inner = [child for child in ast.walk(node) if isinstance(child, ast.Import | ast.ImportFrom)]
            found += inner if inside_functions or not isinstance(node, ast.ClassDef) else []
    return found


def imported_modules(module: str, *, inside_functions: bool, for_types: bool = False) -> set[str]:
    """Modules of this project that a module imports."""
    names: set[str] = set()
    for node in walk_imports(
        ast.parse(MODULES[module].read_text()).body, inside_functions=inside_functions, for_types=for_types
    ):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            names |= {
                full if (full := f"{node.module}.{alias.name}") in MODULES else str(node.module) for alias in node.names
            }
    return (names & MODULES.keys()) - {module}


def room_of(module: str) -> str:
    return max((room for room in ROOMS if module == room or module.startswith(f"{room}.")), key=len)


def third_party(body: list[ast.stmt]) -> set[str]:
    """Top packages that statements import when they run at import time."""
    nodes = walk_imports(body, inside_functions=False)
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {
        name.partition(".")[0]
        for name in names | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    }


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_its_own_room_and_those_before_it(module: str):
    allowed = set(ROOMS[: ROOMS.index(room_of(module)) + 1])
    wrong = {name for name in imported_modules(module, inside_functions=True) if room_of(name) not in allowed}
    assert {name for name in wrong if (module, name) not in EXCEPTIONS} == set()


def test_every_exception_is_in_use():
    used = {
        (module, name)
        for module in MODULES
        for name in imported_modules(module, inside_functions=True)
        if room_of(name) not in ROOMS[: ROOMS.index(room_of(module)) + 1]
    }
    assert EXCEPTIONS.keys() <= used


def test_no_cycle_between_modules():
    """Also among imports for types; imports inside functions do not count."""
    graph = {module: imported_modules(module, inside_functions=False, for_types=True) for module in MODULES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other: {error.args[1]}")


def test_a_cycle_would_be_found():
    graph: dict[str, set[str]] = defaultdict(set, {"a": {"b"}, "b": {"a"}})
    with pytest.raises(CycleError):
        list(TopologicalSorter(graph).static_order())


@cache
def libraries_of(module: str) -> frozenset[str]:
    """Libraries that importing a module imports, directly and through other modules of ours."""
    names = third_party(ast.parse(MODULES[module].read_text()).body)
    for other in imported_modules(module, inside_functions=False):
        names |= libraries_of(other)
    return frozenset(names)


def test_imports_inside_functions_have_a_reason():
    """They save the import of a slow or optional library, or stand in the list of exceptions."""
    without_reason = set()
    for module in MODULES.keys() - {"methods", "tasks", "benchmark.cli.commands", "benchmark.cli.main"}:
        at_top = imported_modules(module, inside_functions=False)
        for name in imported_modules(module, inside_functions=True) - at_top:
            if not libraries_of(name) & DEFERRED_LIBRARIES:
                without_reason.add((module, name))
        statements = [node for node in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(node, ast.stmt)]
        libraries = third_party(statements) - third_party(ast.parse(MODULES[module].read_text()).body) - {""}
        for library in libraries - DEFERRED_LIBRARIES - set(PACKAGES) - {"_typeshed"}:
            without_reason.add((module, library))
    assert without_reason == DEFERRED_MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_the_tests(module: str):
    tree = ast.parse(MODULES[module].read_text())
    assert "tests" not in third_party([node for node in ast.walk(tree) if isinstance(node, ast.stmt)])


@pytest.mark.parametrize("module", MODULES)
def test_production_code_does_not_import_the_conformance_checks(module: str):
    if module in ("benchmark.cli.check_method",) or module.startswith("methods.conformance"):
        return
    names = imported_modules(module, inside_functions=True)
    assert not [name for name in names if name.startswith("methods.conformance")]


def test_wandb_is_imported_in_one_folder():
    names = {"wandb", "wandb_workspaces"}
    everything = {path: [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.stmt)] for path in FILES}
    assert {path.parent.name for path, body in everything.items() if names & third_party(body)} == {"wandb"}


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name.startswith(tuple(f"benchmark.{r}." for r in LIGHT))]
)
def test_what_a_plan_needs_imports_nothing_heavy_at_the_top(module: str):
    assert not third_party(ast.parse(MODULES[module].read_text()).body) & HEAVY


def test_empty_inits():
    """An `__init__` with code would be part of the identity of every cell that imports from its room."""
    with_code = {
        module for module, path in MODULES.items()
        if path.name == "__init__.py" and any(not isinstance(n, ast.Expr) for n in ast.parse(path.read_text()).body)
    }  # fmt: skip
    assert with_code == {"tasks", "methods"}


def list_functions(module: str, *, with_docstring: bool) -> set[str]:
    """Names of the functions of a module, at any depth, with or without a docstring."""
    nodes = [node for node in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(node, ast.FunctionDef)]
    return {node.name for node in nodes if bool(ast.get_docstring(node)) == with_docstring}


# Hooks whose docstring is that of the base class, here or in torch and Lightning.
BASES = (
    "methods.base",
    "methods.core.state",
    "methods.lora",
    "tasks.base",
    "tasks.core.sources",
    "tasks.core.yaml_task",
)
HOOKS = {name for module in BASES for name in list_functions(module, with_docstring=True)} | {
    "forward", "training_step", "optimizer_zero_grad", "on_before_optimizer_step", "on_before_batch_transfer",
    "on_train_batch_start", "on_train_batch_end", "update", "compute", "step", "add_slot",
}  # fmt: skip


def list_public_without_docstring() -> list[str]:
    """Public functions, classes and methods of the packages without a docstring of their own or of their base class."""
    missing = []

    def visit(body: list[ast.stmt], path: str, in_class: bool) -> None:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            is_inherited = in_class and (node.name in HOOKS or node.name == "Config")
            is_declaration = ast.unparse(node.body[-1]) == "..."  # `class XNLIGerman(XNLI, language=GERMAN): ...`
            if not ast.get_docstring(node) and not is_inherited and not is_declaration:
                missing.append(f"{path}.{node.name}")
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{path}.{node.name}", True)

    for module, path in MODULES.items():
        visit(ast.parse(path.read_text()).body, module, False)
    return missing


def test_public_names_have_docstrings():
    assert list_public_without_docstring() == []


# Distributions whose import name differs from their name on the package index.
IMPORT_NAMES = {
    "pillow": "PIL",
    "pyyaml": "yaml",
    "huggingface-hub": "huggingface_hub",
    "vl-convert-python": "vl_convert",
}
OPTIONAL = {"ray", "wandb_workspaces"}  # extras


def test_every_imported_distribution_is_declared_and_every_declared_one_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]}
    declared = {IMPORT_NAMES.get(name, name) for name in declared}
    imported: set[str] = set()
    for path in FILES:
        nodes = walk_imports(ast.parse(path.read_text()).body, inside_functions=True)
        imported |= {alias.name.partition(".")[0] for n in nodes if isinstance(n, ast.Import) for alias in n.names}
        imported |= {(n.module or "").partition(".")[0] for n in nodes if isinstance(n, ast.ImportFrom)}
    imported -= {*sys.stdlib_module_names, *PACKAGES, *OPTIONAL}
    assert imported == declared
