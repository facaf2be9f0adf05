"""The Vendi score: how many different images a set amounts to (Friedman and Dieng, 2023)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from symskew.metrics.judging import ID
from symskew.metrics.kinds import Features, PairMetric, Quantity, SetMetric
from symskew.metrics.views import Points, View, normalised, of_images, sizes, subset

__all__ = ["METRICS", "GroupVendi", "SetVendi", "vendi_score"]


def vendi_score(features: Float[np.ndarray, "points width"]) -> float:
    """exp(−Σ λ log λ), of order 1, over the eigenvalues λ of K/n, with K the cosines between the rows.

    1 where all rows point the same way, n where they are all orthogonal. The second moments of the normalised rows have
    the same eigenvalues, so the smaller of the two matrices is decomposed.

    >>> import numpy as np
    >>> round(vendi_score(np.eye(3)), 6)
    3.0
    """
    rows = normalised(features)
    values = np.linalg.eigvalsh((rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows) / len(rows))
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))


class GroupVendi(PairMetric):
    """The Vendi score of the samples of a prompt: from 1 to their number, so compare equal numbers of seeds."""

    def __init__(self, quantity: Quantity, extractor: str, view: View) -> None:
        self.quantities, self.extractor, self._view = (quantity,), extractor, view

    def score(self, features: Features, prompt: str) -> float:
        """Of the group as a whole: there are no pairs."""
        points = self._view(features)
        if points.images < 2:
            raise ValueError(f"{self.id}: expected at least two samples of {prompt!r}, got {points.images}")
        return vendi_score(points.rows)


class SetVendi(SetMetric):
    """The Vendi score of the generated set; real images play no part. It grows with the set: compare equal sizes."""

    def __init__(self, quantity: Quantity, extractor: str, view: View) -> None:
        self.quantities, self.extractor, self._view = (quantity,), extractor, view

    def prepare(self, generated: Features, reference: Features) -> _Rows:
        """Nothing but the points."""
        return _Rows(self.quantities[0].id, self._view(generated), self._view(reference))


class _Rows:
    def __init__(self, name: str, generated: Points, reference: Points) -> None:
        self._name, self._generated, self._reference = name, generated, reference

    def score(self, rows: Int[np.ndarray, " rows"] | None = None) -> dict[str, float]:
        """See `Comparison`."""
        chosen = subset(self._name, self._generated, rows, least=1)
        return {
            self._name: vendi_score(self._generated.rows[chosen]),
            **sizes(self._generated, rows, self._reference),
        }


METRICS = (
    GroupVendi(Quantity("ensemble/vendi", "Vendi score of a prompt's seeds", "different images", True), ID, of_images),
    SetVendi(Quantity("ensemble/vendi-set", "Vendi score of the set", "different images", True), ID, of_images),
)
