"""TODO."""

import ast
import sys
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from benchmark.system.disk_cache import load_or_compute
from benchmark.system.hashing import hash_json
from tasks.core.types import UsageError

INDEX_MODULES = {
    "methods",
    "tasks",
    "tasks.synthetic.generators",
}  # an index names all; what it finds is followed, not the index


@cache
def hash_code(*module_names: str) -> str:
    """Hash of modules and of those of the same package (and of methods, for a method) that they import.

    Comments, docstrings and layout do not count: they change no number.
    """
    waiting, seen = list(module_names), {}
    tops = {name.partition(".")[0] for name in module_names}
    if not tops & {"tasks", "methods", "benchmark"}:
        tops |= {"methods", "tasks"}  # code from elsewhere builds on either
    while waiting:
        name = waiting.pop()
        if (
            name in seen
            or name in INDEX_MODULES
            or name.partition(".")[0] not in tops
            or find_module_file(name) is None
        ):
            continue
        seen[name], inner = parse_module(name)
        waiting += inner
    return hash_json(seen)


@cache
def parse_module(module: str) -> tuple[str, list[str]]:
    """Hash of a module's code, and what it imports; remembered by its text, since reading it as code takes its time."""
    file = find_module_file(module)
    try:
        text = file.read_text(encoding="utf-8")
        found, inner = load_or_compute(
            ["parsed", module, text, sys.version_info[:2]], lambda: _parse_source(text, module)
        )
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{file}: {getattr(error, 'msg', error)} (line {getattr(error, 'lineno', 1)})") from error
    return found, inner


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
    """Names that may be modules, of every import anywhere in a file."""
    found = []
    for node in ast.walk(module_tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            outer = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*outer, *([node.module] if node.module else [])])
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return found


def strip_docstrings(module_tree: ast.Module) -> ast.Module:
    """The tree without docstrings."""
    for node in ast.walk(module_tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and len(body) > 0 and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[:] = body[1:] or [ast.Pass()]
    return module_tree
