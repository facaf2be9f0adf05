"""Reliability against known components of variance and statsmodels' ANOVA; the predicted rebound against simulation."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from symskew.statistics import predicted_rebound, reliability, spearman_brown
from symskew.statistics.reliability import components


def scores(rng, sizes, rho, sigma=1.0):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    made = np.sqrt(rho) * rng.normal(size=len(sizes))[labels] + np.sqrt(1 - rho) * rng.normal(size=labels.size)
    return sigma * made, labels


def test_against_the_analysis_of_variance():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 7, size=30)
    values, labels = scores(rng, sizes, 0.4)
    table = anova_lm(ols("v ~ C(p)", pd.DataFrame({"v": values, "p": labels})).fit())
    msb, msw = table["mean_sq"]
    size = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / 29
    assert reliability(values, labels).value == pytest.approx((msb - msw) / (msb + (size - 1) * msw))
    assert components("here", values, labels).sigma == pytest.approx(np.sqrt(msw + (msb - msw) / size))


def test_closed_forms():
    # Two seeds (m ± d) of each prompt: MSB = 2 var(m), MSW = 2 mean(d²).
    m, d = np.array([0.0, 2, 4]), np.array([1.0, 1, 2])
    msb, msw = 2 * m.var(ddof=1), 2 * (d**2).mean()
    values = np.concatenate([m + d, m - d])
    assert reliability(values, np.tile(np.arange(3), 2)).value == pytest.approx((msb - msw) / (msb + msw))
    assert reliability([1, -1, 1, -1], list("aabb")).value == pytest.approx(-1)  # no prompt at all, 2 seeds: −1
    assert reliability(values * 1e-6 + 1e3, np.tile(np.arange(3), 2)).value == pytest.approx(
        (msb - msw) / (msb + msw), rel=1e-4
    )


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.7])
def test_the_components_are_found_and_intervals_hold_them(rho):
    rng, found = np.random.default_rng(1), []
    for _ in range(300):
        found.append(components("here", *scores(rng, rng.integers(2, 6, size=60), rho, 2.0), draws=1000))
    assert np.mean([each.reliability.value for each in found]) == pytest.approx(rho, abs=0.03)
    # With ρ = 0 the prompts' variance, cut off at 0, is a little too high.
    assert np.mean([each.sigma for each in found]) == pytest.approx(2, abs=0.05)
    assert np.mean([each.reliability.low < rho < each.reliability.high for each in found]) > 0.91


def test_what_has_no_reliability_is_refused():
    with pytest.raises(ValueError, match="reliability: at least one prompt must have several samples"):
        reliability([1, 2, 3], list("abc"))
    with pytest.raises(ValueError, match="reliability: all values are 2, so no share of their variance"):
        reliability([2, 2, 2, 2], list("aabb"))


def test_spearman_brown_is_the_reliability_of_means():
    values, _ = scores(np.random.default_rng(2), [8] * 4000, 0.3)
    means = values.reshape(4000, 2, 4).mean(2)
    assert spearman_brown(0.3, 1) == pytest.approx(0.3)
    assert np.corrcoef(means.T)[0, 1] == pytest.approx(spearman_brown(0.3, 4), abs=0.03)


@pytest.mark.parametrize(("rho", "share"), [(0.3, 0.2), (0.7, 0.2), (0.5, 0.05)])
def test_the_rebound_of_what_is_drawn_again(rho, share):
    values, _ = scores(np.random.default_rng(3), [2] * 100_000, rho, 3.0)
    first, second = values.reshape(-1, 2).T
    order = np.argsort(first)
    count = round(share * len(order))
    for worst, few in ((True, order[:count]), (False, order[-count:])):
        again = (second - first)[few]
        error = again.std() / np.sqrt(count)
        assert again.mean() == pytest.approx(predicted_rebound(rho, 3.0, share, worst=worst), abs=4 * error)
    assert predicted_rebound(rho, 1) == pytest.approx(1.40 * (1 - rho), rel=1e-3)


@pytest.mark.parametrize("given", [(-0.1, 1, 0.2), (0.5, -1, 0.2), (0.5, 1, 0), (np.nan, 1, 0.2)])
def test_a_rebound_of_impossible_numbers_is_refused(given):
    with pytest.raises(ValueError, match="predicted_rebound: rho must be 0 to 1, sigma at least 0 and share between"):
        predicted_rebound(*given)
