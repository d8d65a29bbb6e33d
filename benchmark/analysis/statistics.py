"""Paired statistics of scores by example: differences with intervals, corrections, tie groups, ranks, detectable size.

Two methods answer the same test examples with the same seeds, so what is analysed is d[s, i], one minus the other with
seed s on example i. It scatters because other seeds (draws, initialisations, orders) and other examples would have
come out otherwise: d[s, i] = mean + seed[s] + example[i] + rest[s, i]. Over T tasks, which are fixed, with
D[s] the mean of d over the examples of each task and then over tasks:

    by seeds       var D = s2(D[s]) / S                                                             S - 1 degrees
    by both        var D = item + max(0, s2(D[s]) / S - rest)                                       Satterthwaite
                   item = sum_t s2_i(mean_s d_t) / n_t / T2,   rest = sum_t s2(rest_t) / (S n_t) / T2

The first misses that all seeds share the examples, so it covers too little where examples decide. The second has all
three parts, but with S = 3 its degrees of freedom are guessed from a variance of two degrees: it covers 92 % where
seeds decide, and its tails, which Holm's correction reads, are worse. Each is at its best where the other fails, and
an interval or p value here is the wider of the two: coverage of 95 % intervals stays between 94 and 98.8 % over all
mixtures of the three parts, with 3 seeds and with 5, and 99.8 % ones are never below 99.7. The price is power where the
rest decides. A bootstrap over 3 seeds covers 83 % where seeds decide, so `bootstrap` is given as a second view only.
Seeds count as shared by the tasks, because a source stage is: no degrees of freedom are made out of tasks.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import inf, sqrt
from typing import NamedTuple

import numpy as np
from scipy.special import nctdtrinc, stdtr, stdtrit

from benchmark.analysis.intervals import CONFIDENCE_LEVEL

POWER = 0.8
MethodPair = tuple[str, str]


class VarianceEstimate(NamedTuple):
    """One estimate of how a mean scatters."""

    variance: float
    degrees_of_freedom: float  # degrees


class PairedDifference(NamedTuple):
    """A mean paired difference in the metric's own 0..1, and what its interval rests on."""

    mean: float
    num_seeds: int
    num_examples: int
    variance_estimates: tuple[
        VarianceEstimate, ...
    ]  # the one that gives the wider interval counts; none where one seed says nothing

    def compute_half_width(self, level: float = CONFIDENCE_LEVEL) -> float | None:
        """Half the width of the interval."""
        return max((float(stdtrit(f, (1 + level) / 2)) * sqrt(v) for v, f in self.variance_estimates), default=None)

    def compute_interval(self, level: float = CONFIDENCE_LEVEL) -> tuple[float, float] | None:
        half = self.compute_half_width(level)
        return None if half is None else (self.mean - half, self.mean + half)

    def compute_p_value(self, null_difference: float = 0.0) -> float | None:
        """Two-sided, of a true difference of `null`: below 1 - level exactly where the interval leaves it out."""
        gap = abs(self.mean - null_difference)
        return max((_compute_two_sided_p_value(gap, v, f) for v, f in self.variance_estimates), default=None)

    def compute_detectable_difference(self, level: float = CONFIDENCE_LEVEL, power: float = POWER) -> float | None:
        """The smallest true difference that a design like this one finds with this probability."""
        return max((_solve_detectable_difference(v, f, level, power) for v, f in self.variance_estimates), default=None)


def _compute_two_sided_p_value(difference: float, variance: float, degrees_of_freedom: float) -> float:
    if variance == 0:  # every seed and example says the same
        return 1.0 if difference < 1e-12 else 0.0
    return 2 * float(stdtr(degrees_of_freedom, -difference / sqrt(variance)))


def _solve_detectable_difference(variance: float, degrees_of_freedom: float, level: float, power: float) -> float:
    """delta with P(T > t) = power for T noncentral t at delta / se; the other tail adds less than 1e-4."""
    return float(nctdtrinc(degrees_of_freedom, 1 - power, stdtrit(degrees_of_freedom, (1 + level) / 2))) * sqrt(
        variance
    )


def aggregate_by_group(scores: np.ndarray, groups: Sequence[str] | np.ndarray) -> np.ndarray:
    """[s, n] -> [s, g]: one value per sentence or document, whose examples are not independent; the mean is the same.

    The value is linear in the scores: the mean, plus what the group's examples add to it, g / n sum (x - mean).
    """
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    size = place.max() + 1
    if size == scores.shape[1]:
        return scores
    mean = scores.mean(1, keepdims=True)
    belongs = np.zeros((scores.shape[1], size))
    belongs[np.arange(len(place)), place] = 1
    return mean + size / len(place) * (scores - mean) @ belongs


class TaskContribution(NamedTuple):
    """What the difference on one task contributes."""

    seed_means: np.ndarray  # [S] means over examples
    example_variance: float  # variance of the mean from other examples
    residual_variance: float  # variance of the mean from neither seed nor example alone
    num_examples: int


def compute_task_contribution(score_differences: np.ndarray) -> TaskContribution:
    """Of d [S, n]."""
    s, n = score_differences.shape
    by_seed, by_item = score_differences.mean(1), score_differences.mean(0)
    left = score_differences - by_item
    left -= (by_seed - score_differences.mean())[:, None]
    freedom = max(1, (s - 1) * (n - 1))
    return TaskContribution(
        by_seed, float(by_item.var(ddof=1)) / n if n > 1 else 0.0, float(np.vdot(left, left)) / freedom / s / n, n
    )


def combine_tasks(contributions: Sequence[TaskContribution], *, is_seed_independent: bool = False) -> PairedDifference:
    """The mean over tasks; `seedless`: neither method's answers depend on a seed."""
    count, by_seed = len(contributions), np.mean([one.seed_means for one in contributions], axis=0)
    seeds, mean, examples = len(by_seed), float(by_seed.mean()), sum(one.num_examples for one in contributions)
    if (seeds < 2 and not is_seed_independent) or min(one.num_examples for one in contributions) < 2:
        return PairedDifference(mean, seeds, examples, ())
    item = sum(one.example_variance for one in contributions) / count**2
    spent = sum((one.example_variance / count**2) ** 2 / (one.num_examples - 1) for one in contributions)
    if is_seed_independent:
        return PairedDifference(mean, seeds, examples, (VarianceEstimate(item, item**2 / spent if spent else inf),))
    seed, rest = float(by_seed.var(ddof=1)) / seeds, sum(one.residual_variance for one in contributions) / count**2
    both, spent = item + max(0.0, seed - rest), spent + seed**2 / (seeds - 1)
    alone = VarianceEstimate(seed, seeds - 1)
    return PairedDifference(mean, seeds, examples, (alone, VarianceEstimate(both, both**2 / spent if spent else inf)))


def compute_bootstrap_interval(
    differences_by_task: Sequence[np.ndarray],
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    level: float = CONFIDENCE_LEVEL,
) -> tuple[float, float]:
    """Percentile interval of the mean over tasks of d [S, n]."""
    low, high = np.quantile(
        resample_means(differences_by_task, num_resamples=num_resamples, seed=seed), [(1 - level) / 2, (1 + level) / 2]
    )
    return float(low), float(high)


def resample_means(scores_by_task: Sequence[np.ndarray], *, num_resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Means over tasks of d [..., S, n] -> [draws, ...], seeds and examples of each task drawn with replacement.

    Whatever stands before S, as methods, shares the draws and so stays paired.
    """
    draw = np.random.default_rng(seed)
    seeds = scores_by_task[0].shape[-2]
    chosen = draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=num_resamples) / seeds  # [draws, S] weights
    total = np.zeros((num_resamples, *scores_by_task[0].shape[:-2]))
    for d in scores_by_task:
        n = d.shape[-1]
        for first in range(0, num_resamples, 256):  # a block of draws at a time: a task may have 10,000 examples
            part = chosen[first : first + 256]
            drawn = draw.integers(n, size=(len(part), n)) + n * np.arange(len(part))[:, None]
            times = np.bincount(drawn.ravel(), minlength=len(part) * n).reshape(len(part), n) / n
            means = (times @ d.reshape(-1, n).T).reshape(len(part), *d.shape[:-1])  # [b, ..., S]
            total[first : first + 256] += np.einsum("b...s,bs->b...", means, part)
    return total / len(scores_by_task)


# -------------------------------------------------------------------- many comparisons


def apply_holm_correction(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number: at any level, one false finding among them all is no likelier than that."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    found = np.empty(len(p_values))
    found[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return found.tolist()


def assign_letters(names: Sequence[str], different_pairs: Sequence[MethodPair]) -> dict[str, str]:
    """Letters, best name first: two names share one exactly where they are not told apart (Piepho 2004)."""
    groups = [frozenset(names)]
    for a, b in different_pairs:
        split = [part for group in groups for part in ((group - {a}, group - {b}) if {a, b} <= group else (group,))]
        groups = [group for group in dict.fromkeys(split) if not any(group < other for other in split)]
    place = {name: index for index, name in enumerate(names)}
    groups.sort(key=lambda group: sorted(map(place.get, group)))
    return {name: "".join(_letter(i) for i, group in enumerate(groups) if name in group) for name in names}


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else f"({index + 1})"


def find_tie_groups(names: Sequence[str], differences: Mapping[MethodPair, PairedDifference]) -> dict[str, str]:
    """Letters from the differences of all pairs, Holm-corrected; none where a pair has no interval."""
    pairs = list(combinations(names, 2))
    values = [differences[pair].compute_p_value() for pair in pairs]
    if not pairs or None in values:
        return {}
    corrected = zip(pairs, apply_holm_correction(values), strict=True)
    return assign_letters(names, [pair for pair, p in corrected if p < 1 - CONFIDENCE_LEVEL])


# -------------------------------------------------------------------- ranks


class AverageRanks(NamedTuple):
    """Average ranks over tasks (1 is best): Friedman's test that all are alike, Nemenyi's smallest real gap."""

    mean_ranks: list[float]
    p_value: float | None  # Friedman's test needs three methods
    critical_difference: float  # the critical difference
    num_tasks: int


def compute_average_ranks(scores: np.ndarray, level: float = CONFIDENCE_LEVEL) -> AverageRanks:
    """Of scores [tasks, methods]; Demsar 2006: gap = q(k, inf) / sqrt 2 * sqrt(k (k + 1) / 6 N)."""
    from scipy.stats import friedmanchisquare, rankdata, studentized_range  # takes a second

    count, k = scores.shape
    found = rankdata(-scores, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = float(friedmanchisquare(*scores.T).pvalue) if k > 2 else None
    quantile = float(studentized_range.ppf(level, k, inf))
    alike = p is not None and np.isnan(p)  # all methods tie on all tasks
    return AverageRanks(
        found.mean(0).tolist(), 1.0 if alike else p, quantile / sqrt(2) * sqrt(k * (k + 1) / 6 / count), count
    )


def find_rank_cliques(average_ranks: AverageRanks) -> list[tuple[int, int]]:
    """The bars of the critical-difference diagram: first and last place of each longest run that is not told apart.

    Of ranks in order, best first. A run of one is no bar.
    """
    bars: list[tuple[int, int]] = []
    for first, best in enumerate(average_ranks.mean_ranks):
        last = max(
            place
            for place, rank in enumerate(average_ranks.mean_ranks)
            if rank - best <= average_ranks.critical_difference
        )
        if last > first and (not bars or last > bars[-1][1]):
            bars.append((first, last))
    return bars
