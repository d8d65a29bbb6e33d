"""Hash of the code that a result depends on: modules and what they import, without importing any of them."""

import ast
import sys
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from benchmark.system.disk_cache import load_or_compute
from benchmark.system.hashing import hash_json
from tasks.core.types import UsageError

# An index imports every entry lazily. The entry that a cell uses is hashed by itself, so the index is not followed.
INDEX_MODULES = {"methods", "tasks", "tasks.synthetic.generators"}
PACKAGES = {"benchmark", "methods", "tasks"}


@cache
def hash_code(*module_names: str, excluded: frozenset[str] = frozenset()) -> str:
    """Return the hash of these modules and of all modules that they import (see `find_code`).

    Comments, docstrings and layout are left out of the hash, because they cannot change a number.
    """
    return hash_json(find_code(*module_names, excluded=excluded))


@cache
def find_code(*module_names: str, excluded: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return module name -> hash of its code, for these modules and for all that they import, directly or not.

    Imports are followed within the packages of `module_names`; those of a module outside of this project are followed
    into `methods` and `tasks`. Modules in `excluded` and indexes are skipped together with what only they import.
    """
    packages = {name.partition(".")[0] for name in module_names}
    if not packages & PACKAGES:
        packages |= {"methods", "tasks"}
    hashes: dict[str, str] = {}
    pending = list(module_names)
    while pending:
        name = pending.pop()
        is_followed = name.partition(".")[0] in packages and name not in INDEX_MODULES | excluded
        if name in hashes or not is_followed or find_module_file(name) is None:
            continue
        hashes[name], imported = parse_module(name)
        pending += imported
    return hashes


@cache
def parse_module(module: str) -> tuple[str, list[str]]:
    """Hash of a module's code, and what it imports; remembered by its text, since reading it as code takes its time."""
    file = find_module_file(module)
    try:
        text = file.read_text(encoding="utf-8")
        code_hash, imported = load_or_compute(
            ["parsed", module, text, sys.version_info[:2]], lambda: _parse_source(text, module)
        )
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{file}: {getattr(error, 'msg', error)} (line {getattr(error, 'lineno', 1)})") from error
    return code_hash, imported


def _parse_source(text: str, module: str) -> tuple[str, list[str]]:
    tree = strip_docstrings(ast.parse(text))
    return sha256(ast.dump(tree).encode()).hexdigest(), list_imported_modules(tree, module)


@cache
def find_module_file(module: str) -> Path | None:
    """The file of a module, found without importing anything."""
    top, *inner = module.split(".")
    try:
        spec = find_spec(top)
    except ValueError:
        return None
    if spec is None or not spec.origin:
        return None
    if not inner:
        return Path(spec.origin)
    base = Path(spec.origin).parent.joinpath(*inner)
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def list_imported_modules(module_tree: ast.Module, module: str) -> list[str]:
    """Names that may be modules, of every import in a file that can run, also inside functions."""
    never_run = {
        id(inner)
        for node in ast.walk(module_tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    names = []
    for node in ast.walk(module_tree):
        if id(node) in never_run:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            outer = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*outer, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


def strip_docstrings(module_tree: ast.Module) -> ast.Module:
    """The tree without docstrings."""
    for node in ast.walk(module_tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and len(body) > 0 and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[:] = body[1:] or [ast.Pass()]
    return module_tree
