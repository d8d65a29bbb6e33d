"""Where the spread over seeds comes from: which examples were drawn, how the adapter began, in which order it learned.

A seed drives three streams. Runs that move one of them and leave the others at 0 (`--set seed_streams=[split]`, then `[start]`,
`[order]`, in the same results folder) isolate its part: on one task with seeds 0..S-1

    s2 = sum_s (y[s] - mean)^2 / (S - 1),      pooled over tasks: sum (S_t - 1) s2_t / sum (S_t - 1)

with a chi-squared interval on sum (S_t - 1) degrees. Runs in which all three move together give the whole. The parts
add up to it where the streams do not interact; what is left over is printed, not spread over the parts. The numbers are
in the metric's own 0..1, squared; every part includes what is left of chance on a finite test set.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import sqrt
from typing import Any, NamedTuple

from benchmark.analysis.intervals import CONFIDENCE_LEVEL
from benchmark.config.profile import SEED_STREAMS
from benchmark.grid.cells import TARGET_STAGE, PlannedCell
from benchmark.system.hashing import hash_json

ALL_STREAMS = "all three"
STREAM_TITLES = {
    "split": "which examples",
    "start": "initialisation",
    "order": "order of training",
    ALL_STREAMS: ALL_STREAMS,
}
StreamSeeds = tuple[int, ...]  # of the streams, as in STREAMS


class PooledVariance(NamedTuple):
    """A variance of scores over seeds, pooled over tasks."""

    variance: float
    degrees_of_freedom: int

    def compute_standard_deviation(self) -> tuple[float, float, float]:
        """The standard deviation with its interval: (found, low, high)."""
        from scipy.special import chdtri  # of the upper tail

        low, high = (
            self.degrees_of_freedom / chdtri(self.degrees_of_freedom, tail)
            for tail in ((1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2)
        )
        return sqrt(self.variance), sqrt(self.variance * low), sqrt(self.variance * high)


def pool_variance(scores_by_task: Iterable[Sequence[float]]) -> PooledVariance | None:
    """Of the values of each task; those with a single one say nothing."""
    squares, freedom = 0.0, 0
    for values in scores_by_task:
        mean = sum(values) / max(1, len(values))
        squares += sum((value - mean) ** 2 for value in values)
        freedom += max(0, len(values) - 1)
    return PooledVariance(squares / freedom, freedom) if freedom else None


def select_stream_scores(scores_by_seeds: Mapping[StreamSeeds, float], stream: str) -> list[float]:
    """The scores of runs in which only this stream moves, or all move together."""
    if stream == ALL_STREAMS:
        return [score for seeds, score in scores_by_seeds.items() if len(set(seeds)) == 1]
    place = SEED_STREAMS.index(stream)
    return [score for seeds, score in scores_by_seeds.items() if not any(seeds[:place] + seeds[place + 1 :])]


def decompose_variance(scores_by_task: Sequence[Mapping[StreamSeeds, float]]) -> dict[str, PooledVariance]:
    """The parts that these runs of one method isolate, by task and the seeds of the streams."""
    found = {
        part: pool_variance(select_stream_scores(scores, part) for scores in scores_by_task) for part in STREAM_TITLES
    }
    return {part: one for part, one in found.items() if one}


def group_scores_by_seeds(
    planned_cells: Iterable[PlannedCell], results: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, int | str], list[dict[StreamSeeds, float]]]:
    """(method, shots) -> scores of each task by seeds, of all results that differ from the plan's in seeds only."""
    done = {result["identity"]: result for result in results if result["state"] == "done"}

    @cache
    def alike(identity: str) -> str | None:
        """A hash of all that decides a cell but its seeds, and of the cells that it rests on likewise."""
        parts = done[identity]["parts"]
        if not all(parent in done for parent in parts["parents"]):
            return None
        settings = {key: value for key, value in parts["settings"].items() if key != "seed"}
        rest = {key: value for key, value in parts.items() if key not in ("seeds", "settings", "parents")}
        return hash_json([rest, settings, [alike(parent) for parent in parts["parents"]]])

    wanted = {alike(one.identity) for one in planned_cells if one.is_in_table and one.identity in done}
    by_kind: dict[str, dict[StreamSeeds, float]] = defaultdict(dict)
    where: dict[str, tuple[str, int | str]] = {}
    for identity, result in done.items():
        if result["cell"]["stage"] != TARGET_STAGE or (kind := alike(identity)) is None or kind not in wanted:
            continue
        seeds = result["parts"]["seeds"]
        by_kind[kind][tuple(seeds[stream] for stream in SEED_STREAMS)] = result["metrics"]["test"][
            result["task"]["metric"]
        ]
        where[kind] = (result["cell"]["method"], result["cell"]["shots"])
    found: dict[tuple[str, int | str], list[dict[StreamSeeds, float]]] = defaultdict(list)
    for kind, scores in by_kind.items():
        found[where[kind]].append(scores)
    return dict(found)
