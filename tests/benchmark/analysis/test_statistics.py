"""Every statistic against a closed form or scipy's own function, and what is promised of it in simulation."""

from itertools import combinations
from math import inf, isclose, sqrt

import numpy as np
import pytest
import scipy.stats
from scipy.special import stdtr, stdtrit

from benchmark.analysis.statistics import (
    AverageRanks,
    PairedDifference,
    VarianceEstimate,
    aggregate_by_group,
    apply_holm_correction,
    assign_letters,
    combine_tasks,
    compute_average_ranks,
    compute_bootstrap_interval,
    compute_task_contribution,
    find_rank_cliques,
    find_tie_groups,
)


def of(*tasks: np.ndarray, **options) -> PairedDifference:
    return combine_tasks([compute_task_contribution(d) for d in tasks], **options)


def test_where_only_seeds_differ_it_is_the_t_test_over_seeds():
    values = np.array([0.05, 0.02, 0.11, 0.07])
    found, known = of(np.repeat(values[:, None], 30, 1)), scipy.stats.ttest_1samp(values, 0)
    assert isclose(found.compute_p_value(), known.pvalue)
    assert np.allclose(found.compute_interval(), known.confidence_interval(0.95))
    assert np.allclose(found.compute_interval(0.8), known.confidence_interval(0.8))
    assert isclose(found.compute_p_value(0.05), scipy.stats.ttest_1samp(values, 0.05).pvalue)


def test_where_no_seed_matters_it_is_the_paired_t_test_over_examples():
    a, b = np.random.default_rng(0).random((2, 40))
    found, known = of((a - b)[None], is_seed_independent=True), scipy.stats.ttest_rel(a, b)
    assert isclose(found.compute_p_value(), known.pvalue)
    assert np.allclose(found.compute_interval(), known.confidence_interval(0.95))


def test_both_spreads_of_two_tasks_are_those_of_the_formulas():
    draw = np.random.default_rng(1)
    tasks = [draw.random((3, n)) - 0.4 for n in (7, 12)]
    found, item, rest, items = of(*tasks), 0.0, 0.0, []
    for d in tasks:
        s, n = d.shape
        left = [d[i, j] - d[i].mean() - d[:, j].mean() + d.mean() for i in range(s) for j in range(n)]
        items.append(np.var(d.mean(0), ddof=1) / n / 4)
        item += items[-1]
        rest += sum(x**2 for x in left) / ((s - 1) * (n - 1)) / (s * n) / 4
    seed = np.var((tasks[0].mean(1) + tasks[1].mean(1)) / 2, ddof=1) / 3
    both = item + max(0, seed - rest)
    freedom = both**2 / (seed**2 / 2 + items[0] ** 2 / 6 + items[1] ** 2 / 11)
    assert np.allclose(found.variance_estimates, [(seed, 2), (both, freedom)])
    assert isclose(found.mean, (tasks[0].mean() + tasks[1].mean()) / 2)
    assert (found.num_seeds, found.num_examples) == (3, 19)
    assert isclose(found.compute_half_width(), max(stdtrit(f, 0.975) * sqrt(v) for v, f in found.variance_estimates))


def test_the_variance_of_the_mean_is_estimated_without_bias():
    draw, s, n, sizes = np.random.default_rng(2), 4, 15, (0.3, 0.5, 0.7)
    found = []
    for _ in range(1500):
        seed, item, rest = (draw.normal(0, size, shape) for size, shape in zip(sizes, ((s, 1), n, (s, n)), strict=True))
        found.append(of(seed + item + rest).variance_estimates[1].variance)
    true = sizes[0] ** 2 / s + sizes[1] ** 2 / n + sizes[2] ** 2 / (s * n)
    assert isclose(np.mean(found), true, rel_tol=0.06)


def test_the_p_value_is_below_a_level_exactly_where_the_interval_leaves_zero_out():
    draw = np.random.default_rng(3)
    for _ in range(200):
        found = of(draw.normal(draw.choice([0, 0.3, 1]), draw.choice([0.1, 1]), (3, 8)) + draw.normal(0, 0.3, (3, 1)))
        for level in (0.95, 0.8):
            low, high = found.compute_interval(level)
            assert (found.compute_p_value() < 1 - level) == (low > 0 or high < 0)


def test_one_seed_has_no_interval_and_no_scatter_is_no_doubt():
    alone = of(np.ones((1, 9)))
    assert (
        alone.mean,
        alone.compute_half_width(),
        alone.compute_interval(),
        alone.compute_p_value(),
        alone.compute_detectable_difference(),
    ) == (1.0, None, None, None, None)
    same = of(np.zeros((3, 9)))
    assert (same.mean, same.compute_half_width(), same.compute_p_value()) == (0.0, 0.0, 1.0)
    assert of(np.ones((3, 9))).compute_p_value() == 0.0


def test_examples_of_one_document_count_once():
    draw = np.random.default_rng(4)
    single = draw.random((3, 20))
    doubled, groups = np.repeat(single, 3, axis=1), np.repeat(np.arange(20), 3)
    assert np.allclose(aggregate_by_group(doubled, groups), single)
    assert not np.allclose(of(doubled).variance_estimates[1].variance, of(single).variance_estimates[1].variance)
    uneven = np.array(["a", "b", "b", "c", "c", "c"])
    values = draw.random((2, 6))
    found = aggregate_by_group(values, uneven)
    assert np.allclose(found.mean(1), values.mean(1))
    mean = values.mean(1)
    sums = [(values[:, uneven == name] - mean[:, None]).sum(1) for name in "abc"]
    assert np.allclose(found.var(axis=1, ddof=1) / 3, 3 / 2 * sum(total**2 for total in sums) / 36)
    assert aggregate_by_group(values, np.arange(6)) is values


def test_the_bootstrap_draws_seeds_and_examples():
    draw = np.random.default_rng(5)
    tasks = [draw.normal(0, 1, (6, n)) + draw.normal(0, 0.4, (6, 1)) + draw.normal(0, 1, n) for n in (30, 50)]
    variance = 0.0
    for d in tasks:  # examples are drawn for each task, with rows and columns of the two-way table apart
        s, n = d.shape
        row, column = d.mean(1) - d.mean(), d.mean(0) - d.mean()
        left = d - d.mean() - row[:, None] - column
        variance += ((column**2).sum() / n**2 + (left**2).sum() / (s * n) ** 2) / 4
    by_seed = (tasks[0].mean(1) + tasks[1].mean(1)) / 2
    variance += ((by_seed - by_seed.mean()) ** 2).sum() / 36
    low, high = compute_bootstrap_interval(tasks, num_resamples=6000)
    assert isclose((high - low) / 2, 1.96 * sqrt(variance), rel_tol=0.06)
    assert (
        compute_bootstrap_interval(tasks, num_resamples=300)
        == compute_bootstrap_interval(tasks, num_resamples=300)
        != compute_bootstrap_interval(tasks, num_resamples=300, seed=1)
    )


# -------------------------------------------------------------------- promises, in simulation


def simulated(draw: np.random.Generator, methods: int, tasks: int, shape: tuple[int, int], seed: float, own: float):
    """Right or wrong of methods that are alike in law: [methods, S, n] per task."""
    s, n = shape
    for _ in range(tasks):
        logit = draw.normal(0.5, 1, n) + draw.normal(0, own, (methods, 1, n)) + draw.normal(0, seed, (methods, s, 1))
        yield (draw.random((methods, s, n)) < 1 / (1 + np.exp(-logit))).astype(float)


@pytest.mark.parametrize(
    ("shape", "seed", "own"), [((3, 80), 0.5, 0.5), ((3, 80), 1.0, 1.0), ((5, 120), 0.3, 1.0), ((5, 60), 0.5, 0.5)]
)
def test_nominal_95_percent_intervals_cover(shape: tuple[int, int], seed: float, own: float):
    draw, held, grids = np.random.default_rng(6), 0, 2000
    for _ in range(grids):
        low, high = of(*(a - b for a, b in simulated(draw, 2, 3, shape, seed, own))).compute_interval()
        held += low <= 0 <= high
    assert 0.93 <= held / grids <= 0.97


@pytest.mark.parametrize(("seeds", "shares"), [
    (seeds, shares) for seeds in (3, 5)
    for shares in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0.8, 0.2, 0), (0.5, 0.5, 0), (0.8, 0, 0.2), (0.3, 0.3, 0.4))
])  # fmt: skip
def test_no_mixture_of_seeds_examples_and_the_rest_is_covered_too_little(seeds: int, shares: tuple[float, ...]):
    """Many examples: then the estimates of a mean of variance 1 are chi-squared draws, and no grid is needed."""
    draw, count, (seed, item, rest) = np.random.default_rng(7), 3000, shares
    chance = draw.chisquare(seeds - 1, count) / (seeds - 1)
    means = draw.normal(0, 1, count)
    for level, least in ((0.95, 0.935), (0.998, 0.995)):
        held = 0
        for mean, luck in zip(means, chance, strict=True):
            alone, items = (seed + rest) * luck, item + rest
            both = items + max(0.0, alone - rest)
            spreads = (
                VarianceEstimate(alone, seeds - 1),
                VarianceEstimate(both, both**2 / (alone**2 / (seeds - 1)) if alone else inf),
            )
            held += abs(mean) <= PairedDifference(mean, seeds, 0, spreads).compute_half_width(level)
        assert least <= held / count


def test_under_the_null_tie_groups_split_at_most_one_time_in_twenty():
    draw, names, split, grids = np.random.default_rng(8), list("abcde"), 0, 400
    for _ in range(grids):
        tasks = list(simulated(draw, 5, 2, (3, 50), 0.7, 0.5))
        gaps = {(names[i], names[j]): of(*(x[i] - x[j] for x in tasks)) for i, j in combinations(range(5), 2)}
        split += len(set(find_tie_groups(names, gaps).values())) > 1
    assert 0 < split / grids <= 0.05  # and it is not zero: it could split


def test_a_difference_of_the_detectable_size_is_found_four_times_in_five():
    for variance, freedom in ((0.01, 2), (0.3, 7.5), (2.0, 1e6)):
        gap = PairedDifference(0, 3, 9, (VarianceEstimate(variance, freedom),))
        for level in (0.95, 0.99):
            shift = gap.compute_detectable_difference(level) / sqrt(variance)
            bound = stdtrit(freedom, (1 + level) / 2)
            assert isclose(scipy.stats.nct.sf(bound, freedom, shift), 0.8, abs_tol=1e-3)
    normal = PairedDifference(0, 3, 9, (VarianceEstimate(1.0, inf),))
    assert isclose(normal.compute_detectable_difference(), 1.959964 + 0.841621, rel_tol=1e-5)


# -------------------------------------------------------------------- many comparisons, ranks


def test_holm_by_hand():
    assert np.allclose(apply_holm_correction([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert apply_holm_correction([0.9, 0.6]) == [1.0, 1.0]
    assert apply_holm_correction([]) == []


def test_letters_are_shared_exactly_where_two_are_not_told_apart():
    assert assign_letters(["a", "b", "c"], [("a", "c")]) == {"a": "a", "b": "ab", "c": "b"}
    assert assign_letters(["a", "b"], []) == {"a": "a", "b": "a"}
    draw, names = np.random.default_rng(9), list("pqrstu")
    for _ in range(200):
        different = [pair for pair in combinations(names, 2) if draw.random() < 0.4]
        letters = assign_letters(names, different)
        groups = [{name for name in names if letter in letters[name]} for letter in set("".join(letters.values()))]
        assert letters[names[0]].startswith("a")
        assert not any(group < other for group in groups for other in groups)
        for a, b in combinations(names, 2):
            assert bool(set(letters[a]) & set(letters[b])) == ((a, b) not in different)


def test_tie_groups_are_corrected_for_the_number_of_pairs():
    def gap(p: float) -> PairedDifference:
        return PairedDifference(-float(stdtrit(4, p / 2)), 5, 9, (VarianceEstimate(1.0, 4),))

    pairs = {("a", "b"): gap(0.03), ("a", "c"): gap(0.02), ("b", "c"): gap(0.9)}
    assert isclose(2 * stdtr(4, -pairs["a", "b"].mean), 0.03)
    assert set(find_tie_groups("abc", pairs).values()) == {"a"}
    assert find_tie_groups("ab", pairs) == {"a": "a", "b": "b"}
    assert find_tie_groups("ab", {("a", "b"): PairedDifference(0.5, 1, 9, ())}) == {}


def test_ranks_are_friedmans_and_nemenyis():
    scores = np.random.default_rng(10).random((14, 4)).round(1)  # with ties
    found = compute_average_ranks(scores)
    assert np.allclose(found.mean_ranks, scipy.stats.rankdata(-scores, axis=1).mean(0))
    assert isclose(found.p_value, scipy.stats.friedmanchisquare(*scores.T).pvalue)
    assert isclose(found.critical_difference, 2.569 * sqrt(4 * 5 / (6 * 14)), rel_tol=1e-3)  # table 5 of Demsar 2006
    clear = compute_average_ranks(np.array([[0.9, 0.5, 0.1]] * 12))
    assert clear.mean_ranks == [1, 2, 3]
    assert isclose(clear.p_value, scipy.stats.chi2.sf(12 * 2, 2))  # all tasks agree: chi2 = N (k - 1)
    assert compute_average_ranks(np.full((5, 3), 0.5)).p_value == 1.0
    assert compute_average_ranks(scores[:, :2]).p_value is None


def test_bars_join_the_longest_runs_of_ranks_within_the_critical_difference():
    assert find_rank_cliques(AverageRanks([1.0, 1.5, 2.4, 3.0, 5.0], None, 1.0, 9)) == [(0, 1), (1, 2), (2, 3)]
    assert find_rank_cliques(AverageRanks([1.0, 1.5, 2.0, 2.5], None, 1.0, 9)) == [(0, 2), (1, 3)]
    assert find_rank_cliques(AverageRanks([1.0, 3.0], None, 1.0, 9)) == []
    draw = np.random.default_rng(11)
    for _ in range(100):
        means = sorted(draw.uniform(1, 8, 7))
        bars, gap = find_rank_cliques(AverageRanks(means, None, 1.5, 9)), 1.5
        for a, b in combinations(range(7), 2):
            joined = any(first <= a and b <= last for first, last in bars)
            assert joined == (means[b] - means[a] <= gap)
