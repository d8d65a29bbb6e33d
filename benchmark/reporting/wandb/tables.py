"""Builds the tables of the summary run as plain rows of numbers. Does not import wandb."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import log10
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmark.analysis.leaderboard import Leaderboard, LeaderboardRow
from benchmark.results.cell_result import CellResult
from benchmark.results.schema import TrainingRecord

if TYPE_CHECKING:
    from benchmark.analysis.significance import LeaderboardSignificance

# Summary metrics of every cell run. W&B draws a panel per metric name, so everything else goes into the config.
RUN_METRICS = (
    "score", "dev_score", "loss", "trained_parameters", "adapter_bytes", "peak_bytes", "seconds", "train_seconds",
    "test_seconds", "tokens_per_second",
)  # fmt: skip
MAX_ROWS = 10_000  # rows per table; W&B silently drops the rest
NUM_CURVE_POINTS = 20  # points of a mean learning curve
MAX_LOSS_POINTS = 50  # losses of one cell's curve; logging each takes about a millisecond
TableRows = list[list[Any]]
TableData = tuple[list[str], TableRows]  # columns, rows


def build_all_tables(
    leaderboard: Leaderboard, significance: "LeaderboardSignificance", done_results: Sequence[CellResult]
) -> dict[str, TableData]:
    """Build all tables of a grid. Name -> table; tables longer than MAX_ROWS continue under name/2, name/3."""
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


def iterate_curve_points(training: TrainingRecord | None) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield (step, values) of one cell by step. The losses are thinned to MAX_LOSS_POINTS and include the last."""
    points: dict[int, dict[str, float]] = {}
    if training is None:
        return
    stride = max(1, -(-len(training.loss) // MAX_LOSS_POINTS))
    for step, loss in training.loss[::-1][::stride]:
        points.setdefault(step, {})["loss"] = loss
    for step, score, _ in training.dev:
        points.setdefault(step, {})["dev_score"] = score
    yield from sorted(points.items())


def collect_run_metrics(result: CellResult) -> dict[str, float | None]:
    """Collect the RUN_METRICS that this cell has."""
    costs = result.get_costs()
    dev_scores = result.get_metrics().dev.values()
    training = result.details.training
    metrics = {
        "score": result.test_score,
        "dev_score": fmean(dev_scores) if dev_scores else None,
        "loss": training.loss[-1].value if training and training.loss else None,
        "trained_parameters": costs.trained_parameters,
        "adapter_bytes": costs.adapter_bytes,
        "peak_bytes": costs.peak_bytes,
        "seconds": result.times.seconds,
        "train_seconds": costs.seconds_by_phase.get("train"),
        "test_seconds": costs.seconds_by_phase.get("test"),
        "tokens_per_second": costs.tokens_per_second,
    }
    return {name: metrics[name] for name in RUN_METRICS if metrics[name] is not None}


def build_cells_table(done_results: Iterable[CellResult]) -> TableData:
    """One row per target-stage cell: method, task, shots, seed and RUN_METRICS."""
    rows = []
    for result in done_results:
        cell = result.cell
        if result.is_target:
            metrics = collect_run_metrics(result)
            values = [metrics.get(name) for name in RUN_METRICS]
            rows.append([cell.method, cell.task, str(cell.shots), cell.seed, *values])
    return ["method", "task", "shots", "seed", *RUN_METRICS], rows


def build_matrix_table(leaderboard: Leaderboard, shots: int | str) -> TableData:
    """Methods x tasks: mean scores x 100, averages first; empty if cells are missing."""
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
    """One row per method, best first: the first average with its interval, its significance, and its cost.

    `pareto`: no other method scores higher with at most as many trained parameters.
    """
    from benchmark.analysis.leaderboard import sort_rows

    group_name = next(iter(leaderboard.task_groups))
    sorted_rows = sort_rows(leaderboard.get_rows(shots))
    pareto_front = find_pareto_front(sorted_rows, group_name)
    rows = []
    for row in sorted_rows:
        estimate = row.averages[group_name]
        standing = significance.entries[row.method, shots, group_name]
        difference = None if standing.difference is None else round(100 * standing.difference.mean, 4)
        values = [row.method, row.is_control, *_get_mean_and_interval(estimate), estimate.num_seeds if estimate else 0]
        values += [difference, standing.tie_letters, standing.unranked_reason]
        values += [row.trained_parameters, _compute_log10(row.trained_parameters), row.method in pareto_front]
        values += [row.seconds_per_cell, row.amortised_seconds, row.peak_bytes, row.num_done, row.num_due]
        rows.append(values)
    columns = "method control mean low high seeds difference ties flag trained_parameters log10_trained_parameters"
    return f"{columns} pareto seconds_per_cell seconds_amortised peak_bytes done due".split(), rows


def find_pareto_front(rows: Sequence[LeaderboardRow], group_name: str) -> set[str]:
    """Return the methods that no other beats with at most as many trained parameters; controls are ignored."""
    candidates = [
        (row.trained_parameters, -row.averages[group_name].mean, row.method)
        for row in rows
        if not row.is_control and row.averages[group_name]
    ]
    return {
        method
        for size, loss, method in candidates
        if not any(a <= size and b <= loss and (a, b) != (size, loss) for a, b, _ in candidates)
    }


def build_shots_table(leaderboard: Leaderboard, done_results: Sequence[CellResult]) -> TableData:
    """One row per trained method and number of shots: mean number of training examples per cell, and every average."""
    num_examples = defaultdict(list)
    for result in done_results:
        if result.is_target:
            num_examples[result.cell.method, result.cell.shots].append(result.data[result.cell.task].splits["train"])
    rows = []
    for row in leaderboard.rows:
        if not row.is_control:
            counts = num_examples[row.method, row.shots]
            mean_count = fmean(counts) if counts else None
            averages = [
                value for name in leaderboard.task_groups for value in _get_mean_and_interval(row.averages[name])
            ]
            rows.append([row.method, str(row.shots), mean_count, _compute_log10(mean_count), *averages])
    columns = [f"{name.replace(' ', '_')}{end}" for name in leaderboard.task_groups for end in ("", "_low", "_high")]
    return ["method", "shots", "examples", "log10_examples", *columns], rows


def build_curves_table(done_results: Iterable[CellResult], shots: int | str) -> TableData:
    """One row per method and step: mean loss and dev score over cells; a stopped cell keeps its last value."""
    training_by_method: dict[str, list[TrainingRecord]] = defaultdict(list)
    for result in done_results:
        if result.is_target and result.cell.shots == shots:
            training = result.details.training
            if training and training.loss:
                training_by_method[result.cell.method].append(training)
    rows = []
    for method, cells in training_by_method.items():
        losses = [training.loss for training in cells]
        dev_scores = [training.dev for training in cells]
        last = max(curve[-1][0] for curve in losses)
        for step in sorted({-(-last * i // NUM_CURVE_POINTS) for i in range(1, NUM_CURVE_POINTS + 1)}):
            rows.append([method, step, _average_at_step(losses, step), _average_at_step(dev_scores, step), len(cells)])
    return ["method", "step", "loss", "dev_score", "cells"], rows


def _average_at_step(curves: Iterable[Sequence[Sequence[float]]], step: int) -> float | None:
    """Average over curves of the last value at or before a step; curves without such a value are ignored."""
    values = []
    for curve in curves:
        num_points = bisect_right([point[0] for point in curve], step)
        if num_points:
            values.append(curve[num_points - 1][1])
    return round(fmean(values), 5) if values else None


def build_differences_table(leaderboard: Leaderboard, significance: "LeaderboardSignificance") -> TableData:
    """One row per method, shots and task or average: paired difference to the reference x 100, with its interval."""
    from benchmark.analysis.significance import DIFFERENCE_COLUMNS, list_difference_values

    rows = []
    names = {*leaderboard.task_groups, *leaderboard.metrics}
    for (method, shots, name), standing in significance.entries.items():
        if standing.difference and name in names:
            mean, low, high, p, seeds, size = list_difference_values(standing)
            spread = [None if value is None else round(100 * value, 4) for value in (mean, low, high)]
            size = None if size is None else round(100 * size, 4)
            rows.append([method, significance.reference_by_shots[shots], str(shots), name, *spread, p, seeds, size])
    return ["method", "reference", "shots", "name", *DIFFERENCE_COLUMNS], rows


def build_ties_table(leaderboard: Leaderboard, significance: "LeaderboardSignificance") -> TableData:
    """One row per method, shots and average: tie letters or the reason for none, and the average rank."""
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
    """One row per method and shots: parameters, seconds per cell, peak memory, cells done and due."""
    columns = ["method", "shots", "trained_parameters", "seconds_per_cell", "peak_bytes", "done", "due"]
    rows = [
        [
            row.method,
            str(row.shots),
            row.trained_parameters,
            row.seconds_per_cell,
            row.peak_bytes,
            row.num_done,
            row.num_due,
        ]
        for row in leaderboard.rows
    ]
    return columns, rows


def _get_mean(estimate: Any) -> float | None:
    """Return the mean x 100, or None."""
    return None if estimate is None else round(100 * estimate.mean, 4)


def _get_mean_and_interval(estimate: Any) -> list[float | None]:
    """Return [mean, low, high] x 100; None where they are missing."""
    if estimate is None:
        return [None, None, None]
    ends = (
        [None, None]
        if estimate.half_width is None
        else [estimate.mean - estimate.half_width, estimate.mean + estimate.half_width]
    )
    return [None if value is None else round(100 * value, 4) for value in (estimate.mean, *ends)]


def _compute_log10(number: float | None) -> float | None:
    """Return log10, rounded; None for zero or None. For W&B's built-in charts, which have linear axes only."""
    return round(log10(number), 4) if number else None
