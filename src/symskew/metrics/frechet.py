"""The Fréchet distance between two sets of features, and that of any subset at the price of a small decomposition."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from symskew.metrics.judging import ID
from symskew.metrics.kinds import Features, Quantity, SetMetric
from symskew.metrics.views import Points, View, checked, of_objects, sizes, subset

__all__ = ["METRICS", "FrechetDistance"]


class FrechetDistance(SetMetric):
    """|μ − μ'|² + tr(Σ + Σ' − 2 (Σ Σ')^½), the squared distance of two normal distributions (Heusel et al., 2017).

    tr (Σ Σ')^½ is the sum of the square roots of the eigenvalues of Σ'^½ Σ Σ'^½, which is symmetric: no imaginary
    rounding errors have to be thrown away. The estimate is too large, the more so the smaller the sets and the wider
    the features: compare it only between sets of equal size, against the same reference.
    """

    def __init__(self, quantity: Quantity, extractor: str, view: View) -> None:
        self.quantities, self.extractor, self._view = (quantity,), extractor, view

    def prepare(self, generated: Features, reference: Features) -> _Moments:
        """Second moments, from which those of a subset differ by the points left out."""
        return _Moments(self.quantities[0].id, *checked(self, self._view(generated), self._view(reference), least=2))


class _Moments:
    def __init__(self, name: str, generated: Points, reference: Points) -> None:
        self._name, self._generated, self._reference = name, generated, reference
        self._origin = reference.rows.mean(0)  # moments about a near point keep their digits
        self._rows = generated.rows - self._origin
        self._second = self._rows.T @ self._rows
        values, vectors = np.linalg.eigh(np.cov(reference.rows, rowvar=False))
        self._trace = values.sum()
        self._root = (vectors * np.sqrt(values.clip(0))) @ vectors.T

    def score(self, rows: Int[np.ndarray, " rows"] | None = None) -> dict[str, float]:
        """See `Comparison`; `ValueError` for fewer than two points."""
        chosen = subset(self._name, self._generated, rows, least=2)
        count, points = len(chosen), self._rows[chosen]
        left_out = np.delete(self._rows, chosen, 0)
        second = self._second - left_out.T @ left_out if len(left_out) < count else points.T @ points
        mean = points.mean(0)
        covariance = (second - count * np.outer(mean, mean)) / (count - 1)
        roots = np.sqrt(np.linalg.eigvalsh(self._root @ covariance @ self._root).clip(0))
        value = mean @ mean + np.trace(covariance) + self._trace - 2 * roots.sum()
        return {self._name: float(value), **sizes(self._generated, rows, self._reference)}


METRICS = (
    FrechetDistance(Quantity("ensemble/fd", "Fréchet distance of objects", "squared features", False), ID, of_objects),
)
