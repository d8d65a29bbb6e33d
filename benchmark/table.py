"""From results to numbers: means and intervals over seeds, averages over tasks, costs. No average has a hole."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import sqrt
from statistics import fmean, stdev
from typing import Any, NamedTuple

from benchmark import catalogue
from benchmark.grid import TARGET, answers, order, role
from benchmark.profile import Profile

AVERAGES = ("choice tasks", "source tasks", "target tasks")
LEVEL = 0.95


class Figure(NamedTuple):
    """A mean over seeds and half the width of its 95 % interval (t), in the metric's own 0..1."""

    mean: float
    half: float | None  # None where one seed says nothing about spread
    seeds: int


class Line(NamedTuple):
    """One method at one number of shots. Cells that are missing are None, and so is every average over them."""

    method: str
    shots: int | str
    control: bool  # nothing trains by steps
    fixed: bool  # the same number for any shots and seed, so the same in every table
    seeds: int  # that are due
    tasks: dict[str, Figure | None]
    averages: dict[str, Figure | None]
    before: dict[str, Figure | None]  # the same averages before the first step on the target, after a source stage
    trained: float | None  # parameters, mean over cells
    seconds: float | None  # per cell, what it rests on not counted
    amortised: float | None  # per cell, with its share of what it rests on, where others rest on that too
    whole: float | None  # per cell, as if it were the only one: all that it rests on counted in full
    bytes: float | None  # peak memory, the largest
    done: int
    due: int

    @property
    def first(self) -> Figure | None:
        """The average that decides the order."""
        return next(iter(self.averages.values()))


class Board(NamedTuple):
    """All lines of a grid."""

    profile: Profile
    lines: list[Line]
    metrics: dict[str, str]  # task -> primary metric
    groups: dict[str, tuple[str, ...]]  # average -> its tasks in this profile

    def at(self, shots: int | str) -> list[Line]:
        """Lines of one table, controls first."""
        return sorted((line for line in self.lines if line.shots == shots), key=lambda line: not line.control)


def at_shots(shots: int | str) -> str:
    """How a table at this number is called."""
    return "full data" if shots == "full" else f"{shots} shots"


def hundred(value: float) -> float:
    """x 100, rounded to what a view keeps: all start from the same digits, so that none shows another last one."""
    return round(100 * value, 4)


def figure(values: Sequence[float]) -> Figure:
    """Mean and t interval over seeds: half = t(n - 1, 0.975) s / sqrt(n)."""
    if len(values) < 2:
        return Figure(values[0], None, len(values))
    from scipy.special import stdtrit  # scipy.stats has the same and takes seconds to import

    t = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2))
    return Figure(fmean(values), t * stdev(values) / sqrt(len(values)), len(values))


def board(
    profile: Profile, results: Iterable[Mapping[str, Any]], more: Mapping[str, tuple[str, ...]] | None = None
) -> Board:
    """The table of a profile from the results that belong to it. `more`: averages beside the usual ones."""
    results = list(results)
    found: dict[tuple, Mapping[str, Any]] = {}
    for result in results:  # oldest first: the newest counts
        cell = result["cell"]
        if result["state"] == "done" and cell["stage"] == TARGET:
            found[cell["method"], cell["task"], cell["shots"], cell["seed"]] = result
    facts = {name: catalogue.task(name) for name in profile.tasks}
    groups = {
        AVERAGES[0]: tuple(name for name, fact in facts.items() if fact["form"] == "choice"),
        AVERAGES[1]: tuple(name for name in facts if role(profile, name) == "source"),
        AVERAGES[2]: tuple(name for name in facts if role(profile, name) == "target"),
    }
    groups = {name: members for name, members in groups.items() if members} | dict(more or {})
    metrics = {name: fact["metric"] for name, fact in facts.items()}
    costs = resting(results)
    lines = [
        line(profile, method, shots, found, metrics, groups, costs)
        for shots in sorted(profile.shots, key=order)
        for method in profile.methods
    ]
    return Board(profile, lines, metrics, groups)


def line(profile: Profile, method: str, shots: int | str, found: Mapping[tuple, Mapping], metrics: Mapping[str, str],
         groups: Mapping[str, Sequence[str]], resting: Mapping[str, tuple[float, float]]) -> Line:  # fmt: skip
    """One method's figures."""
    facts = catalogue.method(method)
    at, seeds = (0, (0,)) if facts["fixed"] else (shots, profile.seeds)
    able = [task for task in profile.tasks if answers(facts, task)]
    own = {(task, seed): found.get((method, task, at, seed)) for task in able for seed in seeds}
    scores: dict[str, dict[int, float]] = defaultdict(dict)
    before: dict[str, dict[int, float]] = defaultdict(dict)
    for (task, seed), result in own.items():
        if result:
            scores[task][seed] = result["metrics"]["test"][metrics[task]]
            if "before" in result["metrics"]:
                before[task][seed] = result["metrics"]["before"][metrics[task]]
    results = [result for result in own.values() if result]
    costs = [result["cost"] for result in results]
    known = [resting[result["identity"]] for result in results if result["identity"] in resting]
    amortised, whole = (fmean(part) for part in zip(*known, strict=True)) if known else (None, None)
    return Line(
        method,
        shots,
        not facts["trains"],
        facts["fixed"],
        len(seeds),
        {task: figure(list(scores[task].values())) if scores[task] else None for task in profile.tasks},
        {name: average(members, seeds, scores) for name, members in groups.items()},
        {name: average(members, seeds, before) for name, members in groups.items()},
        fmean(cost["trained_parameters"] for cost in costs) if costs else None,
        fmean(result["times"]["seconds"] for result in results) if results else None,
        amortised,
        whole,
        max(cost["peak_bytes"] for cost in costs) if costs else None,
        len(results),
        len(own),
    )


def resting(results: Iterable[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Identity -> (amortised, full) seconds: a cell's own and, over and over, those of what it rests on.

    Amortised: divided by how many finished cells rest on it. Cells whose parents are not all at hand are left out.
    """
    done = {result["identity"]: result for result in results if result["state"] == "done"}
    heirs = Counter(parent for result in done.values() for parent in result["parents"])

    @cache
    def above(identity: str) -> frozenset[str]:
        parents = done[identity]["parents"]
        return frozenset(parents).union(*(above(parent) for parent in parents if parent in done))

    @cache
    def shared(identity: str) -> float:
        parents = done[identity]["parents"]
        return done[identity]["times"]["seconds"] + sum(shared(parent) / heirs[parent] for parent in parents)

    return {
        identity: (shared(identity), sum(done[one]["times"]["seconds"] for one in {identity, *above(identity)}))
        for identity in done
        if above(identity) <= done.keys()
    }


def average(members: Sequence[str], seeds: Sequence[int], scores: Mapping[str, Mapping[int, float]]) -> Figure | None:
    """The mean over tasks of each seed, then over seeds; nothing while one cell is missing."""
    if any(seed not in scores.get(task, {}) for task in members for seed in seeds):
        return None
    return figure([fmean(scores[task][seed] for task in members) for seed in seeds])
