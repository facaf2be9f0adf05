"""The resamplings against their definitions."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from symskew.statistics.resample import counts, interval, sign_flip, weighted_sums


def test_sums_are_those_of_the_prompts_drawn():
    columns = np.random.default_rng(0).normal(size=(30, 3)) + 100
    drawn = np.random.default_rng(7).integers(30, size=(50, 30))
    assert weighted_sums(columns, draws=50, seed=7) == pytest.approx(columns[drawn].sum(1), rel=1e-12)


def test_kept_and_fresh_draws_are_the_same(monkeypatch):
    kept = np.concatenate(list(counts(40, 100, 0)))
    flips = sign_flip(np.arange(40.0) - 10, draws=100)
    monkeypatch.setattr("symskew.statistics.resample._KEPT", 0)
    monkeypatch.setattr("symskew.statistics.resample._BLOCK", 40 * 7)
    assert (np.concatenate(list(counts(40, 100, 0))) == kept).all()
    assert (kept.sum(1) == 40).all()
    # Signs are drawn in blocks of bytes, so that the draws differ with the blocks, though not what they are of.
    assert sign_flip(np.arange(40.0) - 10, draws=100) == pytest.approx(flips, abs=0.05)


def test_what_does_not_vary_has_no_interval_but_itself():
    sums = weighted_sums(np.full((7, 1), 0.1), draws=100)
    assert set((sums / 7).ravel()) == {0.1}


def test_the_expanded_interval_of_normal_draws_is_the_t_interval():
    n, draws = 10, np.random.default_rng(0).normal(size=400_000) * np.sqrt(9 / 10 / 10)  # the bootstrap's variance
    assert interval(draws, n) == pytest.approx(stats.t.interval(0.95, n - 1, 0, np.sqrt(1 / 10)), rel=0.02)
    assert interval(draws, n, expanded=False) == pytest.approx(np.quantile(draws, [0.025, 0.975]))


@pytest.mark.parametrize("n", [2, 3, 7])
def test_of_few_prompts_it_is_students(n):
    values = np.random.default_rng(n).normal(size=n) + 5
    draws = weighted_sums(values[:, None], draws=200_000)[:, 0] / n
    assert interval(draws, n) == pytest.approx(
        stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values)), rel=0.02
    )
    assert interval(draws, n, bounds=(4.9, 5.1)) == (4.9, 5.1)
    assert interval(draws, n, expanded=False) == pytest.approx(np.quantile(draws, [0.025, 0.975]))
    assert interval(np.full(100, 0.1), n) == (0.1, 0.1)


def test_few_signs_are_turned_exactly():
    values = np.array([0.5, 1.0, -0.25, 2.0, 0.0])
    sums = np.array([np.dot(signs, values) for signs in product((-1, 1), repeat=5)])
    assert sign_flip(values) == np.mean(np.abs(sums) >= abs(values.sum()))
    assert sign_flip(np.ones(4)) == 2 / 16
    assert sign_flip(np.zeros(4)) == 1


@pytest.mark.parametrize("shift", [0.9, 1.2, 1.6])
def test_a_small_p_is_not_that_of_how_often_signs_were_turned(shift):
    """10,000 flips cannot tell a p of 0.0001 from one of 0.000001; all 2¹⁸ of them can."""
    values = np.random.default_rng(1).normal(size=18) + shift
    truth = sign_flip(values, draws=2**18)
    assert truth < 5e-4
    for draws in (2_000, 10_000):
        found = [sign_flip(values, draws=draws, seed=seed) for seed in range(5)]
        assert found == pytest.approx([truth] * 5, rel=0.15)
        assert found[0] == sign_flip(values, draws=draws)


def test_a_p_survives_the_correction_for_a_thousand_tests():
    values = np.random.default_rng(0).normal(size=60) + 0.9
    assert sign_flip(values) * 1000 < 1e-3
    # One in all the signs there are, whatever has no sign.
    assert sign_flip(np.ones(60)) == pytest.approx(2**-59)
    assert sign_flip(np.append(np.ones(40), np.zeros(20))) == pytest.approx(2**-39)
    normal = 2 * stats.norm.sf(values.sum() / np.sqrt((values**2).sum()))
    assert sign_flip(values) < normal  # whose tails are heavier than those of a bounded sum


def test_many_signs_are_turned_at_random():
    values = np.random.default_rng(3).normal(size=60) + 0.25
    test = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=20_000,
                                  vectorized=True, rng=np.random.default_rng(0))  # fmt: skip
    assert sign_flip(values) == pytest.approx(test.pvalue, abs=0.01)
    # Equal sums are as extreme, whatever the rounding: 0.1 and 0.3 are no binary fractions.
    small = np.array([0.1, 0.3, -0.1] * 10)
    assert sign_flip(small) == pytest.approx(sign_flip(np.array([1.0, 3, -1] * 10)))
