"""The kernel distance between two sets of features: unbiased, so that sets of different sizes can be compared."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from symskew.metrics.judging import ID
from symskew.metrics.kinds import Features, Quantity, SetMetric
from symskew.metrics.views import Points, View, checked, of_objects, sizes, subset

__all__ = ["METRICS", "KernelDistance"]


class KernelDistance(SetMetric):
    """The squared maximum mean discrepancy with the kernel (x·y / width + 1)³ (Bińkowski et al., 2018).

    Σ_{i≠j} k(x_i, x_j) / n(n−1) + Σ_{i≠j} k(y_i, y_j) / m(m−1) − 2 Σ_{ij} k(x_i, y_j) / nm, over whole sets: what the
    usual mean over random subsets estimates. Unbiased, so it is below 0 about half of the time for equal distributions.
    """

    def __init__(self, quantity: Quantity, extractor: str, view: View) -> None:
        self.quantities, self.extractor, self._view = (quantity,), extractor, view

    def prepare(self, generated: Features, reference: Features) -> _Sums:
        """The kernel summed over the points of each two images (8 bytes for each two), and across the sets."""
        return _Sums(self.quantities[0].id, *checked(self, self._view(generated), self._view(reference), least=2))


class _Sums:
    def __init__(self, name: str, generated: Points, reference: Points) -> None:
        self._name, self._generated, self._reference = name, generated, reference
        self._within = _between_images(generated)
        self._across = np.concatenate([_kernel(part, reference.rows).mean(1) for part in _parts(generated.rows)])
        self._real = _between_images(reference).sum() / (len(reference.rows) * (len(reference.rows) - 1))

    def score(self, rows: Int[np.ndarray, " rows"] | None = None) -> dict[str, float]:
        """See `Comparison`; `ValueError` for fewer than two points."""
        chosen = subset(self._name, self._generated, rows, least=2)
        taken = np.zeros(self._generated.images)
        taken[self._generated.image[chosen]] = 1
        within = taken @ self._within @ taken / (len(chosen) * (len(chosen) - 1))
        value = within + self._real - 2 * self._across[chosen].mean()
        return {self._name: float(value), **sizes(self._generated, rows, self._reference)}


def _between_images(points: Points) -> Float[np.ndarray, "images images"]:
    """Sums of the kernel over the points of each two images, those of a point with itself left out."""
    sums = np.zeros((points.images, points.images))
    first = _firsts(points.image)
    for part, image in zip(_parts(points.rows), _parts(points.image), strict=True):
        columns = np.add.reduceat(_kernel(part, points.rows), first, 1)
        sums[np.ix_(image[_firsts(image)], points.image[first])] += np.add.reduceat(columns, _firsts(image), 0)
    own = ((points.rows**2).sum(1) / points.rows.shape[1] + 1) ** 3
    sums[np.diag_indices_from(sums)] -= np.bincount(points.image, own, points.images)
    return sums


def _firsts(image: Int[np.ndarray, " points"]) -> Int[np.ndarray, " present"]:
    """Where the points of each image begin."""
    return np.flatnonzero(np.diff(image, prepend=-1))


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    """In blocks, so that no matrix of all points by all points is ever in memory."""
    return np.split(rows, range(512, len(rows), 512))


def _kernel(a: Float[np.ndarray, "n width"], b: Float[np.ndarray, "m width"]) -> Float[np.ndarray, "n m"]:
    inner = a @ b.T / a.shape[1] + 1
    return inner * inner * inner


METRICS = (
    KernelDistance(Quantity("ensemble/kd", "Kernel distance of objects", "squared discrepancy", False), ID, of_objects),
)
