"""Eigenvalues of subsets against decomposing each by itself."""

import numpy as np
import pytest

from symskew.metrics.spectra import spectra


@pytest.mark.parametrize("shape", [(30, 6), (30, 30), (6, 30)])
@pytest.mark.parametrize("centred", [False, True])
def test_they_are_those_of_each_subset_by_itself(shape, centred):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=shape) + 2
    kept = np.stack([np.ones(len(rows), bool), np.arange(len(rows)) > 0, np.arange(len(rows)) % 3 == 0])
    for own, found in zip(kept, spectra(rows, kept, centred=centred), strict=True):
        some = rows[own] - centred * rows[own].mean(0)
        expected = np.linalg.svd(some, compute_uv=False)[::-1] ** 2
        there = min(len(expected), len(found))
        assert found[-there:] == pytest.approx(expected[-there:], abs=1e-9)
        assert found[:-there] == pytest.approx(0, abs=1e-9)
