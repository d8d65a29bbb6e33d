"""Crossings of two methods' shot curves (mean score against number of shots).

If the paired differences d(k) and d(m) at two adjacent numbers of shots k < m have opposite signs, the crossing x is
the zero of the linear interpolation in log k:

    log x = (|d(m)| log k + |d(k)| log m) / (|d(k)| + |d(m)|)

A crossing is significant if both differences are, after Holm correction over the points of the curve. Full data has no
number of shots, so a crossing before it is not interpolated.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp, log
from typing import NamedTuple

from benchmark.analysis.intervals import CONFIDENCE_LEVEL
from benchmark.analysis.statistics import PairedDifference, apply_holm_correction


class Crossing(NamedTuple):
    """An interval of shots in which the sign of the difference changes."""

    shots_before: int | str  # last number of shots before the crossing
    shots_after: int | str  # first number of shots after it
    crossing_shots: float | None  # interpolated number of shots; None if shots_after is full data
    is_first_above: bool  # whether the first method is above after the crossing
    is_significant: bool  # the differences on both sides are significant


def find_crossings(differences: Mapping[int | str, PairedDifference | None]) -> list[Crossing]:
    """Crossings from the differences a - b by shots, fewest first; missing and zero differences are skipped."""
    nonzero = {shots: difference for shots, difference in differences.items() if difference and difference.mean != 0}
    p_values = {shots: p for shots, difference in nonzero.items() if (p := difference.compute_p_value()) is not None}
    corrected = dict(zip(p_values, apply_holm_correction(list(p_values.values())), strict=True))
    crossings = []
    for (k, before), (m, after) in pairwise(nonzero.items()):
        if (before.mean > 0) == (after.mean > 0):
            continue
        crossing_shots = None
        if isinstance(k, int) and isinstance(m, int):
            crossing_shots = interpolate_crossing((k, m), (before.mean, after.mean))
        is_significant = all(corrected.get(shots, 1.0) < 1 - CONFIDENCE_LEVEL for shots in (k, m))
        crossings.append(Crossing(k, m, crossing_shots, after.mean > 0, is_significant))
    return crossings


def interpolate_crossing(shots: Sequence[int], mean_differences: Sequence[float]) -> float:
    """Number of shots where the line through two differences of opposite sign, over log shots, is zero."""
    k, m = shots
    before, after = map(abs, mean_differences)
    return exp((after * log(k) + before * log(m)) / (before + after))
