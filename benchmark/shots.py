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

from benchmark.stats import Difference, holm
from benchmark.table import LEVEL


class Crossing(NamedTuple):
    """Where a curve that was below goes above."""

    before: int | str  # the last number of shots of the one side
    after: int | str  # the first of the other
    at: float | None  # shots; None where the other side is full data
    first_above: bool  # after it: whether the first method is the one above
    clear: bool  # both sides are told from a tie


def crossings(gaps: Mapping[int | str, Difference | None]) -> list[Crossing]:
    """Of a - b by number of shots, fewest first; points without a difference, or with none at all, are passed over."""
    known = {shots: gap for shots, gap in gaps.items() if gap and gap.mean != 0}
    values = {shots: p for shots, gap in known.items() if (p := gap.p()) is not None}
    corrected = dict(zip(values, holm(list(values.values())), strict=True))
    found = []
    for (k, one), (m, other) in pairwise(known.items()):
        if (one.mean > 0) == (other.mean > 0):
            continue
        at = crossing((k, m), (one.mean, other.mean)) if isinstance(k, int) and isinstance(m, int) else None
        clear = all(corrected.get(shots, 1.0) < 1 - LEVEL for shots in (k, m))
        found.append(Crossing(k, m, at, other.mean > 0, clear))
    return found


def crossing(shots: Sequence[int], means: Sequence[float]) -> float:
    """Where the line through two differences of opposite sign is 0, over the logarithm of shots."""
    (k, m), (one, other) = shots, map(abs, means)
    return exp((other * log(k) + one * log(m)) / (one + other))
