"""Holm by hand and by statsmodels; the front by brute force."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from symskew.statistics import holm, pareto


def test_holm_by_hand():
    # 4 × 0.005, 3 × 0.01, then 2 × 0.03 and 0.04 raised to it.
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9]).tolist() == pytest.approx([0.8, 0.9])


def test_holm_leaves_out_what_is_missing():
    p = np.random.default_rng(0).uniform(size=20)
    gaps = np.insert(p, [0, 5, 20], np.nan)
    found = holm(gaps)
    assert np.isnan(found).sum() == 3
    assert found[~np.isnan(found)] == pytest.approx(multipletests(p, method="holm")[1])
    assert np.isnan(gaps).sum() == 3  # as it was
    assert holm([]).size == 0
    assert np.isnan(holm([None, None])).all()


@pytest.mark.parametrize("p", [[0.5, 1.2], [-0.1], [[0.1]]])
def test_holm_refuses_what_is_no_p(p):
    with pytest.raises(ValueError, match="holm: expected a list of p, each 0 to 1 or missing, got"):
        holm(p)


@pytest.mark.parametrize("maximise", [(True, True), (True, False), (False, True), (False, False)])
def test_the_front_by_brute_force(maximise):
    points = np.random.default_rng(0).integers(0, 12, size=(60, 2)).astype(float)  # with ties and twins
    signs = [1 if up else -1 for up in maximise]

    def beats(a, b):
        gains = [sign * (p - q) for sign, p, q in zip(signs, a, b, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    front = [not any(beats(other, point) for other in points) for point in points]
    assert pareto(*points.T, maximise=maximise).tolist() == front
    assert 0 < sum(front) < 60


def test_the_front_refuses_points_that_are_none():
    with pytest.raises(ValueError, match=r"pareto: expected finite x and y, .* got shapes \(2,\) and \(3,\)"):
        pareto([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="pareto: expected finite"):
        pareto([1, np.nan], [1, 2])
