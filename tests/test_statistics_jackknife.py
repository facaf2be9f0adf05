"""The jackknife against the closed form of a mean, and on a set statistic whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from symskew.statistics import jackknife


@pytest.mark.parametrize("groups", [10, 30])
def test_of_a_mean_with_equal_groups_it_is_the_t_interval_over_groups(groups):
    values = np.random.default_rng(0).normal(size=30)
    found = jackknife(lambda kept: values[kept].mean(), np.arange(30), groups=groups)
    deal = np.empty(30, dtype=int)
    deal[np.random.default_rng(0).permutation(30)] = np.arange(30) % groups
    means = [values[deal == number].mean() for number in range(groups)]
    expected = stats.t.interval(0.95, groups - 1, values.mean(), stats.sem(means))
    assert (found.low, found.high) == pytest.approx(expected)
    assert (found.value, found.n, found.samples) == (pytest.approx(values.mean()), 30, 30)


def test_prompts_leave_together_and_each_once():
    labels = np.repeat([f"prompt {n}" for n in range(45)], 3)
    kept = []
    jackknife(lambda places: float(kept.append(places) or len(places)), labels)
    assert kept[0].tolist() == list(range(135))
    left = [set(range(135)) - set(places.tolist()) for places in kept[1:]]
    assert len(left) == 20
    assert sorted(place for group in left for place in group) == list(range(135))
    assert all({labels[place] for place in group}.isdisjoint(labels[sorted(set(range(135)) - group)]) for group in left)


@pytest.mark.parametrize("prompts", [47, 120])
def test_intervals_of_a_set_statistic_hold_the_truth(prompts):
    """The standard deviation over a set of clustered samples, by groups of unequal sizes."""
    rng, held = np.random.default_rng(1), []
    labels = np.repeat(np.arange(prompts), 3)
    for _ in range(400):
        values = rng.normal(size=prompts)[labels] + rng.normal(size=labels.size)
        found = jackknife(lambda kept, values=values: values[kept].std(), labels)
        held.append(found.low < np.sqrt(2) < found.high)
    assert 0.90 < np.mean(held) < 0.98


def test_refusals():
    with pytest.raises(ValueError, match="jackknife: at least 2 groups are needed, got 1"):
        jackknife(len, list("abc"), groups=1)
    with pytest.raises(ValueError, match="jackknife: prompts are the units, and an interval needs at least 2"):
        jackknife(len, list("aaa"))
    with pytest.raises(ValueError, match="jackknife: the statistic is nan on 3 of 3 samples"):
        jackknife(lambda kept: float("nan"), list("abc"))
