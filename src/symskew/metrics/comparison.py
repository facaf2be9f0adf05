"""What metrics of sets have in common: real points are studied once, and sets and subsets are compared with them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from symskew.metrics.kinds import Features, Quantity, SetMetric
from symskew.metrics.views import Points, View

__all__ = ["PointMetric", "blocks"]


class PointMetric(SetMetric):
    """A metric of sets of points, such as images seen by any extractor, or the objects in them.

    A subclass says what it has to know of the real points, and what it makes of that and the generated ones; `least` is
    how many points each set needs.
    """

    least: ClassVar[int]

    def __init__(self, quantities: Sequence[Quantity], extractor: str, view: View) -> None:
        self.quantities, self.extractor, self._view = tuple(quantities), extractor, view

    def against(self, reference: Features) -> _Against:
        """See `SetMetric`."""
        real = self._view(reference)
        self._enough(len(real.rows), f"{real.images} real images")
        return _Against(self, real, self.known(real.rows))

    @abstractmethod
    def known(self, real: Float[np.ndarray, "real width"]) -> Any:
        """What `values` needs of the real points."""

    @abstractmethod
    def values(
        self, known: Any, rows: Float[np.ndarray, "points width"], kept: Bool[np.ndarray, "subsets points"]
    ) -> Float[np.ndarray, "subsets quantities"]:
        """The quantities of each subset of the generated points."""

    def _enough(self, count: int, what: str) -> None:
        if count < self.least:
            raise ValueError(f"{self.quantities[0].id}: expected at least {self.least} points, got {count} from {what}")


class _Against:
    def __init__(self, metric: PointMetric, real: Points, known: Any) -> None:
        self._metric, self._real, self._known = metric, real, known

    def scores(
        self, generated: Features, subsets: Sequence[Int[np.ndarray, " rows"]] | None = None
    ) -> list[dict[str, float]]:
        """See `Comparison`."""
        metric, real = self._metric, self._real
        points = metric._view(generated)
        name = metric.quantities[0].id
        if points.rows.shape[1] != real.rows.shape[1]:
            raise ValueError(
                f"{name}: expected features of one width, got {points.rows.shape} from {points.images} generated "
                f"images and {real.rows.shape} from {real.images} real ones"
            )
        taken = _taken(name, points.images, subsets)
        kept, images = taken[:, points.image], taken.sum(1)
        for count, some in zip(kept.sum(1), images, strict=True):
            metric._enough(count, f"{some} generated images")
        values = metric.values(self._known, points.rows, kept)
        names = [quantity.id for quantity in metric.quantities]
        return [
            {
                **dict(zip(names, map(float, row), strict=True)),
                "generated": float(some),
                "reference": float(real.images),
            }
            for row, some in zip(values, images, strict=True)
        ]


def _taken(
    name: str, images: int, subsets: Sequence[Int[np.ndarray, " rows"]] | None
) -> Bool[np.ndarray, "subsets images"]:
    """Which images each subset has (None: a single one, of all).

    Raises:
        ValueError: a row is outside of the set, or twice in a subset: a copy of an image is its own nearest neighbour,
            so that drawing with replacement would measure the drawing.
    """
    if subsets is None:
        return np.ones((1, images), bool)
    taken = np.zeros((len(subsets), images), bool)
    for own, subset in zip(taken, subsets, strict=True):
        rows = np.asarray(subset, np.intp)
        if rows.size and (rows.min() < 0 or rows.max() >= images):
            raise ValueError(f"{name}: expected rows of {images} images, got {rows.min()} to {rows.max()}")
        own[rows] = True
        if own.sum() < len(rows):
            raise ValueError(f"{name}: expected every row once, got {len(rows)} of which {own.sum()} are distinct")
    return taken


def blocks(count: int, others: int) -> Iterator[slice]:
    """Rows in parts: what is computed between those of a part and all others is a matrix of at most 8 MB or a row."""
    size = max(1, 2**20 // max(1, others))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
