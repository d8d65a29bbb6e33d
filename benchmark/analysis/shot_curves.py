"""Shot curves: the mean against the number of examples, and where one method's curve crosses another's.

Between two neighbouring numbers of shots k < m with paired differences d(k) and d(m) of opposite sign, the curves cross
where the straight line over log k is 0:

    log x = (|d(m)| log k + |d(k)| log m) / (|d(k)| + |d(m)|)

The crossing is told from noise only where both differences are, corrected (Holm) for the points of the curve; else one
of them may be a tie, and the point x is all that is known. At full data there is no number of shots to draw a line to.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp, log
from typing import NamedTuple

from benchmark.analysis.intervals import CONFIDENCE_LEVEL
from benchmark.analysis.statistics import PairedDifference, apply_holm_correction


class Crossing(NamedTuple):
    """Where a curve that was below goes above."""

    shots_before: int | str  # the last number of shots of the one side
    shots_after: int | str  # the first of the other
    crossing_shots: float | None  # shots; None where the other side is full data
    is_first_above: bool  # after it: whether the first method is the one above
    is_significant: bool  # both sides are told from a tie


def find_crossings(differences: Mapping[int | str, PairedDifference | None]) -> list[Crossing]:
    """Of a - b by number of shots, fewest first; points without a difference, or with none at all, are passed over."""
    known = {shots: gap for shots, gap in differences.items() if gap and gap.mean != 0}
    values = {shots: p for shots, gap in known.items() if (p := gap.compute_p_value()) is not None}
    corrected = dict(zip(values, apply_holm_correction(list(values.values())), strict=True))
    found = []
    for (k, one), (m, other) in pairwise(known.items()):
        if (one.mean > 0) == (other.mean > 0):
            continue
        at = interpolate_crossing((k, m), (one.mean, other.mean)) if isinstance(k, int) and isinstance(m, int) else None
        clear = all(corrected.get(shots, 1.0) < 1 - CONFIDENCE_LEVEL for shots in (k, m))
        found.append(Crossing(k, m, at, other.mean > 0, clear))
    return found


def interpolate_crossing(shots: Sequence[int], mean_differences: Sequence[float]) -> float:
    """Where the line through two differences of opposite sign is 0, over the logarithm of shots."""
    (k, m), (one, other) = shots, map(abs, mean_differences)
    return exp((other * log(k) + one * log(m)) / (one + other))
