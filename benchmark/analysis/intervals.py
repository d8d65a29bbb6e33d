"""TODO."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import NamedTuple

CONFIDENCE_LEVEL = 0.95


class MeanEstimate(NamedTuple):
    """A mean over seeds and half the width of its 95 % interval (t), in the metric's own 0..1."""

    mean: float
    half_width: float | None  # None where one seed says nothing about spread
    num_seeds: int


def to_percent(value: float) -> float:
    """x 100, rounded to what a view keeps: all start from the same digits, so that none shows another last one."""
    return round(100 * value, 4)


def estimate_mean(values: Sequence[float]) -> MeanEstimate:
    """Mean and t interval over seeds: half = t(n - 1, 0.975) s / sqrt(n)."""
    if len(values) < 2:
        return MeanEstimate(values[0], None, len(values))
    from scipy.special import stdtrit  # scipy.stats has the same and takes seconds to import

    t = float(stdtrit(len(values) - 1, (1 + CONFIDENCE_LEVEL) / 2))
    return MeanEstimate(fmean(values), t * stdev(values) / sqrt(len(values)), len(values))
