"""What a few repeated runs say about a mean and about a difference; no torch here."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 10_000
#: Up to so many pairs all patterns of signs are counted; beyond, as many as RESAMPLES are drawn.
EXACT_PAIRS = 14
POWER = 0.8


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's t interval for the mean of at least two values; NaN for fewer."""
    if len(values) < 2:
        return (math.nan, math.nan)
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return (mean - half, mean + half)


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """Percentile bootstrap of the mean (Efron 1979), with a fixed seed; NaN for fewer than two values.

    Below about ten values it is too narrow; the t interval is the one to quote.
    """
    if len(values) < 2:
        return (math.nan, math.nan)
    drawn = np.random.default_rng(0).choice(np.asarray(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(drawn.mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return (float(low), float(high))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of the mean difference of pairs, were each sign a coin's: exact up to EXACT_PAIRS pairs (Fisher 1935).

    With n pairs it is never below 2 / 2^n: five seeds cannot show p < 0.05. NaN without pairs.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n == 0:
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


def probability_higher(first: Sequence[float], second: Sequence[float]) -> float:
    """The share of all pairs of a value of each where the first is higher, ties counted half (Mann and Whitney 1947)."""
    difference = np.subtract.outer(np.asarray(first), np.asarray(second))
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979): below 0.05 holds for all of them together."""
    adjusted = [math.nan] * len(p_values)
    known = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(p * (len(known) - rank), 1.0))
        adjusted[index] = highest
    return adjusted


def pairs_needed(differences: Sequence[float], *, limit: int = 10_000) -> int | None:
    """How many pairs a paired t test would need to show a difference of this mean and spread with a power of 80%.

    None where there is no difference to show, no spread to judge it by, or more than `limit` would be needed.
    """
    mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
    if mean == 0 or deviation <= 1e-9 * abs(mean):
        return None
    effect = abs(mean) / deviation
    counts = np.arange(2, limit + 1)
    critical = stats.t.ppf((1 + CONFIDENCE) / 2, counts - 1)
    enough = np.flatnonzero(stats.nct.sf(critical, counts - 1, effect * np.sqrt(counts)) >= POWER)
    return int(counts[enough[0]]) if len(enough) else None


@dataclass(frozen=True)
class Comparison:
    """Two configurations over the seeds (and folds) that both have: first minus second."""

    n: int
    mean: float
    low: float
    high: float
    p: float
    probability_higher: float
    pairs_needed: int | None

    @property
    def spread_is_known(self) -> bool:
        """Whether the pairs differ at all. A few scores on a few hundred images often agree by chance, which proves nothing."""
        return self.n > 1 and not math.isclose(self.low, self.high, rel_tol=1e-9, abs_tol=1e-12)

    @property
    def distinguishable(self) -> bool:
        return self.spread_is_known and not self.low <= 0 <= self.high


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compare values that belong together pair by pair. Raises ValueError for lists of unequal length or without a pair."""
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} values are no pairs")
    differences = [a - b for a, b in zip(first, second, strict=True)]
    low, high = t_interval(differences)
    return Comparison(
        n=len(differences),
        mean=statistics.fmean(differences),
        low=low,
        high=high,
        p=sign_flip_p(differences),
        probability_higher=probability_higher(first, second),
        pairs_needed=pairs_needed(differences) if len(differences) > 1 else None,
    )
