"""The curve over quantiles: mirror-shaped where it is a rebound, flat where it is fair."""

import numpy as np
import pytest

from symskew.statistics import quantile_curve, subset_change
from test_statistics_subset import arms


def test_a_rebound_is_mirror_shaped_and_the_fair_curve_flat():
    made = arms(np.random.default_rng(0), 4000, rho=0.5)[:4]
    curve = quantile_curve(*made, draws=500)
    for name in ("naive", "naive_placebo"):
        heights = np.array([getattr(each, name).value for each in curve])
        assert heights == pytest.approx(-heights[::-1], abs=0.12)
        assert (np.diff(heights) < 0).all()
        assert heights[0] == pytest.approx(0.70, abs=0.08)
    for name in ("fair", "fair_placebo"):
        for each in curve:
            assert abs(getattr(each, name).value) < getattr(each, name).high - getattr(each, name).low


def test_bins_are_those_of_the_subsets_and_share_out_everything():
    made = arms(np.random.default_rng(1), 50, seeds=2)[:4]
    curve = quantile_curve(*made)
    for number, worst in ((0, True), (-1, False)):
        subset = subset_change(*made, worst=worst)
        assert curve[number].fair.value == pytest.approx(subset.fair.value)
        assert curve[number].naive.value == pytest.approx(subset.naive.value)
        assert curve[number].naive_placebo.value == pytest.approx(subset.naive_placebo.value)
    assert [each.number for each in curve] == list(range(5))
    assert sum(each.fair.n for each in curve) == 50
    assert sum(each.naive.samples for each in curve) == 100
    edges = [edge for each in curve for edge in (each.low, each.high)]
    assert edges == sorted(edges)
    means = [row.mean() for row in made[0].values()]
    assert (edges[0], edges[-1]) == (min(means), max(means))


@pytest.mark.parametrize("bins", [0, 6])
def test_bins_of_single_prompts_are_refused(bins):
    with pytest.raises(
        ValueError, match=f"quantile_curve: each bin needs at least 2 prompts, got 10 prompts for {bins}"
    ):
        quantile_curve(*arms(np.random.default_rng(0), 10)[:4], bins=bins)
