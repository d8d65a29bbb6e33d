from math import isclose, log

import numpy as np
import pytest

from benchmark.shots import crossing, crossings
from benchmark.stats import Difference, Spread


def gap(mean: float, error: float = 0.001) -> Difference:
    return Difference(mean, 5, 99, (Spread(error**2, 4),))


def test_a_crossing_is_the_zero_of_the_line_over_the_logarithm():
    for shots, means in (((4, 16), (-0.3, 0.1)), ((16, 256), (0.02, -0.05)), ((1, 2), (1e-3, -1.0))):
        slope, start = np.polyfit(np.log(shots), means, 1)
        assert isclose(log(crossing(shots, means)), -start / slope, abs_tol=1e-9)
    assert isclose(crossing((4, 16), (-0.1, 0.1)), 8)


def test_curves_cross_where_the_sign_changes_and_nowhere_else():
    found = crossings({4: gap(-0.1), 16: gap(0.1), 64: gap(0.2), "full": gap(-0.1)})
    assert [(one.before, one.after, one.first_above, one.clear) for one in found] == [
        (4, 16, True, True), (64, "full", False, True),
    ]  # fmt: skip
    assert isclose(found[0].at, 8)
    assert found[1].at is None
    assert crossings({4: gap(0.1), 16: gap(0.2)}) == []


@pytest.mark.parametrize("last", [gap(0.1, error=0.2), Difference(0.1, 1, 99, ())])
def test_a_crossing_into_a_tie_is_not_clear(last: Difference):
    (found,) = crossings({4: gap(-0.1), 16: last})
    assert not found.clear


def test_points_are_corrected_for_their_number():
    low, high = gap(-0.003), gap(0.003)
    assert low.p() == high.p() < 0.05 < 2 * high.p()  # alone each would be told from a tie
    assert not crossings({4: low, 16: high})[0].clear


def test_missing_points_are_passed_over():
    (found,) = crossings({4: gap(-0.1), 8: None, 16: gap(0.0), 64: gap(0.1)})
    assert (found.before, found.after, isclose(found.at, 16)) == (4, 64, True)
