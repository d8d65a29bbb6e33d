"""Means over seeds with t confidence intervals, and their conversion to percent."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import NamedTuple

CONFIDENCE_LEVEL = 0.95


class MeanEstimate(NamedTuple):
    """A mean over seeds and the half-width of its 95 % t interval, in units of the metric (0..1)."""

    mean: float
    half_width: float | None  # None with a single seed
    num_seeds: int


def to_percent(value: float) -> float:
    """Multiply by 100 and round to 4 decimals, so that all reports round the same digits to their own precision."""
    return round(100 * value, 4)


def estimate_mean(values: Sequence[float]) -> MeanEstimate:
    """Mean and t interval over seeds: half_width = t(n - 1, 0.975) s / sqrt(n)."""
    if len(values) < 2:
        return MeanEstimate(values[0], None, len(values))
    from scipy.special import stdtrit  # scipy.stats takes seconds to import

    t = float(stdtrit(len(values) - 1, (1 + CONFIDENCE_LEVEL) / 2))
    return MeanEstimate(fmean(values), t * stdev(values) / sqrt(len(values)), len(values))
