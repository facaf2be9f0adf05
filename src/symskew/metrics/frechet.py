"""The Fréchet distance between two sets of features, and that of any subset at the price of one decomposition."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from symskew.metrics.comparison import PointMetric
from symskew.metrics.judging import ID
from symskew.metrics.kinds import Quantity
from symskew.metrics.spectra import spectra
from symskew.metrics.views import of_objects

__all__ = ["METRICS", "FrechetDistance"]


class FrechetDistance(PointMetric):
    """|μ − μ'|² + tr(Σ + Σ' − 2 (Σ Σ')^½), the squared distance of two normal distributions (Heusel et al., 2017).

    tr (Σ Σ')^½ is the sum of the square roots of the eigenvalues of Rᵀ Σ R, where R Rᵀ = Σ': the covariance of the
    points Rᵀ x. It is symmetric: no imaginary rounding errors have to be thrown away. R leaves out the directions in
    which the real points do not vary, where the root of a rounding error would be far larger than the error.

    The estimate is too large, the more so the smaller the sets and the wider the features: compare it only between sets
    of equal size, against the same reference.
    """

    least = 2

    def known(self, real: Float[np.ndarray, "real width"]) -> _Normal:
        """Mean, root and trace of the covariance."""
        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(real, rowvar=False)))
        there = values > values[-1] * len(values) * np.finfo(float).eps
        return _Normal(real.mean(0), vectors[:, there] * np.sqrt(values[there]), float(values.sum()))

    def values(
        self, known: _Normal, rows: Float[np.ndarray, "points width"], kept: Bool[np.ndarray, "subsets points"]
    ) -> Float[np.ndarray, "subsets 1"]:
        """The distance of each subset."""
        rows = rows - known.mean  # moments about a near point keep their digits
        counts = kept.sum(1)
        apart = ((kept @ rows / counts[:, None]) ** 2).sum(1)
        spread = (kept @ (rows**2).sum(1) - counts * apart) / (counts - 1)
        roots = [np.sqrt(each.clip(0)).sum() for each in spectra(rows @ known.root, kept, centred=True)]
        return (apart + spread + known.trace - 2 * np.array(roots) / np.sqrt(counts - 1))[:, None]


class _Normal(NamedTuple):
    mean: Float[np.ndarray, " width"]
    root: Float[np.ndarray, "width rank"]
    trace: float


METRICS = (
    FrechetDistance(
        (Quantity("ensemble/fd", "Fréchet distance of objects", "squared features", False),), ID, of_objects
    ),
)
