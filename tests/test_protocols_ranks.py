import numpy as np
import pytest
from scipy.stats import spearmanr

from symskew.protocols.ranks import rank_correlations, rank_correlations_within
from symskew.statistics import rank_correlation


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(40), rng.integers(1, 8, 40))
    base = rng.normal(size=40)[prompts] + rng.normal(size=len(prompts))
    x = np.stack([base + rng.normal(size=len(base)), rng.normal(size=len(base))])
    y = np.stack([base + rng.normal(size=len(base)), (base > 0).astype(float), np.round(base)])  # with ties
    return x, y, prompts


def test_all_pairs_are_what_one_pair_is(data):
    x, y, prompts = data
    found = rank_correlations(x, y, prompts, draws=300)
    for i in range(2):
        for j in range(3):
            one, each = rank_correlation(x[i], y[j], prompts, draws=300), found[i][j]
            assert each is not None
            assert each.p is not None
            assert one.p is not None
            assert each.value == pytest.approx(spearmanr(x[i], y[j])[0], abs=1e-12)
            assert (each.value, each.low, each.high) == pytest.approx((one.value, one.low, one.high), abs=1e-12)
            assert (each.n, each.samples) == (40, len(prompts))
            assert each.p == pytest.approx(one.p) if one.p > 0.01 else each.p < 0.01


def test_within_prompts_too(data):
    x, y, prompts = data
    found = rank_correlations_within(x, y, prompts)
    for i in range(2):
        for j in range(3):
            one, each = rank_correlation(x[i], y[j], prompts, within=True, draws=10_000), found[i][j]
            assert each is not None
            assert each.value == pytest.approx(one.value, abs=1e-12)
            assert (each.low, each.high, each.p) == pytest.approx((one.low, one.high, one.p))
            assert each.n == one.n


def test_p_has_no_lower_bound():
    values = np.arange(60.0)
    found = rank_correlations(values[None], values[None] + np.sin(values), values, draws=100)[0][0]
    assert found is not None
    assert found.p is not None
    assert found.p < 1e-20


def test_what_cannot_be_ranked_is_none(data):
    x, y, prompts = data
    constant = np.ones_like(x[:1])
    assert rank_correlations(constant, y[:1], prompts, draws=50) == [[None]]
    assert rank_correlations_within(x[:1], constant, prompts) == [[None]]
    assert rank_correlations(x[:1, :2], y[:1, :2], np.array([0, 1])) == [[None]]
    assert rank_correlations_within(x[:1], y[:1], np.arange(x.shape[1])) == [[None]]


def test_no_prompts_are_no_error():
    nothing = np.empty((1, 0))
    assert rank_correlations(nothing, nothing, np.empty(0)) == [[None]]
