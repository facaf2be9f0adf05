"""Means over prompts, and how often their intervals hold the truth."""

import numpy as np
import pytest
from scipy import stats

from symskew.statistics import grouped_mean


def clustered(rng, prompts, seeds, rho):
    """Scores of mean 0 and variance 1, whose seeds correlate by rho within a prompt."""
    labels = np.repeat(np.arange(prompts), seeds)
    return np.sqrt(rho) * rng.normal(size=prompts)[labels] + np.sqrt(1 - rho) * rng.normal(size=labels.size), labels


def test_prompts_count_alike():
    found = grouped_mean([0, 0, 0, 4], ["a", "a", "a", "b"])
    assert (found.value, found.n, found.samples) == (2, 2, 4)
    assert (found.low, found.high) == (0, 4)


def test_the_same_numbers_give_the_same_interval():
    values, labels = clustered(np.random.default_rng(0), 20, 3, 0.5)
    assert grouped_mean(values, labels) == grouped_mean(values, labels)
    assert grouped_mean(values, labels) != grouped_mean(values, labels, seed=1)


@pytest.mark.parametrize("prompts", [10, 40])
def test_intervals_hold_the_truth_as_often_as_they_say(prompts):
    rng, held, naive, plain = np.random.default_rng(0), [], [], []
    for _ in range(600):
        values, labels = clustered(rng, prompts, 4, 0.6)
        found = grouped_mean(values, labels, draws=2000)
        held.append(found.low < 0 < found.high)
        found = grouped_mean(values, labels, draws=2000, expanded=False)
        plain.append(found.low < 0 < found.high)
        naive.append(np.asarray(stats.ttest_1samp(values, 0))[1] > 0.05)
    # 0.95 ± 3 standard errors of 600 trials; with seeds taken for independent, far fewer.
    assert 0.923 < np.mean(held) < 0.977
    assert np.mean(naive) < 0.85
    assert np.mean(plain) < np.mean(held)


def test_against_scipy():
    values = np.random.default_rng(1).exponential(size=80)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    ours = grouped_mean(values, np.arange(80), expanded=False)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
