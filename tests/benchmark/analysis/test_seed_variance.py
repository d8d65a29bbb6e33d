from dataclasses import replace
from math import isclose, sqrt

import numpy as np
import pytest
import scipy.stats

from benchmark.analysis.seed_variance import (
    ALL_STREAMS,
    PooledVariance,
    decompose_variance,
    group_scores_by_seeds,
    pool_variance,
    select_stream_scores,
)
from benchmark.grid import planner
from benchmark.results.store import ResultStore


def test_pooled_is_the_mean_square_within_groups_of_the_analysis_of_variance():
    draw = np.random.default_rng(0)
    groups = [draw.normal(shift, 1, size) for shift, size in ((0, 3), (5, 4), (9, 6))]
    found = pool_variance(groups)
    squares = sum(((g - g.mean()) ** 2).sum() for g in groups)
    assert isclose(found.variance, squares / 10)
    between = sum(len(g) * (g.mean() - np.concatenate(groups).mean()) ** 2 for g in groups) / 2
    assert isclose(between / found.variance, scipy.stats.f_oneway(*groups).statistic)  # its F is between / within
    assert pool_variance([[0.5], [0.7]]) is None


def test_the_interval_of_a_deviation_is_the_chi_squared_one_and_covers():
    found, low, high = PooledVariance(4.0, 7).compute_standard_deviation()
    assert found == 2.0
    assert isclose(low, sqrt(4 * 7 / scipy.stats.chi2.ppf(0.975, 7)))
    assert isclose(high, sqrt(4 * 7 / scipy.stats.chi2.ppf(0.025, 7)))
    draw, held = np.random.default_rng(1), 0
    for tasks in draw.normal(0, 0.3, (1000, 4, 3)):
        _, low, high = pool_variance(tasks).compute_standard_deviation()
        held += low <= 0.3 <= high
    assert 0.93 <= held / 1000 <= 0.97


def star(draw: np.random.Generator, sizes: tuple[float, ...], seeds: int) -> dict[tuple[int, ...], float]:
    """Scores of runs that move one stream at a time, and all together, where streams do not interact."""
    effects = [draw.normal(0, size, seeds) for size in sizes]
    moved = {tuple(seed if i == place else 0 for i in range(3)) for place in range(3) for seed in range(seeds)}
    moved |= {(seed,) * 3 for seed in range(seeds)}
    return {key: sum(effect[seed] for effect, seed in zip(effects, key, strict=True)) for key in moved}


def test_each_part_is_found_and_they_add_up_where_streams_do_not_interact():
    draw, sizes, seeds = np.random.default_rng(2), (0.3, 0.1, 0.0), 4
    tasks = [star(draw, sizes, seeds) for _ in range(600)]
    found = decompose_variance(tasks)
    for part, size in zip(("split", "start", "order"), sizes, strict=True):
        assert isclose(found[part].variance, size**2, rel_tol=0.1, abs_tol=1e-12)
        assert found[part].degrees_of_freedom == 600 * 3
    assert isclose(found[ALL_STREAMS].variance, sum(size**2 for size in sizes), rel_tol=0.1)


def test_an_arm_holds_the_runs_in_which_only_one_stream_moves():
    scores = {(0, 0, 0): 0.1, (1, 0, 0): 0.2, (0, 1, 0): 0.3, (0, 0, 1): 0.4, (1, 1, 1): 0.5, (1, 1, 0): 0.6}
    assert select_stream_scores(scores, "split") == [0.1, 0.2]
    assert select_stream_scores(scores, "order") == [0.1, 0.4]
    assert select_stream_scores(scores, ALL_STREAMS) == [0.1, 0.5]
    assert set(decompose_variance([scores])) == {"split", "start", "order", ALL_STREAMS}
    assert set(decompose_variance([{(0, 0, 0): 0.1, (1, 1, 1): 0.5}])) == {ALL_STREAMS}


@pytest.fixture
def varied(small):
    return replace(small, methods=("lora",), tasks=("chnsent", "cote_bd"), shots=(4,))


def test_runs_are_found_by_what_they_share_whatever_their_seeds(varied, fake):
    grids = [varied, *(replace(varied, seed_streams=(stream,)) for stream in ("split", "start", "order"))]
    for one in grids:
        for planned in planner.plan_grid(one):
            fake(one, planned, 0.1 * planned.cell.seed + (0.01 if planned.cell.seed else 0.03))
    other = replace(varied, config={"lora": {"rank": 3}})
    for planned in planner.plan_grid(other):
        fake(other, planned, 0.9)
    results = ResultStore(varied.results_folder).load_results()
    ((scores, again),) = group_scores_by_seeds(planner.plan_grid(varied), results).values()
    assert len(scores) == len(again) == 1 + 3 * 2 + 2  # the run with all streams at 0 is the same cell in all grids
    assert 0.9 not in scores.values()
    assert list(group_scores_by_seeds(planner.plan_grid(other), results).values()) == [
        [{(s, s, s): 0.9 for s in range(3)}] * 2
    ]
    found = decompose_variance([scores, again])
    assert {one.degrees_of_freedom for one in found.values()} == {4}
    assert isclose(found["split"].variance, np.var([0.01 * 3, 0.11, 0.21], ddof=1))
