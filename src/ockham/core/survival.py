"""How long until something happens, where it has not happened to all by the end of what was seen; no torch here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

from ockham.core.statistics import LEVEL


@dataclass(frozen=True)
class Survival:
    """The share of runs to which it has not happened (Kaplan and Meier 1958), as steps that begin at `times`.

    `at_risk` are those seen until then, `events` those to which it happens then, all (k,). Where all are seen to one end, this
    is 1 minus the empirical distribution.
    """

    times: np.ndarray
    at_risk: np.ndarray
    events: np.ndarray
    n: int

    @cached_property
    def share(self) -> np.ndarray:
        """S(t) from each of the times on, (k,)."""
        return np.cumprod(1 - self.events / self.at_risk)

    @cached_property
    def band(self) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the 95% interval of S(t) at each of the times, (k,) each: Greenwood's variance on the scale of
        log(-log S), which stays within 0 and 1 (Kalbfleisch and Prentice 2002). NaN where S is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = np.cumsum(self.events / (self.at_risk * (self.at_risk - self.events)))
            half = special.ndtri(1 - LEVEL / 2) * np.sqrt(variance) / np.log(self.share)
            return self.share ** np.exp(-half), self.share ** np.exp(half)

    def share_at(self, time: float) -> float:
        """S at a time."""
        position = int(np.searchsorted(self.times, time, side="right"))
        return float(self.share[position - 1]) if position else 1.0

    def median(self) -> tuple[float, float, float]:
        """When it has happened to half of them, and the ends of the 95% interval of that (Brookmeyer and Crowley 1982): where
        the ends of the band come to a half. Infinite where they do not."""
        low, high = self.band

        def first(values: np.ndarray) -> float:
            below = np.flatnonzero(np.where(np.isnan(values), self.share, values) <= 0.5 + 1e-12)
            return float(self.times[below[0]]) if len(below) else math.inf

        return first(self.share), first(low), first(high)

    def restricted_mean(self, until: float) -> tuple[float, float, float]:
        """The mean time, of which no more than `until` is counted, and the ends of its 95% interval: the area under S.

        Where all are seen until then, it is the mean of min(time, until) with Student's t interval. NaN ends for a single run.
        """
        inside = self.times < until
        edges = np.concatenate([[0.0], self.times[inside], [until]])
        areas = np.concatenate([[1.0], self.share[inside]]) * np.diff(edges)
        mean = float(areas.sum())
        if self.n < 2:
            return mean, math.nan, math.nan
        after = np.cumsum(areas[::-1])[::-1][1:]  # the area to the right of each time
        at_risk, events = self.at_risk[inside], self.events[inside]
        remain = at_risk > events
        parts = after[remain] ** 2 * events[remain] / (at_risk[remain] * (at_risk[remain] - events[remain]))
        variance = float(parts.sum()) * self.n / (self.n - 1)
        half = float(special.stdtrit(self.n - 1, 1 - LEVEL / 2)) * math.sqrt(variance)
        return mean, mean - half, mean + half


def survival(times: Sequence[float], happened: Sequence[bool]) -> Survival:
    """Of runs that were seen for `times`, at the end of which it `happened` or was not seen; infinite where it never does.

    Raises ValueError for no runs.
    """
    if not times:
        raise ValueError("there are no runs to tell a time of")
    seen, events = np.asarray(times, dtype=np.float64), np.asarray(happened, dtype=bool)
    distinct = np.unique(seen[events])
    at_risk = np.array([(seen >= time).sum() for time in distinct], dtype=np.float64)
    counts = np.array([(events & (seen == time)).sum() for time in distinct], dtype=np.float64)
    return Survival(distinct, at_risk, counts, len(seen))


#: AlgoPerf's score counts what takes up to so many times as long as the quickest (Dahl et al. 2023).
MOST_RATIO = 4.0


def ratios(times: Sequence[Sequence[float]]) -> np.ndarray:
    """The time of each solver on each problem over that of the quickest there, (solvers, problems), from such times.

    Infinite where a solver does not get there, also where none does.
    """
    table = np.asarray(times, dtype=np.float64)
    quickest = table.min(axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(table), table / quickest, math.inf)


def profile(ratios_of_solver: Sequence[float], ratio: float) -> float:
    """The share of problems on which a solver takes at most `ratio` times as long as the quickest (Dolan and More 2002)."""
    return float((np.asarray(ratios_of_solver) <= ratio).mean())


def profile_score(ratios_of_solver: Sequence[float]) -> float:
    """The mean of the profile over ratios from 1 to MOST_RATIO, AlgoPerf's score: 1 for one that is quickest everywhere."""
    left = np.clip((MOST_RATIO - np.asarray(ratios_of_solver)) / (MOST_RATIO - 1), 0, None)
    return float(left.mean())
