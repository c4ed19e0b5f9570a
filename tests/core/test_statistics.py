import math
from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from ockham.core.statistics import (
    LEVEL,
    best_of,
    bootstrap_interval,
    bounded,
    compare,
    corrected,
    holm,
    paired_t_p,
    pairs_needed,
    price_of_looks,
    probabilities_best,
    probability_higher,
    sign_flip_p,
    smallest_sign_flip_p,
    t_interval,
)

A = [0.91, 0.93, 0.92, 0.95, 0.90, 0.94, 0.935]
B = [0.90, 0.91, 0.93, 0.92, 0.89, 0.93, 0.915]


def test_the_t_interval_is_scipys() -> None:
    expected = stats.ttest_1samp(A, 0).confidence_interval(0.95)
    assert t_interval(A) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert all(math.isnan(end) for end in t_interval([1.0]))


def test_the_interval_of_a_share_ends_where_shares_do() -> None:
    assert bounded((0.9, 1.1)) == (0.9, 1.0)
    assert bounded((-0.1, 0.2)) == (0.0, 0.2)
    assert all(math.isnan(end) for end in bounded((math.nan, math.nan)))


def test_the_bootstrap_interval_is_scipys_up_to_the_draw() -> None:
    values = np.random.default_rng(1).normal(size=40)
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    assert bootstrap_interval(values.tolist()) == pytest.approx((expected.low, expected.high), abs=0.01)


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_the_sign_flip_test_is_scipys_exact_one(n: int) -> None:
    a, b = np.array(A[:n]), np.array(B[:n])
    expected = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True, n_resamples=10_000
    )
    assert sign_flip_p((a - b).tolist()) == pytest.approx(expected.pvalue, abs=1e-12)


def test_the_drawn_sign_flip_test_is_near_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(0).normal(0.3, 1, size=13).tolist()
    exact = sign_flip_p(differences)
    monkeypatch.setattr("ockham.core.statistics.EXACT_PAIRS", 5)
    assert sign_flip_p(differences) == pytest.approx(exact, abs=0.015)


def test_the_smallest_p_of_five_pairs() -> None:
    assert sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0]) == smallest_sign_flip_p(5) == 2 / 2**5
    assert smallest_sign_flip_p(5) > 0.05 > smallest_sign_flip_p(6)
    assert sign_flip_p([1.0] * 20) == smallest_sign_flip_p(20)


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_the_paired_t_test_is_scipys(n: int) -> None:
    differences = [a - b for a, b in zip(A[:n], B[:n], strict=True)]
    assert paired_t_p(differences) == pytest.approx(stats.ttest_rel(A[:n], B[:n]).pvalue, rel=1e-9)
    assert math.isnan(paired_t_p([0.01] * n)), "no spread to judge by"
    assert math.isnan(paired_t_p([0.01]))


def test_the_probability_is_that_of_mann_and_whitney() -> None:
    expected = stats.mannwhitneyu(A, B).statistic / (len(A) * len(B))
    assert probability_higher(A, B) == pytest.approx(expected)
    assert probability_higher([1, 1], [1, 1]) == 0.5


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.6, math.nan, 0.7])[0] == 1.0


def test_the_number_of_pairs_has_the_power_that_it_claims() -> None:
    differences = [0.5, 1.5, -0.5, 1.0, 0.1]
    needed = pairs_needed(differences)
    assert needed is not None
    mean, deviation = np.mean(differences), np.std(differences, ddof=1)
    draws = np.random.default_rng(0).normal(mean, deviation, size=(20_000, needed))
    power = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    fewer = (stats.ttest_1samp(draws[:, :-1], 0, axis=1).pvalue < 0.05).mean()
    assert fewer < 0.8 + 0.01
    assert power > 0.8 - 0.01
    assert pairs_needed([1.0, -1.0]) is None
    of_ten = pairs_needed(differences, comparisons=10)
    assert of_ten is not None
    draws = np.random.default_rng(0).normal(mean, deviation, size=(20_000, of_ten))
    assert (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05 / 10).mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("effect", [0.02, 0.1, 0.5, 2.0, 500.0])
@pytest.mark.parametrize("comparisons", [1, 40])
def test_the_number_of_pairs_is_the_first_whose_power_suffices_by_scipys_distribution(effect: float, comparisons: int) -> None:
    differences = [effect - 1 / math.sqrt(2), effect + 1 / math.sqrt(2)]  # of standard deviation 1
    counts = np.arange(2, 10_001)
    critical = stats.t.ppf(1 - 0.05 / comparisons / 2, counts - 1)
    enough = counts[stats.nct.sf(critical, counts - 1, effect * np.sqrt(counts)) >= 0.8]
    assert pairs_needed(differences, comparisons=comparisons) == (enough[0] if len(enough) else None)


def test_a_comparison_is_paired() -> None:
    rising = [0.1, 0.5, 0.9]
    comparison = compare([0.11, 0.511, 0.909], rising)
    assert comparison.distinguishable
    assert comparison.mean == pytest.approx(0.01)
    assert comparison.p == pytest.approx(stats.ttest_rel([0.11, 0.511, 0.909], rising).pvalue)
    assert comparison.sign_flip_p == 2 / 2**3
    assert compare([0.3], [0.2]).distinguishable is False
    same = compare([value + 0.01 for value in rising], rising)
    assert same.distinguishable is False, "three equal differences have no spread to be judged by"
    assert same.spread_is_known is False
    assert same.pairs_needed is None
    with pytest.raises(ValueError, match="no pairs"):
        compare([1.0, 2.0], [1.0])


def test_a_family_of_comparisons_is_corrected_for_those_that_have_a_p() -> None:
    alone = [compare(A, B), compare(A, [value + 0.001 * i for i, value in enumerate(A)]), compare([0.5] * 7, [0.4] * 7)]
    family = corrected(alone)
    assert [c.p for c in family[:2]] == holm([c.p for c in alone[:2]])
    assert math.isnan(family[2].p)
    assert [c.comparisons for c in family] == [2, 2, 2]
    assert [c.differences for c in family] == [c.differences for c in alone]
    assert corrected([]) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_evidence(bad: float) -> None:
    values = [0.1, 0.2, bad]
    assert all(math.isnan(end) for end in (*t_interval(values), *bootstrap_interval(values)))
    assert math.isnan(sign_flip_p(values))
    assert math.isnan(sign_flip_p([0.1] * 20 + [bad])), "also where patterns are drawn"
    assert math.isnan(paired_t_p(values))
    assert pairs_needed(values) is None
    for first, second in ((values, [0.1, 0.1, 0.1]), ([0.1, 0.1, 0.1], values), (values, values)):
        comparison = compare(first, second)
        assert not comparison.is_finite
        assert not comparison.distinguishable
        assert not comparison.spread_is_known
        assert comparison.pairs_needed is None
        assert all(
            math.isnan(number)
            for number in (comparison.mean, comparison.low, comparison.high, comparison.p, comparison.sign_flip_p)
        )
    assert math.isnan(compare([math.inf, 1.0], [1.0, math.inf]).mean)


def test_infinite_values_have_an_order_and_nan_has_none() -> None:
    assert probability_higher([math.inf, 1.0], [1.0, math.inf]) == 0.5
    assert probability_higher([math.inf, 2.0], [1.0, 1.0]) == 1.0
    assert math.isnan(probability_higher([math.nan, 2.0], [1.0, 1.0]))


def test_the_best_of_a_smaller_budget_is_that_of_all_choices() -> None:
    """Against every choice of n of the values, one by one."""
    values = sorted(np.random.default_rng(0).normal(size=7))
    for n in range(1, 8):
        best = [max(chosen) for chosen in combinations(values, n)]
        expected = [best.count(value) / len(best) for value in values]
        assert list(best_of(7, n)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="a budget of 8 out of 7"):
        best_of(7, 8)


def test_the_best_of_thousands_of_trials_is_calculated_too() -> None:
    """The numbers of choices are beyond floats: against the product of the chances that the trials above are not chosen."""
    mass = best_of(3000, 1500)
    assert mass.sum() == pytest.approx(1)
    for above in (0, 1, 5):
        chances = [(3000 - 1500 - i) / (3000 - i) for i in range(above)]
        assert mass[-1 - above] == pytest.approx(math.prod(chances) * 1500 / (3000 - above))
    assert sum(probabilities_best([list(np.random.default_rng(s).normal(size=3000)) for s in range(3)], 1500)) == pytest.approx(
        1
    )


def test_the_probability_to_be_best_is_that_of_all_choices() -> None:
    arms = [[1.0, 5.0, 2.0, 3.5], [4.0, 0.5, 2.0], [3.0, 3.0, 1.5, 0.0]]
    for n in (1, 2, 3):
        choices = list(product(*(combinations(values, n) for values in arms)))
        wins = [0.0] * 3
        for chosen in choices:
            best = [max(values) for values in chosen]
            ahead = [position for position, value in enumerate(best) if value == max(best)]
            for position in ahead:
                wins[position] += 1 / len(ahead) / len(choices)
        assert probabilities_best(arms, n) == pytest.approx(wins)


def test_looking_again_costs_certainty() -> None:
    """Over all looks at growing numbers of pairs without a difference, a difference is found in no more than 5%."""
    assert sum(LEVEL / price_of_looks(look) for look in range(1, 10_000)) == pytest.approx(LEVEL, rel=1e-3)
    assert compare(A, B, looks=3).p == pytest.approx(min(1.0, compare(A, B).p * (3 * math.pi) ** 2 / 6))
    chance = np.random.default_rng(0)
    found = {0: 0, 1: 0}
    for _ in range(400):
        values = chance.normal(size=60)
        for is_priced in found:
            looks = [compare(list(values[:n]), [0.0] * n, looks=is_priced * n // 10) for n in range(10, 61, 10)]
            found[is_priced] += any(look.distinguishable for look in looks)
    assert found[1] <= 0.05 * 400 < found[0]
