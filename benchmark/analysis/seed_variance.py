"""Decompose the variance over seeds into training sample, adapter initialisation and data order.

A seed drives three random streams. Runs that vary one stream and keep the others at 0 (`--set seed_streams=[split]`,
then `[start]`, `[order]`, in the same results folder) isolate its variance. On one task with seeds 0..S-1

    s2 = sum_s (y[s] - mean)^2 / (S - 1),      pooled over tasks: sum (S_t - 1) s2_t / sum (S_t - 1)

with a chi-squared interval on sum (S_t - 1) degrees of freedom. Runs that vary all three together give the total. The
components add up to the total if the streams do not interact; the remainder is reported as such. Variances are in
squared units of the metric (0..1); every component includes the sampling noise of a finite test set.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import sqrt
from typing import NamedTuple

from benchmark.analysis.intervals import CONFIDENCE_LEVEL
from benchmark.config.profile import SEED_STREAMS
from benchmark.grid.cells import PlannedCell, StreamSeeds
from benchmark.results.cell_result import CellResult

ALL_STREAMS = "all three"
STREAM_TITLES = {
    "split": "which examples",
    "start": "initialisation",
    "order": "order of training",
    ALL_STREAMS: ALL_STREAMS,
}


class PooledVariance(NamedTuple):
    """A variance of scores over seeds, pooled over tasks."""

    variance: float
    degrees_of_freedom: int

    def compute_standard_deviation(self) -> tuple[float, float, float]:
        """Standard deviation with its chi-squared interval: (estimate, low, high)."""
        from scipy.special import chdtri  # inverse of the upper tail

        low, high = (
            self.degrees_of_freedom / chdtri(self.degrees_of_freedom, tail)
            for tail in ((1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2)
        )
        return sqrt(self.variance), sqrt(self.variance * low), sqrt(self.variance * high)


def pool_variance(scores_by_task: Iterable[Sequence[float]]) -> PooledVariance | None:
    """Pool the variance over tasks; a task with a single score adds nothing. None without degrees of freedom."""
    squares = 0.0
    degrees = 0
    for values in scores_by_task:
        mean = sum(values) / max(1, len(values))
        squares += sum((value - mean) ** 2 for value in values)
        degrees += max(0, len(values) - 1)
    return PooledVariance(squares / degrees, degrees) if degrees else None


def select_stream_scores(scores_by_seeds: Mapping[StreamSeeds, float], stream: str) -> list[float]:
    """Scores of the runs that vary only this stream, or all streams together for ALL_STREAMS."""
    if stream == ALL_STREAMS:
        return [score for seeds, score in scores_by_seeds.items() if len(set(seeds)) == 1]
    index = SEED_STREAMS.index(stream)
    return [score for seeds, score in scores_by_seeds.items() if not any(seeds[:index] + seeds[index + 1 :])]


def decompose_variance(scores_by_task: Sequence[Mapping[StreamSeeds, float]]) -> dict[str, PooledVariance]:
    """Pooled variance of each stream that the runs of one method isolate.

    `scores_by_task` has, for each task, scores by the seeds of the streams.
    """
    variances = {
        stream: pool_variance(select_stream_scores(scores, stream) for scores in scores_by_task)
        for stream in STREAM_TITLES
    }
    return {stream: variance for stream, variance in variances.items() if variance}


def group_scores_by_seeds(
    planned_cells: Iterable[PlannedCell], results: Iterable[CellResult]
) -> dict[tuple[str, int | str], list[dict[StreamSeeds, float]]]:
    """(method, shots) -> scores by stream seeds, one dict per task.

    Used are all results that differ from a planned cell in their seeds only.
    """
    done = {result.identity: result for result in results if result.is_done}

    @cache
    def hash_without_seeds(identity: str) -> str | None:
        """Hash of all identity inputs except seeds, including those of the dependencies; None if one is missing."""
        inputs = done[identity].details.identity_inputs
        if not all(parent in done for parent in inputs.dependencies):
            return None
        seedless = replace(
            inputs,
            cell=inputs.cell._replace(seed=0),
            seeds=StreamSeeds(0, 0, 0),
            dependencies=tuple(str(hash_without_seeds(parent)) for parent in inputs.dependencies),
        )
        return seedless.compute_hash()

    planned_hashes = {
        hash_without_seeds(cell.identity) for cell in planned_cells if cell.is_in_table and cell.identity in done
    }
    scores_by_hash: dict[str, dict[StreamSeeds, float]] = defaultdict(dict)
    row_by_hash: dict[str, tuple[str, int | str]] = {}
    for identity, result in done.items():
        if not result.is_target or result.test_score is None:
            continue
        seedless_hash = hash_without_seeds(identity)
        if seedless_hash is None or seedless_hash not in planned_hashes:
            continue
        scores_by_hash[seedless_hash][result.details.identity_inputs.seeds] = result.test_score
        row_by_hash[seedless_hash] = (result.cell.method, result.cell.shots)
    scores_by_row: dict[tuple[str, int | str], list[dict[StreamSeeds, float]]] = defaultdict(list)
    for seedless_hash, scores in scores_by_hash.items():
        scores_by_row[row_by_hash[seedless_hash]].append(scores)
    return dict(scores_by_row)
