"""The summary run's tables, numbers as numbers. Plain rows: W&B is not needed to make them."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import log10
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmark.grid import TARGET
from benchmark.table import Board, Line

if TYPE_CHECKING:
    from benchmark.standing import Standings

# The same ten in every run: W&B draws a panel for each name it meets, so everything else goes into the config.
METRICS = (
    "score", "dev_score", "loss", "trained_parameters", "adapter_bytes", "peak_bytes", "seconds", "train_seconds",
    "test_seconds", "tokens_per_second",
)  # fmt: skip
ROWS = 10_000  # of a table: W&B shows no more of one, and says nothing of the rest
PLACES = 20  # points of a mean learning curve
POINTS = 50  # most losses of one cell's curve: each costs a light run a millisecond
Rows = list[list[Any]]
Rowed = tuple[list[str], Rows]  # columns, rows


def every(table: Board, worth: "Standings", done: Sequence[Mapping[str, Any]]) -> dict[str, Rowed]:
    """All tables of a grid by name; one that is too long for W&B goes on under name/2, name/3."""
    tables = {
        "cells": cells(done),
        "cost": costs(table),
        "differences": differences(table, worth),
        "ties": ties(table, worth),
        "shots": by_shots(table, done),
    }
    for shots in dict.fromkeys(line.shots for line in table.lines):
        tables[f"leaderboard/{shots}"] = leaderboard(table, worth, shots)
        tables[f"matrix/{shots}"] = matrix(table, shots)
        tables[f"curves/{shots}"] = curves(done, shots)
    return {
        name if part == 0 else f"{name}/{part + 1}": (columns, rows[part * ROWS : (part + 1) * ROWS])
        for name, (columns, rows) in tables.items()
        for part in range(max(1, -(-len(rows) // ROWS)))
    }


def points(training: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, values) of one cell, in order; of the losses every n-th, counted from the last."""
    found: dict[int, dict[str, float]] = {}
    apart = max(1, -(-len(training["loss"]) // POINTS))
    for step, loss in training["loss"][::-1][::apart]:
        found.setdefault(step, {})["loss"] = loss
    for step, score, _ in training["dev"]:
        found.setdefault(step, {})["dev_score"] = score
    yield from sorted(found.items())


def numbers(result: Mapping[str, Any]) -> dict[str, float | None]:
    """The ten, as far as this cell has them."""
    cost, dev = result["cost"], list(result["metrics"]["dev"].values())
    found = {
        "score": result["metrics"].get("test", {}).get(result["task"]["metric"]),
        "dev_score": sum(dev) / len(dev) if dev else None,
        "loss": result["training"]["loss"][-1][1] if result["training"]["loss"] else None,
        "seconds": result["times"]["seconds"],
        "train_seconds": cost["seconds"].get("train"),
        "test_seconds": cost["seconds"].get("test"),
        **{name: cost[name] for name in ("trained_parameters", "adapter_bytes", "peak_bytes", "tokens_per_second")},
    }
    return {name: found[name] for name in METRICS if found[name] is not None}


def cells(done: Iterable[Mapping[str, Any]]) -> Rowed:
    """A row per cell."""
    rows = []
    for result in done:
        at, values = result["cell"], numbers(result)
        if at["stage"] == TARGET:
            rows.append(
                [at["method"], at["task"], str(at["shots"]), at["seed"], *(values.get(name) for name in METRICS)]
            )
    return ["method", "task", "shots", "seed", *METRICS], rows


def matrix(table: Board, shots: int | str) -> Rowed:
    """Methods x tasks: means x 100, averages first; empty where something is missing."""
    columns = ["method", *table.groups, *table.metrics]
    rows = [
        [
            line.method,
            *(_mean(line.averages[name]) for name in table.groups),
            *(_mean(line.tasks[t]) for t in table.metrics),
        ]
        for line in table.at(shots)
    ]
    return columns, rows


def leaderboard(table: Board, worth: "Standings", shots: int | str) -> Rowed:
    """A row per method, best first: the first average with its interval, what it is worth, and what it costs.

    `pareto` is whether no method scores higher with as few trained parameters.
    """
    from benchmark.report import ranked

    first, lines = next(iter(table.groups)), ranked(table.at(shots))
    best, rows = front(lines, first), []
    for line in lines:
        found, standing = line.averages[first], worth.rows[line.method, shots, first]
        mean, half = _mean(found), None if found is None or found.half is None else 100 * found.half
        gap = None if standing.difference is None else round(100 * standing.difference.mean, 4)
        span = (None, None) if half is None else (round(mean - half, 4), round(mean + half, 4))
        rows.append([line.method, line.control, mean, *span, found.seeds if found else 0, gap, standing.letters,
                     standing.flag, line.trained, _log(line.trained), line.method in best, line.seconds,
                     line.amortised, line.bytes, line.done, line.due])  # fmt: skip
    columns = "method control mean low high seeds difference ties flag trained_parameters log10_trained_parameters"
    return f"{columns} pareto seconds_per_cell seconds_amortised peak_bytes done due".split(), rows


def front(lines: Sequence[Line], group: str) -> set[str]:
    """Methods that no other beats at their number of trained parameters or fewer; controls do not compete."""
    known = [(line.trained, -line.averages[group].mean, line.method)
             for line in lines if not line.control and line.averages[group]]  # fmt: skip
    return {
        method
        for size, loss, method in known
        if not any(a <= size and b <= loss and (a, b) != (size, loss) for a, b, _ in known)
    }


def by_shots(table: Board, done: Sequence[Mapping[str, Any]]) -> Rowed:
    """A row per method and number of shots: every average, and how many examples it trained on, mean over cells."""
    seen = defaultdict(list)
    for result in done:
        if splits := result["data"].get("splits"):
            seen[result["cell"]["method"], result["cell"]["shots"]].append(splits["train"])
    rows = []
    for line in table.lines:
        if not line.control:
            examples = fmean(seen[line.method, line.shots]) if seen[line.method, line.shots] else None
            averages = [value for name in table.groups for value in _span(line.averages[name])]
            rows.append([line.method, str(line.shots), examples, _log(examples), *averages])
    named = [f"{name.replace(' ', '_')}{end}" for name in table.groups for end in ("", "_low", "_high")]
    return ["method", "shots", "examples", "log10_examples", *named], rows


def curves(done: Iterable[Mapping[str, Any]], shots: int | str) -> Rowed:
    """A row per method and step: loss and dev score, means over cells; a cell that stopped keeps its last value."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for result in done:
        if (result["cell"]["stage"], result["cell"]["shots"]) == (TARGET, shots) and result["training"]["loss"]:
            found[result["cell"]["method"]].append(result["training"])
    rows = []
    for method, own in found.items():
        kinds = [[training["loss"] for training in own], [training["dev"] for training in own]]
        last = max(training["loss"][-1][0] for training in own)
        for step in sorted({-(-last * place // PLACES) for place in range(1, PLACES + 1)}):
            rows.append([method, step, *(_at(curve, step) for curve in kinds), len(own)])
    return ["method", "step", "loss", "dev_score", "cells"], rows


def _at(own: Iterable[Sequence[Sequence[float]]], step: int) -> float | None:
    """The mean over curves of the last value at a step or before it."""
    values = [curve[place - 1][1] for curve in own if (place := bisect_right([point[0] for point in curve], step))]
    return round(fmean(values), 5) if values else None


def differences(table: Board, worth: "Standings") -> Rowed:
    """A row per method, shots and task or average: the paired difference to the reference x 100, with its interval."""
    from benchmark.standing import GAP, gap

    rows, shown = [], {*table.groups, *table.metrics}
    for (method, shots, name), standing in worth.rows.items():
        if standing.difference and name in shown:
            mean, low, high, p, seeds, size = gap(standing)
            spread = [None if value is None else round(100 * value, 4) for value in (mean, low, high)]
            size = None if size is None else round(100 * size, 4)
            rows.append([method, worth.reference[shots], str(shots), name, *spread, p, seeds, size])
    return ["method", "reference", "shots", "name", *GAP], rows


def ties(table: Board, worth: "Standings") -> Rowed:
    """A row per method, shots and average: its tie groups, or why it has none; its average rank."""
    rows = []
    for line in table.lines:
        for name in table.groups:
            standing = worth.rows[line.method, line.shots, name]
            names, ranks = worth.ranks.get((line.shots, name), ((), None))
            rank = (ranks.mean[names.index(line.method)], ranks.gap) if line.method in names else (None, None)
            rows.append([line.method, str(line.shots), name, _mean(line.averages[name]), standing.letters,
                         standing.flag, *rank])  # fmt: skip
    return ["method", "shots", "name", "mean", "ties", "flag", "average_rank", "critical_difference"], rows


def costs(table: Board) -> Rowed:
    columns = ["method", "shots", "trained_parameters", "seconds_per_cell", "peak_bytes", "done", "due"]
    return columns, [[line.method, str(line.shots), line.trained, line.seconds, line.bytes, line.done, line.due]
                     for line in table.lines]  # fmt: skip


def _mean(figure: Any) -> float | None:
    return None if figure is None else round(100 * figure.mean, 4)


def _span(figure: Any) -> list[float | None]:
    """Mean and the ends of its interval, x 100."""
    if figure is None:
        return [None, None, None]
    ends = [None, None] if figure.half is None else [figure.mean - figure.half, figure.mean + figure.half]
    return [None if value is None else round(100 * value, 4) for value in (figure.mean, *ends)]


def _log(number: float | None) -> float | None:
    """For W&B's own charts, which have straight axes only."""
    return round(log10(number), 4) if number else None
