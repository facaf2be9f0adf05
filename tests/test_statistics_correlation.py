"""Rank correlation against SciPy, and against clustered simulations whose ρ is known in closed form."""

import numpy as np
import pytest
from scipy import stats

from symskew.statistics import rank_correlation


def pairs(rng, prompts, seeds, r):
    """Two measures that correlate by r, by prompts and by seeds alike; Spearman's ρ is 6/π asin(r/2)."""
    labels = np.repeat(np.arange(prompts), seeds)
    mix = np.linalg.cholesky([[1, r], [r, 1]])
    x, y = mix @ rng.normal(size=(2, prompts))[:, labels] + mix @ rng.normal(size=(2, labels.size))
    return x, y, labels


def spearman(x, y):
    return float(np.asarray(stats.spearmanr(x, y))[0])


@pytest.mark.parametrize("ties", [False, True])
def test_against_scipy(ties):
    x, y, labels = pairs(np.random.default_rng(0), 40, 5, 0.5)
    if ties:
        x, y = np.round(x), np.round(y)
    assert rank_correlation(x, y, labels).value == pytest.approx(spearman(x, y))
    within = [spearman(a, b) for a, b in zip(x.reshape(40, 5), y.reshape(40, 5), strict=True)
              if len(set(a)) > 1 and len(set(b)) > 1]  # fmt: skip
    found = rank_correlation(x, y, labels, within=True)
    assert found.value == pytest.approx(np.sum(within) / 40)  # constant counts as 0
    assert (found.n, found.samples) == (40, 200)


def test_each_draw_is_ranked_anew():
    x, y, labels = pairs(np.random.default_rng(1), 25, 3, 0.5)
    x = np.round(x)
    drawn = np.random.default_rng(0).integers(25, size=(300, 25))
    rho = [spearman(x.reshape(25, 3)[d].ravel(), y.reshape(25, 3)[d].ravel()) for d in drawn]
    found = rank_correlation(x, y, labels, draws=300)
    assert found.p == pytest.approx(2 * stats.t.sf(found.value / np.std(rho, ddof=1), 24), rel=1e-4)
    assert min(rho) - 1e-6 < found.low < found.high < max(rho) + 1e-6


@pytest.mark.parametrize("r", [0.0, 0.6])
def test_intervals_and_p_are_right_as_often_as_they_say(r):
    rng, truth = np.random.default_rng(2), 6 / np.pi * np.arcsin(r / 2)
    found = [rank_correlation(*pairs(rng, 25, 4, r), draws=500) for _ in range(300)]
    assert 0.91 < np.mean([each.low < truth < each.high for each in found]) < 0.985
    rejected = np.mean(np.array([each.p for each in found], dtype=float) < 0.05)
    assert rejected > 0.9 if r else rejected == pytest.approx(0.05, abs=0.038)


def test_within_prompts_their_difficulty_is_taken_out():
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(60), 4)
    difficulty = 3 * rng.normal(size=60)[labels]
    x, y = difficulty + rng.normal(size=240), difficulty + rng.normal(size=240)
    assert rank_correlation(x, y, labels).value > 0.8
    found = rank_correlation(x, y, labels, within=True)
    assert found.low < 0 < found.high
    assert found.p is not None
    assert found.p > 0.05
    # The other way about: what goes with seeds, hidden under prompts that go against it.
    seeds = rng.normal(size=240)
    assert rank_correlation(difficulty + seeds, -difficulty + seeds, labels).value < 0
    assert rank_correlation(difficulty + seeds, -difficulty + seeds, labels, within=True).value == pytest.approx(1)


def test_prompts_of_one_sample_have_no_ranks_within():
    found = rank_correlation([1, 2, 1, 2, 9], [1, 2, 2, 1, 9], list("aabbc"), within=True)
    assert (found.value, found.n, found.samples) == (0, 2, 4)
    with pytest.raises(ValueError, match="at least 2 prompts must have several samples, got 1"):
        rank_correlation([1, 2, 3], [1, 2, 3], list("aab"), within=True)


def test_a_constant_cannot_be_ranked_by():
    for within in (False, True):
        with pytest.raises(ValueError, match="rank_correlation: y is 2 for every sample, so nothing can be ranked"):
            rank_correlation([1, 2, 3, 4], [2, 2, 2, 2], list("aabb"), within=within)


def test_a_perfect_order_has_a_p():
    found = rank_correlation(np.arange(12), np.arange(12) ** 3, np.arange(12), draws=200)
    assert (found.value, found.low, found.high, found.p) == (1, 1, 1, 1 / 201)
