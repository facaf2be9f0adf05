"""Precision, recall, density and coverage: how two sets of features lie among each other's nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from symskew.metrics.judging import ID
from symskew.metrics.kinds import Features, Quantity, SetMetric
from symskew.metrics.views import Points, View, checked, of_objects, sizes, subset

__all__ = ["METRICS", "NEIGHBOURS", "Neighbourhoods", "blocks", "radii"]

NEIGHBOURS = 5
"""k: a point's ball reaches to its k-th nearest neighbour in its own set, itself not counted."""


class Neighbourhoods(SetMetric):
    """Four shares (Kynkäänniemi et al., 2019; Naeem et al., 2020), by the balls of radius NN_k around each point.

    - precision: generated points that are in the ball of some real one.
    - recall: real points that are in the ball of some generated one.
    - density: how many real balls a generated point is in, on average, over k (may exceed 1).
    - coverage: real points whose ball has a generated one in it.

    All depend on the sizes of both sets: compare them only between sets of equal size, against the same reference.
    """

    def __init__(self, prefix: str, what: str, extractor: str, view: View) -> None:
        self.quantities = (
            Quantity(f"{prefix}/precision", f"Precision of {what}", "share of generated", True),
            Quantity(f"{prefix}/recall", f"Recall of {what}", "share of real", True),
            Quantity(f"{prefix}/density", f"Density of {what}", "real balls / k", True),
            Quantity(f"{prefix}/coverage", f"Coverage of {what}", "share of real", True),
        )
        self.extractor, self._view = extractor, view

    def prepare(self, generated: Features, reference: Features) -> _Neighbours:
        """Who is in whose ball (two bytes for each two points of the two sets), and everyone's nearest neighbours."""
        sets = checked(self, self._view(generated), self._view(reference), least=NEIGHBOURS + 1)
        return _Neighbours([quantity.id for quantity in self.quantities], *sets)


class _Neighbours:
    def __init__(self, names: list[str], generated: Points, reference: Points) -> None:
        self._names, self._generated, self._reference = names, generated, reference
        self._near, self._near_distances = _nearest(generated.rows, 8 * NEIGHBOURS)
        reach, real_reach = self._near_distances[:, NEIGHBOURS - 1], radii(reference.rows)
        across = [
            (part <= real_reach[place, None], part <= reach) for place, part in blocks(reference.rows, generated.rows)
        ]
        self._in_real, self._in_generated = (np.concatenate(part) for part in zip(*across, strict=True))
        self._balls = self._in_real.sum(0)

    def score(self, rows: Int[np.ndarray, " rows"] | None = None) -> dict[str, float]:
        """See `Comparison`; `ValueError` for k points or fewer."""
        chosen = subset(self._names[0], self._generated, rows, least=NEIGHBOURS + 1)
        balls = self._balls[chosen]
        values = (
            (balls > 0).mean(),
            self._recalled(chosen).mean(),
            balls.mean() / NEIGHBOURS,
            self._in_real[:, chosen].any(1).mean(),
        )
        numbers = dict(zip(self._names, map(float, values), strict=True))
        return numbers | sizes(self._generated, rows, self._reference)

    def _recalled(self, chosen: Int[np.ndarray, " chosen"]) -> Bool[np.ndarray, " real"]:
        """Real points in the ball of a chosen one: balls only grow when others are left out, so the rest is checked."""
        recalled = np.logical_or.reduce(self._in_generated[:, chosen], axis=1)
        missed = np.flatnonzero(~recalled)
        if len(chosen) < len(self._generated.rows) and len(missed):
            reach = self._radii(chosen)
            for place, part in blocks(self._reference.rows[missed], self._generated.rows[chosen]):
                recalled[missed[place]] = (part <= reach).any(1)
        return recalled

    def _radii(self, chosen: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, " chosen"]:
        """Each one's distance to its k-th nearest among those chosen; a new search where the near ones are gone."""
        taken = np.zeros(len(self._generated.rows), bool)
        taken[chosen] = True
        counted = taken[self._near[chosen]].cumsum(1)
        place = (counted >= NEIGHBOURS).argmax(1)
        radius = self._near_distances[chosen, place]
        lost = np.flatnonzero(counted[:, -1] < NEIGHBOURS)
        for where, part in blocks(self._generated.rows[chosen[lost]], self._generated.rows[chosen]):
            part[np.arange(len(part)), lost[where]] = np.inf
            radius[lost[where]] = np.partition(part, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1]
        return radius


def radii(rows: Float[np.ndarray, "n width"]) -> Float[np.ndarray, " n"]:
    """Each row's distance to its k-th nearest neighbour."""
    return _nearest(rows, NEIGHBOURS)[1][:, -1]


def _nearest(
    rows: Float[np.ndarray, "n width"], count: int
) -> tuple[Int[np.ndarray, "n count"], Float[np.ndarray, "n count"]]:
    """Each row's nearest others, as many as there are up to `count`, in order, and their distances."""
    count, found = min(count, len(rows) - 1), []
    for place, part in blocks(rows, rows):
        part[np.arange(len(part)), np.arange(len(rows))[place]] = np.inf
        found.append(torch.from_numpy(part).topk(count, largest=False))
    apart, near = zip(*found, strict=True)
    return torch.cat(near).numpy(), torch.cat(apart).numpy()


def blocks(
    a: Float[np.ndarray, "n width"], b: Float[np.ndarray, "m width"]
) -> Iterator[tuple[slice, Float[np.ndarray, "part m"]]]:
    """Euclidean distances in blocks of rows of `a`, so that no matrix of all by all is ever in memory."""
    for start in range(0, len(a), 512):
        place = slice(start, min(start + 512, len(a)))
        yield place, torch.cdist(torch.from_numpy(a[place]), torch.from_numpy(b)).numpy()


METRICS = (Neighbourhoods("ensemble", "objects", ID, of_objects),)
