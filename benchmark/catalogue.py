"""What is known of methods and tasks without importing them: facts and hashes of their code, remembered on disk.

Importing Lightning takes seconds, and a plan needs only a few facts of each class. They are asked of the class once
and kept in the cache folder under the hash of its code, so an edit asks again and nothing else does.
"""

import ast
import json
import sys
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import file_digest, sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import methods
import tasks
from tasks import fields
from tasks.example import UsageError
from tasks.own import Own, at_home
from tasks.source import File, Local, cache_folder, unread
from tasks.typed import near

if TYPE_CHECKING:
    from methods.base import Method

INDEXES = {"methods", "tasks", "tasks.samples"}  # an index names all; what it finds is followed, not the index


def digest(value: object) -> str:
    """sha256 of anything JSON can hold."""
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


@cache
def source_hash(file: str) -> str:
    """sha256 of a source file: an edit there makes what its functions computed earlier worthless."""
    return sha256(Path(file).read_bytes()).hexdigest()


def remembered(key: object, make: Callable[[], Any]) -> Any:
    """Return the value cached on disk for `key`, else compute and store it.

    The key includes the source file of `make`, so a changed function never returns what an older version computed.
    """
    path = cache_folder() / "facts" / f"{digest([source_hash(make.__code__.co_filename), key])[:32]}.json"
    try:
        made, seal = json.loads(path.read_text(encoding="utf-8"))
        if seal == digest(made):
            return made
    except (OSError, ValueError, TypeError):  # not there, or torn by a crash: make it (again)
        pass
    made = json.loads(json.dumps(make(), default=str))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{uuid4().hex}")  # containers that share a home have the same process ids
        scratch.write_text(json.dumps([made, digest(made)], ensure_ascii=False), encoding="utf-8")
        scratch.replace(path)
    except OSError:
        return made  # a read-only home costs time, not results
    return made


# ---------------------------------------------------------------- code


@cache
def code_of(*names: str) -> str:
    """Hash of modules and of those of the same package (and of methods, for a method) that they import.

    Comments, docstrings and layout do not count: they change no number.
    """
    waiting, seen = list(names), {}
    tops = {name.partition(".")[0] for name in names}
    if not tops & {"tasks", "methods", "benchmark"}:
        tops |= {"methods", "tasks"}  # code from elsewhere builds on either
    while waiting:
        name = waiting.pop()
        if name in seen or name in INDEXES or name.partition(".")[0] not in tops or file_of(name) is None:
            continue
        seen[name], inner = parsed(name)
        waiting += inner
    return digest(seen)


@cache
def parsed(module: str) -> tuple[str, list[str]]:
    """Hash of a module's code, and what it imports; remembered by its text, since reading it as code takes its time."""
    file = file_of(module)
    try:
        text = file.read_text(encoding="utf-8")
        found, inner = remembered(["parsed", module, text, sys.version_info[:2]], lambda: _parsed(text, module))
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{file}: {getattr(error, 'msg', error)} (line {getattr(error, 'lineno', 1)})") from error
    return found, inner


def _parsed(text: str, module: str) -> tuple[str, list[str]]:
    tree = bare(ast.parse(text))
    return sha256(ast.dump(tree).encode()).hexdigest(), imported(tree, module)


@cache
def file_of(module: str) -> Path | None:
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


def imported(tree: ast.Module, module: str) -> list[str]:
    """Names that may be modules, of every import anywhere in a file."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            outer = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*outer, *([node.module] if node.module else [])])
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return found


def bare(tree: ast.Module) -> ast.Module:
    """The tree without docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and len(body) > 0 and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[:] = body[1:] or [ast.Pass()]
    return tree


@cache
def module_of(index: str, name: str) -> str:
    """The module behind a name of an index (`methods` or `tasks`), read from the index's rows."""
    if index == "tasks" and tasks.is_file(name):
        return "tasks.declared"
    if ":" in name:
        return name.partition(":")[0]
    tree = ast.parse(file_of(index).read_text(encoding="utf-8"))
    for case in (case for node in ast.walk(tree) if isinstance(node, ast.Match) for case in node.cases):
        if name in [node.value for node in ast.walk(case.pattern) if isinstance(node, ast.Constant)]:
            return next(node.module for node in ast.walk(case) if isinstance(node, ast.ImportFrom))
    known = {"methods": methods.NAMES, "tasks": tasks.NAMES}[index]
    raise UsageError(f"no {index[:-1]} {name!r}; {near(name, known)}")


# ---------------------------------------------------------------- methods


@cache
def method(name: str) -> dict[str, Any]:
    """name, what, paper, trains, fixed, packable, mergeable, forms, stages, parent, late, options, code.

    Of the method behind a row, so that `lora:rank-2` has the facts of lora.
    """
    name = methods.method_of(name)
    module = module_of("methods", name)
    if file_of(module) is None:
        methods.load(name)  # says in one line why it cannot be imported
    code = code_of(module)

    def ask() -> dict[str, Any]:
        found = methods.load(name)
        flags = {key: getattr(found, key) for key in ("what", "paper", "trains", "fixed", "packable", "mergeable")}
        parent = found.parent and found.parent._asdict() | {"options": dict(found.parent.options)}
        stages = [stage._asdict() for stage in found.stages]
        flags["late"] = list(found.late)
        flags["guesses"] = found.guess is not methods.load("zero_shot").guess
        return flags | {"forms": list(found.forms), "stages": stages, "parent": parent, "options": options(found, {})}

    return remembered(["method", name, code], ask) | {"name": name, "code": code}


def options(found: "type[Method]", values: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a method as it would run with these."""
    config = found.configure(values)
    return {key: getattr(config, key) for key in config.__dataclass_fields__}


def configured(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a method, checked by the method itself."""
    facts = method(name)
    if not values:
        return facts["options"]
    return remembered(["options", facts["name"], facts["code"], values], lambda: options(methods.load(name), values))


# ---------------------------------------------------------------- tasks and their records


@cache
def task(name: str) -> dict[str, Any]:
    """name, called (by itself), role, family, form, metric, licence, words, template, files, home, hub, code."""
    module = module_of("tasks", name)
    if file_of(module) is None:
        tasks.load(name)
    place, code = file_of(module), code_of(module)
    if tasks.is_file(name):
        place = Path(name).resolve()
        code = digest([code, fields.read(Path(name), "task", "template: ...")])

    def ask() -> dict[str, Any]:
        found = tasks.load(name)
        names = ("role", "family", "form", "metric", "licence", "words", "template")
        texts = {key: getattr(found, key) for key in names}
        files = [[file.part, list(file.paths), file.names] for file in found.files]
        hub = found.hub and repr(found.hub)
        home = found.home and str(found.home)
        return texts | {"called": found.name, "files": files, "home": home, "hub": hub}

    return remembered(["task", name, str(place), code], ask) | {"name": name, "code": code}


@cache
def records(name: str, source: str, data_dir: str | None) -> str:
    """Hash of the raw records a task would read; says at once when there are none."""
    facts = task(name)
    files = tuple(File(part, tuple(paths), unread, names) for part, paths, names in facts["files"])
    home = at_home(facts["home"], facts["hub"], source)
    if source == "hub" and not home:
        return digest([source, facts["hub"]])
    if source == "sample" and not home:
        return digest([source, samples()])
    local = Own(facts["called"], files, facts["home"]) if home else Local(facts["called"], files, Path(data_dir))
    local.parts()  # raises when nothing is there
    wanted = sorted({path for file in files for path in (*file.paths, file.names) if path})
    return digest([[path, content(local.folder / path)] for path in wanted if (local.folder / path).is_file()])


@cache
def samples() -> str:
    """Hash of the generators of the embedded records."""
    folder = file_of("tasks.samples").parent
    return digest([[path.stem, parsed(f"tasks.samples.{path.stem}")[0]] for path in sorted(folder.glob("*.py"))])


def content(path: Path) -> str:
    """sha256 of a file, computed once for as long as its size and time stay."""
    path = path.resolve()
    fact = path.stat()

    def ask() -> str:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()

    return remembered(["file", str(path), fact.st_size, fact.st_mtime_ns], ask)


@cache
def backbone(name: str, revision: str | None) -> str:
    """What identifies a backbone's weights: the content of a folder, or a hub id at its revision."""
    folder = methods.backbone_folder(name)
    if folder.is_dir():
        kept = sorted(path for pattern in ("*.json", "*.safetensors") for path in folder.glob(pattern))
        return digest([[path.name, content(path)] for path in kept])
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        raise UsageError(f"no backbone {name!r}: no such folder; give 'tiny', a folder, or a hub id (org/name)")
    return f"{name}@{revision or 'main'}"
