"""What a few repeated runs say about a mean and about a difference; no torch here."""

import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import special  # of scipy.stats, which takes three times as long to import, no more than these functions is used

#: A p below it is taken for a difference, and intervals are as wide as goes with it.
LEVEL = 0.05
CONFIDENCE = 1 - LEVEL
RESAMPLES = 10_000
#: Up to so many pairs all patterns of signs are counted; beyond, as many as RESAMPLES are drawn.
EXACT_PAIRS = 14
POWER = 0.8


def t_interval(values: Sequence[float], *, level: float = LEVEL) -> tuple[float, float]:
    """Student's t interval for the mean of at least two values, which misses it with probability `level`; NaN for fewer, and
    where a value is not finite."""
    if len(values) < 2 or not _all_finite(values):
        return (math.nan, math.nan)
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    half = float(special.stdtrit(len(values) - 1, 1 - level / 2)) * error
    return (mean - half, mean + half)


def bounded(interval: tuple[float, float]) -> tuple[float, float]:
    """The part of it in which a share lies, such as an accuracy: Student's t knows no bounds, the quantity does.

    What is not known stays NaN.
    """
    low, high = interval
    return max(low, 0.0), min(high, 1.0)


def paired_t_p(differences: Sequence[float]) -> float:
    """Two-sided p of the paired t test: as if the differences were normal draws around 0 (Student 1908).

    NaN for fewer than two differences, where one is not finite, and where they have no spread to judge by.
    """
    if len(differences) < 2 or not _all_finite(differences) or not _has_spread(differences):
        return math.nan
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return float(2 * special.stdtr(len(differences) - 1, -abs(statistics.fmean(differences)) / error))


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """Percentile bootstrap of the mean (Efron 1979), with a fixed seed; NaN for fewer than two, and where one is not finite.

    Below about ten values it is too narrow; the t interval is the one to quote.
    """
    if len(values) < 2 or not _all_finite(values):
        return (math.nan, math.nan)
    means = np.asarray(values)[_resamples(len(values))].mean(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return (float(low), float(high))


@lru_cache(maxsize=4)  # a report asks for the same number of seeds again and again
def _resamples(n: int) -> np.ndarray:
    """The positions that each resample of n values takes, (RESAMPLES, n)."""
    return np.random.default_rng(0).integers(n, size=(RESAMPLES, n))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of the mean difference of pairs, were each sign a coin's: exact up to EXACT_PAIRS pairs (Fisher 1935).

    With n pairs it is never below `smallest_sign_flip_p`. NaN without pairs, and where a difference is not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n == 0 or not _all_finite(differences):
        return math.nan
    if n <= EXACT_PAIRS:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        extra = 0
    else:
        signs = np.random.default_rng(0).choice([-1, 1], size=(RESAMPLES, n))
        extra = 1  # the pattern that was observed
    sums, observed = np.abs(signs @ values), abs(values.sum())
    as_far = int((sums >= observed - 1e-12 * np.abs(values).sum()).sum())
    return (as_far + extra) / (len(signs) + extra)


def smallest_sign_flip_p(n: int) -> float:
    """The p of n pairs that all point the same way: five cannot show p < 0.05, six can."""
    return 2.0 / 2**n if n <= EXACT_PAIRS else 1 / (RESAMPLES + 1)


def probability_higher(first: Sequence[float], second: Sequence[float]) -> float:
    """The share of all pairs of a value of each where the first is higher, ties counted half (Mann and Whitney 1947).

    Infinite values have their place in the order; with NaN, which has none, the answer is NaN.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if np.isnan(one).any() or np.isnan(other).any():
        return math.nan
    return float(np.greater.outer(one, other).mean() + np.equal.outer(one, other).mean() / 2)


def price_of_looks(looks: int) -> float:
    """By how much a p value grows, and the level of an interval shrinks, at a look at results that are added to until they
    suffice; 1 where nothing is added (0 looks).

    The level at look k is LEVEL * 6 / (pi k)^2. These levels sum to LEVEL, so that all looks together are wrong with
    probability LEVEL at most (a union bound).
    """
    return (math.pi * looks) ** 2 / 6 if looks else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979): below 0.05 holds for all of them together. NaN is no test, and stays."""
    adjusted = [math.nan] * len(p_values)
    known = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(p * (len(known) - rank), 1.0))
        adjusted[index] = highest
    return adjusted


def pairs_needed(differences: Sequence[float], *, comparisons: int = 1, limit: int = 10_000) -> int | None:
    """How many pairs a paired t test would need to show a difference of this mean and spread with a power of 80%.

    With several `comparisons` at the level that the first of them has to reach under Holm's correction. None where there is no
    difference to show, no spread to judge it by, a value that is not finite, or more than `limit` would be needed.
    """
    if len(differences) < 2 or not _all_finite(differences) or not _has_spread(differences):
        return None
    effect = abs(statistics.fmean(differences)) / statistics.stdev(differences)
    if effect == 0:
        return None

    def suffice(pairs: int) -> bool:
        critical = special.stdtrit(pairs - 1, 1 - LEVEL / comparisons / 2)
        missed = special.nctdtr(pairs - 1, effect * math.sqrt(pairs), critical)
        return not missed > 1 - POWER  # NaN is a share of misses too small for a number

    counts = range(2, limit + 1)
    position = bisect_left(counts, True, key=suffice)  # more pairs have more power
    return counts[position] if position < len(counts) else None


def half_width(n: int, deviation: float, *, level: float = LEVEL) -> float:
    """How far Student's interval for a mean of n values of this standard deviation reaches to each side; infinity for one."""
    return deviation * float(special.stdtrit(n - 1, 1 - level / 2)) / math.sqrt(n) if n > 1 else math.inf


def best_of(count: int, n: int) -> np.ndarray:
    """P(the highest of n of `count` values, drawn without replacement, is the i-th smallest of all), (count,).

    Its mean over the sorted values is the expected best result of a random search with a budget of n trials (Dodge et al. 2019,
    here without replacement, which is unbiased). Raises ValueError where n is not between 1 and `count`.
    """
    if not 1 <= n <= count:
        raise ValueError(f"a budget of {n} out of {count} trials")
    below = np.arange(count)
    with np.errstate(invalid="ignore"):  # of those below which there are too few
        logarithms = _log_choices(below, n - 1) - _log_choices(count, n)
    return np.where(below >= n - 1, np.exp(logarithms), 0.0)


def _log_choices(count: Any, n: int) -> Any:
    """The logarithm of the number of ways to choose n: the number itself is beyond floats for a thousand trials."""
    return special.gammaln(count + 1.0) - special.gammaln(n + 1.0) - special.gammaln(count - n + 1.0)


def probabilities_best(arms: Sequence[Sequence[float]], n: int) -> list[float]:
    """For each arm, P(its best of n of its values is the highest of all arms), equal values sharing it; the sum is 1."""
    ordered = [np.sort(np.asarray(values, dtype=np.float64)) for values in arms]
    sums = [np.concatenate(([0.0], np.cumsum(best_of(len(values), n)))) for values in ordered]

    def below(position: int, values: np.ndarray) -> np.ndarray:
        """P(the best of an arm is below each of the values), one that is equal counted half."""
        ends = (np.searchsorted(ordered[position], values, side=side) for side in ("left", "right"))
        low, high = (sums[position][end] for end in ends)
        return (low + high) / 2

    shares = []
    for position, values in enumerate(ordered):
        others = [below(other, values) for other in range(len(arms)) if other != position]
        shares.append(float((np.diff(sums[position]) * np.prod(others, axis=0)).sum()))
    return [share / sum(shares) for share in shares]


def _all_finite(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) for value in values)


def _has_spread(differences: Sequence[float]) -> bool:
    """Whether at least two values differ by more than rounding. A few scores on a few hundred images often agree by chance."""
    return statistics.stdev(differences) > max(1e-9 * abs(statistics.fmean(differences)), 1e-12)


@dataclass(frozen=True)
class Comparison:
    """Two configurations over the seeds (and folds) that both have, as one of several comparisons that are read together."""

    differences: tuple[float, ...]
    """First minus second, pair by pair."""
    low: float
    high: float
    """The ends of the t interval of their mean, for this comparison by itself."""
    p: float
    """Of the paired t test, adjusted for the number of `comparisons` (Holm): what decides."""
    sign_flip_p: float
    """Of the test that assumes no distribution, not adjusted."""
    probability_higher: float
    comparisons: int = 1

    @property
    def n(self) -> int:
        return len(self.differences)

    @property
    def mean(self) -> float:
        """NaN where a difference is not finite."""
        return statistics.fmean(self.differences) if self.is_finite else math.nan

    @property
    def is_finite(self) -> bool:
        return _all_finite(self.differences)

    @property
    def spread_is_known(self) -> bool:
        return self.n > 1 and self.is_finite and _has_spread(self.differences)

    @property
    def distinguishable(self) -> bool:
        """Whether chance is ruled out, for all comparisons together; never where a value is not finite."""
        return self.p < LEVEL

    @property
    def pairs_needed(self) -> int | None:
        return pairs_needed(self.differences, comparisons=self.comparisons)


def compare(first: Sequence[float], second: Sequence[float], *, looks: int = 0) -> Comparison:
    """Compare values that belong together pair by pair, at the `looks`-th look where more are added until they suffice.

    Raises ValueError for lists of unequal length or without a pair.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} values are no pairs")
    differences = tuple(a - b for a, b in zip(first, second, strict=True))
    low, high = t_interval(differences, level=LEVEL / price_of_looks(looks))
    p = paired_t_p(differences) * price_of_looks(looks)
    return Comparison(
        differences,
        low=low,
        high=high,
        p=p if math.isnan(p) else min(p, 1.0),
        sign_flip_p=sign_flip_p(differences),
        probability_higher=probability_higher(first, second),
    )


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons as a family: their p adjusted for how many of them have one (Holm)."""
    adjusted = holm([comparison.p for comparison in comparisons])
    number = sum(not math.isnan(p) for p in adjusted)
    return [replace(comparison, p=p, comparisons=max(number, 1)) for comparison, p in zip(comparisons, adjusted, strict=True)]
