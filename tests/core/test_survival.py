"""Times until something happens, against SciPy and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from ockham.core.statistics import t_interval
from ockham.core.survival import profile, profile_score, ratios, survival

TIMES = [6.0, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
#: Freireich et al. 1963, remission under 6-MP: the textbook example of the estimate.
HAPPENED = [bool(one) for one in (1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0)]


def test_shares_and_band_are_those_of_scipy() -> None:
    estimate = survival(TIMES, HAPPENED)
    uncensored = [time for time, event in zip(TIMES, HAPPENED, strict=True) if event]
    censored = [time for time, event in zip(TIMES, HAPPENED, strict=True) if not event]
    reference = stats.ecdf(stats.CensoredData(uncensored=uncensored, right=censored)).sf
    interval = reference.confidence_interval(0.95, method="log-log")
    low, high = estimate.band
    assert estimate.share == pytest.approx(reference.evaluate(estimate.times))
    assert low == pytest.approx(interval.low.evaluate(estimate.times))
    assert high == pytest.approx(interval.high.evaluate(estimate.times))
    assert estimate.share_at(5.9) == 1
    assert estimate.share_at(6) == pytest.approx(18 / 21)
    assert estimate.median() == (23.0, 13.0, math.inf), "as R's survfit with conf.type='log-log' has it"


def test_without_censoring_it_is_the_empirical_distribution_and_the_t_interval() -> None:
    times = [3.0, 5, 5, 8, 12, math.inf]
    estimate = survival(times, [math.isfinite(time) for time in times])
    assert [estimate.share_at(time) for time in (2, 3, 5, 8, 12, 99)] == pytest.approx([1, 5 / 6, 3 / 6, 2 / 6, 1 / 6, 1 / 6])
    mean, low, high = estimate.restricted_mean(10.0)
    restricted = [min(time, 10.0) for time in times]
    assert mean == pytest.approx(np.mean(restricted))
    assert (low, high) == pytest.approx(t_interval(restricted))


def test_one_run_and_none_that_gets_there() -> None:
    mean, low, high = survival([4.0], [True]).restricted_mean(10)
    assert mean == 4
    assert math.isnan(low)
    assert math.isnan(high)
    never = survival([math.inf] * 3, [False] * 3)
    assert never.median() == (math.inf, math.inf, math.inf)
    assert never.restricted_mean(10) == (10, 10, 10)
    with pytest.raises(ValueError, match="no runs"):
        survival([], [])


def test_profiles_and_their_score_by_hand() -> None:
    table = ratios([[10, 40, math.inf, math.inf], [20, 10, 30, math.inf]])
    assert table.tolist() == [[1, 4, math.inf, math.inf], [2, 1, 1, math.inf]]
    assert [profile(table[0], ratio) for ratio in (1, 3.9, 4)] == [0.25, 0.25, 0.5]
    # The area under steps 0.25 over (1, 4); under 0.5 over (1, 2) and 0.75 over (2, 4); over the width 3.
    assert profile_score(table[0]) == pytest.approx(0.25)
    assert profile_score(table[1]) == pytest.approx((0.5 * 1 + 0.75 * 2) / 3)
    assert profile_score([1, 1]) == 1
