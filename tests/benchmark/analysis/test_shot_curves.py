from math import isclose, log

import numpy as np
import pytest

from benchmark.analysis.shot_curves import find_crossings, interpolate_crossing
from benchmark.analysis.statistics import PairedDifference, VarianceEstimate


def gap(mean: float, error: float = 0.001) -> PairedDifference:
    return PairedDifference(mean, 5, 99, (VarianceEstimate(error**2, 4),))


def test_a_crossing_is_the_zero_of_the_line_over_the_logarithm():
    for shots, means in (((4, 16), (-0.3, 0.1)), ((16, 256), (0.02, -0.05)), ((1, 2), (1e-3, -1.0))):
        slope, start = np.polyfit(np.log(shots), means, 1)
        assert isclose(log(interpolate_crossing(shots, means)), -start / slope, abs_tol=1e-9)
    assert isclose(interpolate_crossing((4, 16), (-0.1, 0.1)), 8)


def test_curves_cross_where_the_sign_changes_and_nowhere_else():
    found = find_crossings({4: gap(-0.1), 16: gap(0.1), 64: gap(0.2), "full": gap(-0.1)})
    assert [(one.shots_before, one.shots_after, one.is_first_above, one.is_significant) for one in found] == [
        (4, 16, True, True), (64, "full", False, True),
    ]  # fmt: skip
    assert isclose(found[0].crossing_shots, 8)
    assert found[1].crossing_shots is None
    assert find_crossings({4: gap(0.1), 16: gap(0.2)}) == []


@pytest.mark.parametrize("last", [gap(0.1, error=0.2), PairedDifference(0.1, 1, 99, ())])
def test_a_crossing_into_a_tie_is_not_clear(last: PairedDifference):
    (found,) = find_crossings({4: gap(-0.1), 16: last})
    assert not found.is_significant


def test_points_are_corrected_for_their_number():
    low, high = gap(-0.003), gap(0.003)
    assert (
        low.compute_p_value() == high.compute_p_value() < 0.05 < 2 * high.compute_p_value()
    )  # alone each would be told from a tie
    assert not find_crossings({4: low, 16: high})[0].is_significant


def test_missing_points_are_passed_over():
    (found,) = find_crossings({4: gap(-0.1), 8: None, 16: gap(0.0), 64: gap(0.1)})
    assert (found.shots_before, found.shots_after, isclose(found.crossing_shots, 16)) == (4, 64, True)
