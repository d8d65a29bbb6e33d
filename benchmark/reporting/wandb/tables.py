"""The summary run's tables, numbers as numbers. Plain rows: W&B is not needed to make them."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import log10
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmark.analysis.leaderboard import Leaderboard, LeaderboardRow
from benchmark.grid.cells import TARGET_STAGE

if TYPE_CHECKING:
    from benchmark.analysis.significance import LeaderboardSignificance

# The same ten in every run: W&B draws a panel for each name it meets, so everything else goes into the config.
RUN_METRICS = (
    "score", "dev_score", "loss", "trained_parameters", "adapter_bytes", "peak_bytes", "seconds", "train_seconds",
    "test_seconds", "tokens_per_second",
)  # fmt: skip
MAX_ROWS = 10_000  # of a table: W&B shows no more of one, and says nothing of the rest
NUM_CURVE_POINTS = 20  # points of a mean learning curve
MAX_LOSS_POINTS = 50  # most losses of one cell's curve: each costs a light run a millisecond
TableRows = list[list[Any]]
TableData = tuple[list[str], TableRows]  # columns, rows


def build_all_tables(
    leaderboard: Leaderboard, significance: "LeaderboardSignificance", done_results: Sequence[Mapping[str, Any]]
) -> dict[str, TableData]:
    """All tables of a grid by name; one that is too long for W&B goes on under name/2, name/3."""
    tables = {
        "cells": build_cells_table(done_results),
        "cost": build_costs_table(leaderboard),
        "differences": build_differences_table(leaderboard, significance),
        "ties": build_ties_table(leaderboard, significance),
        "shots": build_shots_table(leaderboard, done_results),
    }
    for shots in dict.fromkeys(line.shots for line in leaderboard.rows):
        tables[f"leaderboard/{shots}"] = build_leaderboard_table(leaderboard, significance, shots)
        tables[f"matrix/{shots}"] = build_matrix_table(leaderboard, shots)
        tables[f"curves/{shots}"] = build_curves_table(done_results, shots)
    return {
        name if part == 0 else f"{name}/{part + 1}": (columns, rows[part * MAX_ROWS : (part + 1) * MAX_ROWS])
        for name, (columns, rows) in tables.items()
        for part in range(max(1, -(-len(rows) // MAX_ROWS)))
    }


def iterate_curve_points(training: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, values) of one cell, in order; of the losses every n-th, counted from the last."""
    found: dict[int, dict[str, float]] = {}
    apart = max(1, -(-len(training["loss"]) // MAX_LOSS_POINTS))
    for step, loss in training["loss"][::-1][::apart]:
        found.setdefault(step, {})["loss"] = loss
    for step, score, _ in training["dev"]:
        found.setdefault(step, {})["dev_score"] = score
    yield from sorted(found.items())


def collect_run_metrics(result: Mapping[str, Any]) -> dict[str, float | None]:
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
    return {name: found[name] for name in RUN_METRICS if found[name] is not None}


def build_cells_table(done_results: Iterable[Mapping[str, Any]]) -> TableData:
    """A row per cell."""
    rows = []
    for result in done_results:
        at, values = result["cell"], collect_run_metrics(result)
        if at["stage"] == TARGET_STAGE:
            rows.append(
                [at["method"], at["task"], str(at["shots"]), at["seed"], *(values.get(name) for name in RUN_METRICS)]
            )
    return ["method", "task", "shots", "seed", *RUN_METRICS], rows


def build_matrix_table(leaderboard: Leaderboard, shots: int | str) -> TableData:
    """Methods x tasks: means x 100, averages first; empty where something is missing."""
    columns = ["method", *leaderboard.task_groups, *leaderboard.metrics]
    rows = [
        [
            line.method,
            *(_get_mean(line.averages[name]) for name in leaderboard.task_groups),
            *(_get_mean(line.task_scores[t]) for t in leaderboard.metrics),
        ]
        for line in leaderboard.get_rows(shots)
    ]
    return columns, rows


def build_leaderboard_table(
    leaderboard: Leaderboard, significance: "LeaderboardSignificance", shots: int | str
) -> TableData:
    """A row per method, best first: the first average with its interval, what it is worth, and what it costs.

    `pareto` is whether no method scores higher with as few trained parameters.
    """
    from benchmark.analysis.leaderboard import sort_rows

    first, lines = next(iter(leaderboard.task_groups)), sort_rows(leaderboard.get_rows(shots))
    best, rows = find_pareto_front(lines, first), []
    for line in lines:
        found, standing = line.averages[first], significance.entries[line.method, shots, first]
        mean, half = _get_mean(found), None if found is None or found.half_width is None else 100 * found.half_width
        gap = None if standing.difference is None else round(100 * standing.difference.mean, 4)
        span = (None, None) if half is None else (round(mean - half, 4), round(mean + half, 4))
        rows.append([line.method, line.is_control, mean, *span, found.num_seeds if found else 0, gap, standing.tie_letters,
                     standing.unranked_reason, line.trained_parameters, _compute_log10(line.trained_parameters), line.method in best, line.seconds_per_cell,
                     line.amortised_seconds, line.peak_bytes, line.num_done, line.num_due])  # fmt: skip
    columns = "method control mean low high seeds difference ties flag trained_parameters log10_trained_parameters"
    return f"{columns} pareto seconds_per_cell seconds_amortised peak_bytes done due".split(), rows


def find_pareto_front(rows: Sequence[LeaderboardRow], group_name: str) -> set[str]:
    """Methods that no other beats at their number of trained parameters or fewer; controls do not compete."""
    known = [(line.trained_parameters, -line.averages[group_name].mean, line.method)
             for line in rows if not line.is_control and line.averages[group_name]]  # fmt: skip
    return {
        method
        for size, loss, method in known
        if not any(a <= size and b <= loss and (a, b) != (size, loss) for a, b, _ in known)
    }


def build_shots_table(leaderboard: Leaderboard, done_results: Sequence[Mapping[str, Any]]) -> TableData:
    """A row per method and number of shots: every average, and how many examples it trained on, mean over cells."""
    seen = defaultdict(list)
    for result in done_results:
        if splits := result["data"].get("splits"):
            seen[result["cell"]["method"], result["cell"]["shots"]].append(splits["train"])
    rows = []
    for line in leaderboard.rows:
        if not line.is_control:
            examples = fmean(seen[line.method, line.shots]) if seen[line.method, line.shots] else None
            averages = [
                value for name in leaderboard.task_groups for value in _get_mean_and_interval(line.averages[name])
            ]
            rows.append([line.method, str(line.shots), examples, _compute_log10(examples), *averages])
    named = [f"{name.replace(' ', '_')}{end}" for name in leaderboard.task_groups for end in ("", "_low", "_high")]
    return ["method", "shots", "examples", "log10_examples", *named], rows


def build_curves_table(done_results: Iterable[Mapping[str, Any]], shots: int | str) -> TableData:
    """A row per method and step: loss and dev score, means over cells; a cell that stopped keeps its last value."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for result in done_results:
        if (result["cell"]["stage"], result["cell"]["shots"]) == (TARGET_STAGE, shots) and result["training"]["loss"]:
            found[result["cell"]["method"]].append(result["training"])
    rows = []
    for method, own in found.items():
        kinds = [[training["loss"] for training in own], [training["dev"] for training in own]]
        last = max(training["loss"][-1][0] for training in own)
        for step in sorted({-(-last * place // NUM_CURVE_POINTS) for place in range(1, NUM_CURVE_POINTS + 1)}):
            rows.append([method, step, *(_average_at_step(curve, step) for curve in kinds), len(own)])
    return ["method", "step", "loss", "dev_score", "cells"], rows


def _average_at_step(curves: Iterable[Sequence[Sequence[float]]], step: int) -> float | None:
    """The mean over curves of the last value at a step or before it."""
    values = [curve[place - 1][1] for curve in curves if (place := bisect_right([point[0] for point in curve], step))]
    return round(fmean(values), 5) if values else None


def build_differences_table(leaderboard: Leaderboard, significance: "LeaderboardSignificance") -> TableData:
    """A row per method, shots and task or average: the paired difference to the reference x 100, with its interval."""
    from benchmark.analysis.significance import DIFFERENCE_COLUMNS, list_difference_values

    rows, shown = [], {*leaderboard.task_groups, *leaderboard.metrics}
    for (method, shots, name), standing in significance.entries.items():
        if standing.difference and name in shown:
            mean, low, high, p, seeds, size = list_difference_values(standing)
            spread = [None if value is None else round(100 * value, 4) for value in (mean, low, high)]
            size = None if size is None else round(100 * size, 4)
            rows.append([method, significance.reference_by_shots[shots], str(shots), name, *spread, p, seeds, size])
    return ["method", "reference", "shots", "name", *DIFFERENCE_COLUMNS], rows


def build_ties_table(leaderboard: Leaderboard, significance: "LeaderboardSignificance") -> TableData:
    """A row per method, shots and average: its tie groups, or why it has none; its average rank."""
    rows = []
    for line in leaderboard.rows:
        for name in leaderboard.task_groups:
            standing = significance.entries[line.method, line.shots, name]
            names, ranks = significance.average_ranks.get((line.shots, name), ((), None))
            rank = (
                (ranks.mean_ranks[names.index(line.method)], ranks.critical_difference)
                if line.method in names
                else (None, None)
            )
            rows.append([line.method, str(line.shots), name, _get_mean(line.averages[name]), standing.tie_letters,
                         standing.unranked_reason, *rank])  # fmt: skip
    return ["method", "shots", "name", "mean", "ties", "flag", "average_rank", "critical_difference"], rows


def build_costs_table(leaderboard: Leaderboard) -> TableData:
    columns = ["method", "shots", "trained_parameters", "seconds_per_cell", "peak_bytes", "done", "due"]
    return columns, [[line.method, str(line.shots), line.trained_parameters, line.seconds_per_cell, line.peak_bytes, line.num_done, line.num_due]
                     for line in leaderboard.rows]  # fmt: skip


def _get_mean(estimate: Any) -> float | None:
    return None if estimate is None else round(100 * estimate.mean, 4)


def _get_mean_and_interval(estimate: Any) -> list[float | None]:
    """Mean and the ends of its interval, x 100."""
    if estimate is None:
        return [None, None, None]
    ends = (
        [None, None]
        if estimate.half_width is None
        else [estimate.mean - estimate.half_width, estimate.mean + estimate.half_width]
    )
    return [None if value is None else round(100 * value, 4) for value in (estimate.mean, *ends)]


def _compute_log10(number: float | None) -> float | None:
    """For W&B's own charts, which have straight axes only."""
    return round(log10(number), 4) if number else None
