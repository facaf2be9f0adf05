"""Precision, recall, density and coverage: how two sets of features lie among each other's nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from symskew.metrics.comparison import PointMetric, blocks
from symskew.metrics.judging import ID
from symskew.metrics.kinds import Quantity
from symskew.metrics.views import of_objects

__all__ = ["METRICS", "NEIGHBOURS", "Neighbourhoods", "apart", "radii", "shares"]

NEIGHBOURS = 5
"""k: a point's ball reaches to its k-th nearest neighbour in its own set, itself not counted."""


class Neighbourhoods(PointMetric):
    """Four shares (Kynkäänniemi et al., 2019; Naeem et al., 2020), by the balls of radius NN_k around each point.

    - precision: generated points that are in the ball of some real one.
    - recall: real points that are in the ball of some generated one.
    - density: how many real balls a generated point is in, on average, over k (may exceed 1).
    - coverage: real points whose ball has a generated one in it.

    All depend on the sizes of both sets: compare them only between sets of equal size, against the same reference.
    """

    least = NEIGHBOURS + 1

    def known(self, real: Float[np.ndarray, "real width"]) -> _Real:
        """The points and their radii."""
        return _Real(real, radii(real))

    def values(
        self, known: _Real, rows: Float[np.ndarray, "points width"], kept: Bool[np.ndarray, "subsets points"]
    ) -> Float[np.ndarray, "subsets 4"]:
        """The shares for each subset, all in one pass over the distances.

        Balls only grow when other points are left out. So a real point that is in the ball of one that is kept stays
        there, and for the others only those balls are looked at that have grown.
        """
        reach, grown = _reaches(rows, kept)
        columns = [np.flatnonzero(own & (larger > reach)) for own, larger in zip(kept, grown, strict=True)]
        taken = kept.astype(np.float32)  # whose products count: exact below 2²⁴
        balls, recalled, covered = np.zeros(len(rows)), np.zeros(len(kept)), np.zeros(len(kept))
        for place, part in apart(known.rows, rows):
            within = part <= known.radii[place, None]
            balls += within.sum(0)
            covered += (within.astype(np.float32) @ taken.T > 0).sum(0)
            found = (part <= reach).astype(np.float32) @ taken.T > 0
            for number, (own, some) in enumerate(zip(found.T, columns, strict=True)):
                missed = np.flatnonzero(~own)
                own[missed] = (part[np.ix_(missed, some)] <= grown[number, some]).any(1)
            recalled += found.sum(0)
        counts, real = kept.sum(1), len(known.rows)
        precise, dense = taken @ (balls > 0), kept @ balls / NEIGHBOURS
        return np.stack([precise / counts, recalled / real, dense / counts, covered / real], 1)


def shares(prefix: str, what: str) -> tuple[Quantity, ...]:
    """The four quantities, of some points."""
    return (
        Quantity(f"{prefix}/precision", f"Precision of {what}", "share of generated", True),
        Quantity(f"{prefix}/recall", f"Recall of {what}", "share of real", True),
        Quantity(f"{prefix}/density", f"Density of {what}", "real balls / k", True),
        Quantity(f"{prefix}/coverage", f"Coverage of {what}", "share of real", True),
    )


class _Real(NamedTuple):
    rows: Float[np.ndarray, "real width"]
    radii: Float[np.ndarray, " real"]


def radii(rows: Float[np.ndarray, "n width"]) -> Float[np.ndarray, " n"]:
    """Each row's distance to its k-th nearest neighbour."""
    return _nearest(rows, NEIGHBOURS)[1][:, -1]


def _reaches(
    rows: Float[np.ndarray, "n width"], kept: Bool[np.ndarray, "subsets n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "subsets n"]]:
    """Each row's distance to its k-th nearest among all, and among those of each subset it is in.

    A new search where too many of the near ones are left out.
    """
    near, distances = _nearest(rows, 8 * NEIGHBOURS)
    among = np.zeros(kept.shape)
    for reach, own in zip(among, kept, strict=True):
        counted = own[near].cumsum(1)
        reach[:] = distances[np.arange(len(rows)), (counted >= NEIGHBOURS).argmax(1)]
        chosen, lost = np.flatnonzero(own), np.flatnonzero(own & (counted[:, -1] < NEIGHBOURS))
        for place, part in apart(rows[lost], rows[chosen]):
            part[np.arange(len(part)), np.searchsorted(chosen, lost[place])] = np.inf
            reach[lost[place]] = np.partition(part, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1]
    return distances[:, NEIGHBOURS - 1], among


def _nearest(
    rows: Float[np.ndarray, "n width"], count: int
) -> tuple[Int[np.ndarray, "n count"], Float[np.ndarray, "n count"]]:
    """Each row's nearest others, as many as there are up to `count`, in order, and their distances."""
    count, found = min(count, len(rows) - 1), []
    for place, part in apart(rows, rows):
        part[np.arange(len(part)), np.arange(len(rows))[place]] = np.inf
        found.append(torch.from_numpy(part).topk(count, largest=False))
    distances, near = zip(*found, strict=True)
    return torch.cat(near).numpy(), torch.cat(distances).numpy()


def apart(
    a: Float[np.ndarray, "n width"], b: Float[np.ndarray, "m width"]
) -> Iterator[tuple[slice, Float[np.ndarray, "part m"]]]:
    """Euclidean distances in blocks of rows of `a`, so that no matrix of all by all is ever in memory."""
    origin = b.mean(0) if len(b) else 0
    b = b - origin
    squares = (b**2).sum(1)
    for place in blocks(len(a), len(b)):
        part = a[place] - origin
        distances = part @ b.T
        distances *= -2
        distances += squares
        distances += (part**2).sum(1)[:, None]
        yield place, np.sqrt(distances.clip(0, out=distances), out=distances)


METRICS = (Neighbourhoods(shares("ensemble", "objects"), ID, of_objects),)
