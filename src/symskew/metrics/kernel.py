"""The kernel distance between two sets of features: unbiased, so that sets of different sizes can be compared."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from symskew.metrics.comparison import PointMetric, blocks
from symskew.metrics.judging import ID
from symskew.metrics.kinds import Quantity
from symskew.metrics.views import of_objects

__all__ = ["METRICS", "KernelDistance"]


class KernelDistance(PointMetric):
    """The squared maximum mean discrepancy with the kernel (x·y / width + 1)³ (Bińkowski et al., 2018).

    Σ_{i≠j} k(x_i, x_j) / n(n−1) + Σ_{i≠j} k(y_i, y_j) / m(m−1) − 2 Σ_{ij} k(x_i, y_j) / nm, over whole sets: what the
    usual mean over random subsets estimates. Unbiased, so it is below 0 about half of the time for equal distributions.
    """

    least = 2

    def known(self, real: Float[np.ndarray, "real width"]) -> _Real:
        """The points, and the mean of the kernel between two of them."""
        within = _within(real, np.ones((1, len(real)), bool))
        return _Real(real, float(within[0]) / (len(real) * (len(real) - 1)))

    def values(
        self, known: _Real, rows: Float[np.ndarray, "points width"], kept: Bool[np.ndarray, "subsets points"]
    ) -> Float[np.ndarray, "subsets 1"]:
        """The distance of each subset, all in one pass over the pairs of points."""
        counts = kept.sum(1)
        parts = blocks(len(rows), len(known.rows))
        across = np.concatenate([_kernel(rows[place], known.rows).mean(1) for place in parts])
        within = _within(rows, kept) / (counts * (counts - 1))
        return (within + known.within - 2 * (kept @ across) / counts)[:, None]


class _Real(NamedTuple):
    rows: Float[np.ndarray, "real width"]
    within: float


def _within(
    rows: Float[np.ndarray, "points width"], kept: Bool[np.ndarray, "subsets points"]
) -> Float[np.ndarray, " subsets"]:
    """Σ_{i≠j} k(x_i, x_j) over the points of each subset; every pair is computed once."""
    taken = kept.astype(np.float64)
    sums = -(taken @ ((rows**2).mean(1) + 1) ** 3)
    for place in blocks(len(rows), len(rows)):
        others = taken[:, place.start :]
        towards = taken[:, place] @ _kernel(rows[place], rows[place.start :])
        towards[:, place.stop - place.start :] *= 2
        sums += (towards * others).sum(1)
    return sums


def _kernel(a: Float[np.ndarray, "n width"], b: Float[np.ndarray, "m width"]) -> Float[np.ndarray, "n m"]:
    inner = a @ b.T
    inner /= a.shape[1]
    inner += 1
    cube = inner * inner
    cube *= inner
    return cube


METRICS = (
    KernelDistance(
        (Quantity("ensemble/kd", "Kernel distance of objects", "squared discrepancy", False),), ID, of_objects
    ),
)
