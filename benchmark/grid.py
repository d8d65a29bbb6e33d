"""The grid: cells, what they rest on, and an identity for each that changes when its number could.

The identity hashes what decides a cell's number and can be known without loading anything: options, budget and seeds,
code of method, task and scoring, the raw records (their content, not the drawn split: the split is a function of
records, code, shots and seed, and its own digest is in the result), backbone, libraries, and the parents' identities.
The device is not part of it; it is in the result.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from json import dumps, loads
from sys import version_info
from typing import Any, NamedTuple

from benchmark import catalogue
from benchmark.budget import Budget
from benchmark.profile import FULL, Profile
from tasks.example import UsageError

TARGET = "target"
SCORING = ("benchmark.score", "benchmark.learn")
CODE = {"method": "method code", "task": "task code", "scoring": "training or scoring code"}
LIBRARIES = ("torch", "transformers", "tokenizers", "lightning", "torchmetrics", "numpy", "peft", "datasets")


class Cell(NamedTuple):
    """One number to produce; with another stage than `target`: something that targets rest on."""

    method: str
    task: str
    shots: int | str  # 0 where nothing trains
    seed: int
    stage: str = TARGET

    @property
    def key(self) -> str:
        """What people call it: lora/chnsent/16/0, or mpt.source/sources/full/0."""
        stage = "" if self.stage == TARGET else f".{self.stage}"
        return f"{self.method}{stage}/{self.task}/{self.shots}/{self.seed}"


@dataclass(frozen=True)
class Planned:
    """A cell with all that is needed to run it."""

    cell: Cell
    members: tuple[str, ...]  # the tasks it trains on: its own, or the sources
    options: dict[str, Any]  # of the method
    parts: dict[str, Any]  # what the identity is made of
    identity: str
    parents: tuple[str, ...] = ()  # identities: the stage before, or the parent method on each source
    needed: bool = False  # what it learned is kept: others rest on it, or the profile asks for it
    tabled: bool = True  # it is a cell of the table, and not only what others rest on

    @property
    def most(self) -> int | None:
        """Training examples of each source, where the method asks for so few of them."""
        return None if self.cell.stage == TARGET else self.options.get("pool") or None

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.cell.key.replace('/', '-').replace(':', '.')}-{self.identity[:10]}"


def plan(profile: Profile) -> list[Planned]:
    """Every cell of the profile, parents before children, all methods for one (task, shots, seed) before the next."""
    found: dict[str, Planned] = {}
    chains: dict[tuple, list[Planned]] = {}
    tabled = {_add(profile, cell, found, chains).identity for cell in cells(profile)}
    needed = {parent for planned in found.values() for parent in planned.parents}
    keep = profile.keep_adapters
    return [replace(one, needed=keep or name in needed, tabled=name in tabled) for name, one in found.items()]


def cells(profile: Profile) -> Iterator[Cell]:
    """The table's cells: what no seed changes once per task, then seed by seed."""
    facts = {name: catalogue.method(name) for name in profile.methods}
    for task in profile.tasks:
        for method, fact in facts.items():
            if fact["fixed"] and answers(fact, task):
                yield Cell(method, task, 0, 0)
    for seed in profile.seeds:
        for shots in sorted(profile.shots, key=order):
            for task in profile.tasks:
                for method, fact in facts.items():
                    if not fact["fixed"] and answers(fact, task):
                        yield Cell(method, task, shots, seed)


def answers(method: dict[str, Any], task: str) -> bool:
    """Whether a method has a score on tasks of this form; where not, there is no cell."""
    return catalogue.task(task)["form"] in method["forms"]


def role(profile: Profile, task: str) -> str:
    """Source or target: as the suite has it, or a task of elsewhere itself."""
    return profile.suite.role(task) or catalogue.task(task)["role"]


def order(shots: int | str) -> float:
    return float("inf") if shots == FULL else float(shots)


def _add(profile: Profile, cell: Cell, found: dict[str, Planned], chains: dict[tuple, list[Planned]]) -> Planned:
    """Plan a cell of the table after the cells it rests on."""
    values = options(profile, cell.method)
    rest, sources = sources_of(profile, cell.task)
    if (cell.method, rest, cell.seed) not in chains:  # the same for all shots, and for most tasks
        chains[cell.method, rest, cell.seed] = _chain(profile, cell, rest, sources, values, found)
    chain = chains[cell.method, rest, cell.seed]
    return _put(found, planned(profile, cell, (cell.task,), values, chain))


def _chain(
    profile: Profile, cell: Cell, rest: str, sources: tuple[str, ...], values: dict, found: dict[str, Planned]
) -> list[Planned]:
    """What a cell rests on directly, planned with all that this rests on."""
    facts = catalogue.method(cell.method)
    chain: list[Planned] = []
    before = [stage for stage in facts["stages"] if stage["on"] == "sources"]
    if not facts["parent"] and not before:
        return chain
    if not sources:
        raise UsageError(f"method {cell.method} learns from source tasks, and none is left for {cell.task}")
    chain = [_put(found, parent) for parent in _parents(profile, facts["parent"], sources, cell.seed, values)]
    early = values | {name: facts["options"][name] for name in facts["late"]}
    for stage in before:  # under the method's own name: rows that differ only later share them
        source = Cell(facts["name"], rest, profile.source_shots, cell.seed, stage["name"])
        chain = [_put(found, planned(profile, source, sources, early, chain))]
    return chain


def sources_of(profile: Profile, target: str) -> tuple[str, tuple[str, ...]]:
    """(what the group is called, the source tasks a target may learn from): never itself."""
    if target not in profile.sources:
        return "sources", profile.sources
    if profile.leave_out == "half":
        half = profile.sources.index(target) % 2
        return f"sources-half-{1 - half}", profile.sources[1 - half :: 2]
    return f"sources-{target}", tuple(task for task in profile.sources if task != target)


def _parents(profile: Profile, parent: dict | None, sources: Iterable[str], seed: int, heir: dict) -> Iterator[Planned]:
    """The parent method alone on each source, with the options its heir asks for."""
    if parent is None:
        return
    asked = parent["options"] | {name: heir[name] for name in parent["follows"]}
    values = options(profile, parent["method"], asked)
    for task in sources:
        cell = Cell(parent["method"], task, profile.source_shots, seed)
        yield planned(profile, cell, (task,), values, (), source=True)


def _put(found: dict[str, Planned], new: Planned) -> Planned:
    return found.setdefault(new.identity, new)


def options(profile: Profile, method: str, more: dict | None = None) -> dict[str, Any]:
    """A row's options under this profile: for all methods that have them, for its method, for it, asked by an heir."""
    facts = catalogue.method(method)
    found = {key: value for key, value in profile.config.get("method", {}).items() if key in facts["options"]}
    for name in dict.fromkeys((facts["name"], method)):
        found |= profile.config.get(name, {})
    return _configured(method, dumps(found | (more or {})))


@cache
def _configured(method: str, values: str) -> dict[str, Any]:
    return catalogue.configured(method, loads(values))


def planned(
    profile: Profile,
    cell: Cell,
    members: tuple[str, ...],
    values: dict[str, Any],
    parents: Iterable[Planned],
    *,
    source: bool = False,
) -> Planned:
    """A cell with its identity."""
    parents = tuple(parent.identity for parent in parents)
    parts = {
        "options": values,
        "budget": dict(_fields(budget(profile, cell, source))) if catalogue.method(cell.method)["trains"] else {},
        "settings": _settings(profile) | cell._asdict() | {"members": list(members)},
        "seeds": profile.seeds_of(cell.seed),
        "method": catalogue.method(cell.method)["code"],
        "task": _tasks(members),
        "records": _records(members, profile.source, profile.data_dir),
        "backbone": catalogue.backbone(profile.backbone.name, profile.backbone.revision),
        "scoring": catalogue.code_of(*SCORING),
        "libraries": libraries(),
        "parents": list(parents),
    }
    return Planned(cell, members, values, parts, catalogue.digest(parts), parents)


def budget(profile: Profile, cell: Cell, source: bool = False) -> Budget:
    """Source stages may have their own."""
    return profile.source_budget or profile.budget if source or cell.stage != TARGET else profile.budget


@cache
def _fields(allowed: Budget) -> dict[str, int]:
    return asdict(allowed)


def _settings(profile: Profile) -> dict[str, Any]:
    names = ("limit", "max_length", "normalise")
    weights = {name: getattr(profile.backbone, name) for name in ("dtype", "attention", "checkpointing")}
    return {name: getattr(profile, name) for name in names} | weights


@cache
def _tasks(members: tuple[str, ...]) -> str:
    return catalogue.digest([catalogue.task(name)["code"] for name in members])


@cache
def _records(members: tuple[str, ...], source: str, data_dir: str | None) -> str:
    return catalogue.digest([catalogue.records(name, source, data_dir) for name in members])


@cache
def libraries() -> dict[str, str]:
    """Versions of what computes the numbers; a build tag such as +cpu does not count."""
    found = {name: version(name).partition("+")[0] for name in LIBRARIES}
    return found | {"python": f"{version_info.major}.{version_info.minor}"}


def unknown_options(profile: Profile) -> None:
    """Options that no method of the profile would see are typing errors."""
    every = [catalogue.method(name) for name in profile.methods]
    for key in profile.config.get("method", {}):
        if not any(key in facts["options"] for facts in every):
            raise UsageError(f"method.config.{key}: none of {', '.join(profile.methods)} has an option {key!r}")
    for name in profile.config:
        if name != "method":
            catalogue.method(name)


def changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Which parts of an identity differ, for people: `budget.epochs 20 -> 30`, `method code`."""
    found = []
    for part in sorted(old.keys() | new.keys()):
        a, b = old.get(part), new.get(part)
        if isinstance(a, dict) and isinstance(b, dict):
            keys = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
            found += [f"{part}.{key} {a.get(key)} -> {b.get(key)}" for key in keys]
        elif a != b:
            found.append(CODE.get(part, part))
    return found
