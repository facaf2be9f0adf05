"""The Vendi score: how many different images a set amounts to (Friedman and Dieng, 2023)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from symskew.metrics.comparison import PointMetric
from symskew.metrics.judging import ID
from symskew.metrics.kinds import Features, PairMetric, Quantity
from symskew.metrics.spectra import spectra
from symskew.metrics.views import View, normalised, of_images

__all__ = ["METRICS", "GroupVendi", "SetVendi", "vendi_score"]


def vendi_score(features: Float[np.ndarray, "points width"]) -> float:
    """exp(−Σ λ log λ), of order 1, over the eigenvalues λ of K/n, with K the cosines between the rows.

    1 where all rows point the same way, n where they are all orthogonal. The second moments of the normalised rows have
    the same eigenvalues, so the smaller of the two matrices is decomposed.

    >>> import numpy as np
    >>> round(vendi_score(np.eye(3)), 6)
    3.0
    """
    return float(_scores(features, np.ones((1, len(features)), bool))[0])


def _scores(
    features: Float[np.ndarray, "points width"], kept: Bool[np.ndarray, "subsets points"]
) -> Float[np.ndarray, " subsets"]:
    found = []
    for count, values in zip(kept.sum(1), spectra(normalised(features), kept), strict=True):
        shares = values[values > 0] / count
        found.append(np.exp(-(shares * np.log(shares)).sum()))
    return np.array(found)


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


class SetVendi(PointMetric):
    """The Vendi score of the generated set; real images play no part. It grows with the set: compare equal sizes."""

    least = 1

    def known(self, real: Float[np.ndarray, "real width"]) -> None:
        """Nothing."""

    def values(
        self, known: None, rows: Float[np.ndarray, "points width"], kept: Bool[np.ndarray, "subsets points"]
    ) -> Float[np.ndarray, "subsets 1"]:
        """The score of each subset."""
        return _scores(rows, kept)[:, None]


METRICS = (
    GroupVendi(Quantity("ensemble/vendi", "Vendi score of a prompt's seeds", "different images", True), ID, of_images),
    SetVendi((Quantity("ensemble/vendi-set", "Vendi score of the set", "different images", True),), ID, of_images),
)
