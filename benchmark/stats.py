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

from benchmark.table import LEVEL

POWER = 0.8
Pair = tuple[str, str]


class Spread(NamedTuple):
    """One estimate of how a mean scatters."""

    variance: float
    freedom: float  # degrees


class Difference(NamedTuple):
    """A mean paired difference in the metric's own 0..1, and what its interval rests on."""

    mean: float
    seeds: int
    examples: int
    spreads: tuple[Spread, ...]  # the one that gives the wider interval counts; none where one seed says nothing

    def half(self, level: float = LEVEL) -> float | None:
        """Half the width of the interval."""
        return max((float(stdtrit(f, (1 + level) / 2)) * sqrt(v) for v, f in self.spreads), default=None)

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        half = self.half(level)
        return None if half is None else (self.mean - half, self.mean + half)

    def p(self, null: float = 0.0) -> float | None:
        """Two-sided, of a true difference of `null`: below 1 - level exactly where the interval leaves it out."""
        gap = abs(self.mean - null)
        return max((_tail(gap, v, f) for v, f in self.spreads), default=None)

    def detectable(self, level: float = LEVEL, power: float = POWER) -> float | None:
        """The smallest true difference that a design like this one finds with this probability."""
        return max((_smallest(v, f, level, power) for v, f in self.spreads), default=None)


def _tail(gap: float, variance: float, freedom: float) -> float:
    if variance == 0:  # every seed and example says the same
        return 1.0 if gap < 1e-12 else 0.0
    return 2 * float(stdtr(freedom, -gap / sqrt(variance)))


def _smallest(variance: float, freedom: float, level: float, power: float) -> float:
    """delta with P(T > t) = power for T noncentral t at delta / se; the other tail adds less than 1e-4."""
    return float(nctdtrinc(freedom, 1 - power, stdtrit(freedom, (1 + level) / 2))) * sqrt(variance)


def clustered(scores: np.ndarray, groups: Sequence[str] | np.ndarray) -> np.ndarray:
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


class Part(NamedTuple):
    """What the difference on one task contributes."""

    by_seed: np.ndarray  # [S] means over examples
    item: float  # variance of the mean from other examples
    rest: float  # variance of the mean from neither seed nor example alone
    examples: int


def part(d: np.ndarray) -> Part:
    """Of d [S, n]."""
    s, n = d.shape
    by_seed, by_item = d.mean(1), d.mean(0)
    left = d - by_item
    left -= (by_seed - d.mean())[:, None]
    freedom = max(1, (s - 1) * (n - 1))
    return Part(
        by_seed, float(by_item.var(ddof=1)) / n if n > 1 else 0.0, float(np.vdot(left, left)) / freedom / s / n, n
    )


def combined(parts: Sequence[Part], *, seedless: bool = False) -> Difference:
    """The mean over tasks; `seedless`: neither method's answers depend on a seed."""
    count, by_seed = len(parts), np.mean([one.by_seed for one in parts], axis=0)
    seeds, mean, examples = len(by_seed), float(by_seed.mean()), sum(one.examples for one in parts)
    if (seeds < 2 and not seedless) or min(one.examples for one in parts) < 2:
        return Difference(mean, seeds, examples, ())
    item = sum(one.item for one in parts) / count**2
    spent = sum((one.item / count**2) ** 2 / (one.examples - 1) for one in parts)
    if seedless:
        return Difference(mean, seeds, examples, (Spread(item, item**2 / spent if spent else inf),))
    seed, rest = float(by_seed.var(ddof=1)) / seeds, sum(one.rest for one in parts) / count**2
    both, spent = item + max(0.0, seed - rest), spent + seed**2 / (seeds - 1)
    alone = Spread(seed, seeds - 1)
    return Difference(mean, seeds, examples, (alone, Spread(both, both**2 / spent if spent else inf)))


def bootstrap(
    tasks: Sequence[np.ndarray], *, draws: int = 2000, seed: int = 0, level: float = LEVEL
) -> tuple[float, float]:
    """Percentile interval of the mean over tasks of d [S, n]."""
    low, high = np.quantile(resampled(tasks, draws=draws, seed=seed), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled(tasks: Sequence[np.ndarray], *, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """Means over tasks of d [..., S, n] -> [draws, ...], seeds and examples of each task drawn with replacement.

    Whatever stands before S, as methods, shares the draws and so stays paired.
    """
    draw = np.random.default_rng(seed)
    seeds = tasks[0].shape[-2]
    chosen = draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds  # [draws, S] weights
    total = np.zeros((draws, *tasks[0].shape[:-2]))
    for d in tasks:
        n = d.shape[-1]
        for first in range(0, draws, 256):  # a block of draws at a time: a task may have 10,000 examples
            part = chosen[first : first + 256]
            drawn = draw.integers(n, size=(len(part), n)) + n * np.arange(len(part))[:, None]
            times = np.bincount(drawn.ravel(), minlength=len(part) * n).reshape(len(part), n) / n
            means = (times @ d.reshape(-1, n).T).reshape(len(part), *d.shape[:-1])  # [b, ..., S]
            total[first : first + 256] += np.einsum("b...s,bs->b...", means, part)
    return total / len(tasks)


# -------------------------------------------------------------------- many comparisons


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number: at any level, one false finding among them all is no likelier than that."""
    order = np.argsort(values)
    steps = np.asarray(values)[order] * np.arange(len(values), 0, -1)
    found = np.empty(len(values))
    found[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return found.tolist()


def ties(names: Sequence[str], different: Sequence[Pair]) -> dict[str, str]:
    """Letters, best name first: two names share one exactly where they are not told apart (Piepho 2004)."""
    groups = [frozenset(names)]
    for a, b in different:
        split = [part for group in groups for part in ((group - {a}, group - {b}) if {a, b} <= group else (group,))]
        groups = [group for group in dict.fromkeys(split) if not any(group < other for other in split)]
    place = {name: index for index, name in enumerate(names)}
    groups.sort(key=lambda group: sorted(map(place.get, group)))
    return {name: "".join(_letter(i) for i, group in enumerate(groups) if name in group) for name in names}


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else f"({index + 1})"


def tie_groups(names: Sequence[str], differences: Mapping[Pair, Difference]) -> dict[str, str]:
    """Letters from the differences of all pairs, Holm-corrected; none where a pair has no interval."""
    pairs = list(combinations(names, 2))
    values = [differences[pair].p() for pair in pairs]
    if not pairs or None in values:
        return {}
    corrected = zip(pairs, holm(values), strict=True)
    return ties(names, [pair for pair, p in corrected if p < 1 - LEVEL])


# -------------------------------------------------------------------- ranks


class Ranks(NamedTuple):
    """Average ranks over tasks (1 is best): Friedman's test that all are alike, Nemenyi's smallest real gap."""

    mean: list[float]
    p: float | None  # Friedman's test needs three methods
    gap: float  # the critical difference
    tasks: int


def ranks(scores: np.ndarray, level: float = LEVEL) -> Ranks:
    """Of scores [tasks, methods]; Demsar 2006: gap = q(k, inf) / sqrt 2 * sqrt(k (k + 1) / 6 N)."""
    from scipy.stats import friedmanchisquare, rankdata, studentized_range  # takes a second

    count, k = scores.shape
    found = rankdata(-scores, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = float(friedmanchisquare(*scores.T).pvalue) if k > 2 else None
    quantile = float(studentized_range.ppf(level, k, inf))
    alike = p is not None and np.isnan(p)  # all methods tie on all tasks
    return Ranks(found.mean(0).tolist(), 1.0 if alike else p, quantile / sqrt(2) * sqrt(k * (k + 1) / 6 / count), count)


def cliques(found: Ranks) -> list[tuple[int, int]]:
    """The bars of the critical-difference diagram: first and last place of each longest run that is not told apart.

    Of ranks in order, best first. A run of one is no bar.
    """
    bars: list[tuple[int, int]] = []
    for first, best in enumerate(found.mean):
        last = max(place for place, rank in enumerate(found.mean) if rank - best <= found.gap)
        if last > first and (not bars or last > bars[-1][1]):
            bars.append((first, last))
    return bars
