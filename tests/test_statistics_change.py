"""Paired changes and equivalence against SciPy, statsmodels and simulations whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from symskew.statistics import equivalence, paired_change


def arms(rng, prompts, seeds, effect=0.0):
    """Baseline and treated on the same seeds; the effect differs from prompt to prompt."""
    labels = np.repeat(np.arange(prompts), seeds)
    baseline = rng.normal(size=prompts)[labels] + rng.normal(size=labels.size)
    change = effect + 0.5 * rng.normal(size=prompts)[labels] + 0.5 * rng.normal(size=labels.size)
    return baseline + change, baseline, labels


def test_against_the_paired_t_test_on_prompt_means():
    treated, baseline, labels = arms(np.random.default_rng(0), 30, 4, 0.2)
    found = paired_change(treated, baseline, labels)
    d = (treated - baseline).reshape(30, 4).mean(1)
    theirs = stats.ttest_rel(treated.reshape(30, 4).mean(1), baseline.reshape(30, 4).mean(1))
    assert found.estimate.value == pytest.approx(d.mean())
    assert found.p_t == pytest.approx(theirs.pvalue)
    assert found.effect == pytest.approx(d.mean() / d.std(ddof=1))
    assert found.estimate.p == pytest.approx(found.p_t, abs=0.01)
    assert (found.estimate.n, found.estimate.samples) == (30, 120)


def test_p_is_right_as_often_as_it_says_where_nothing_is_there():
    rng = np.random.default_rng(1)
    found = [paired_change(*arms(rng, 12, 3), draws=1000) for _ in range(400)]
    for p in ([each.estimate.p for each in found], [each.p_t for each in found]):
        assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.033)  # 3 standard errors
        assert np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.075)


def test_wins_count_ties_half_and_prompts_alike():
    found = paired_change([1, 2, 0, 5], [0, 2, 0, 6], ["a", "a", "b", "c"])
    assert found.wins.value == pytest.approx((0.75 + 0.5 + 0) / 3)
    assert found.wins.p is None


@pytest.mark.parametrize(("effect", "prompts"), [(0.0, 40), (1.0, 40), (1.0, 10)])
def test_intervals_of_wins_hold_the_truth(effect, prompts):
    rng, truth = np.random.default_rng(2), stats.norm.cdf(effect / np.sqrt(0.5))
    found = [paired_change(*arms(rng, prompts, 3, effect), draws=100).wins for _ in range(400)]
    assert np.mean([each.low < truth < each.high for each in found]) > 0.92


def test_wins_of_seeds_that_agree_are_as_sure_as_prompts_only():
    one = paired_change(np.tile([1, 1, 1, -1], 10), np.zeros(40), np.arange(40)).wins
    many = paired_change(np.repeat(np.tile([1, 1, 1, -1], 10), 50), np.zeros(2000), np.repeat(np.arange(40), 50)).wins
    assert (many.low, many.high) == pytest.approx((one.low, one.high))
    low, high = stats.binomtest(30, 40).proportion_ci(method="wilson")
    assert (one.low, one.high) == pytest.approx((low, high), abs=0.01)  # but for Student's quantile
    sure = paired_change(np.ones(40), np.zeros(40), np.arange(40)).wins
    assert sure.high == 1
    assert 0.85 < sure.low < 0.95


def test_changes_that_are_all_the_same():
    found = paired_change([1.1, 2.1, 0.4], [1, 2, 0.3], list("abc"))
    assert (found.effect, found.p_t) == (math.inf, 0)
    assert found.estimate.low == pytest.approx(found.estimate.high)
    assert found.estimate.p == 2 / 8
    same = paired_change([1, 2, 3.0], [1, 2, 3.0], list("abc"))
    assert (same.effect, same.p_t, same.estimate.p, same.wins.value) == (0, 1, 1, 0.5)


def test_equivalence_against_statsmodels():
    treated, baseline, labels = arms(np.random.default_rng(3), 25, 4, 0.1)
    found = equivalence(treated, baseline, 0.4, labels)
    theirs = ttost_paired(treated.reshape(25, 4).mean(1), baseline.reshape(25, 4).mean(1), -0.4, 0.4)
    assert found.p == pytest.approx(theirs[0])
    assert (found.equivalent, found.margin) == (found.p < 0.05, 0.4)
    assert found.estimate.value == pytest.approx((treated - baseline).mean())


def test_equivalence_is_hardly_ever_found_at_the_margin_and_mostly_within():
    rng = np.random.default_rng(4)
    at = [equivalence(*arms(rng, 20, 2, 0.5)[:2], 0.5, np.repeat(np.arange(20), 2), draws=100) for _ in range(300)]
    assert np.mean([each.equivalent for each in at]) == pytest.approx(0.05, abs=0.038)
    inside = [equivalence(*arms(rng, 20, 2)[:2], 0.5, np.repeat(np.arange(20), 2), draws=100) for _ in range(100)]
    assert np.mean([each.equivalent for each in inside]) > 0.8


def test_equivalence_of_changes_that_are_all_the_same():
    assert equivalence([1, 2, 3], [1, 2, 3], 0.1, list("abc")).equivalent
    assert not equivalence([2, 3, 4], [1, 2, 3], 1.0, list("abc")).equivalent


@pytest.mark.parametrize("margin", [0, -1, math.nan, math.inf])
def test_a_margin_that_is_none_is_refused(margin):
    with pytest.raises(ValueError, match="equivalence: margin must be a positive number, in the metric's unit, got"):
        equivalence([1, 2], [1, 2], margin, list("ab"))
