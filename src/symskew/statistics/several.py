"""Several results at once: p of a family of tests, and which of many points are not beaten."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike


def holm(p_values: ArrayLike | Sequence[float | None]) -> Float[np.ndarray, "tests"]:
    """p adjusted by Holm's step-down method over the family that is given; it bounds the chance of any false finding.

    A missing p (None or NaN) is no member of the family, and stays NaN.

    Raises:
        ValueError: a p outside 0 to 1.

    >>> holm([0.01, None, 0.04, 0.03]).tolist()
    [0.03, nan, 0.06, 0.06]
    """
    p = np.array(p_values, dtype=float)
    there = ~np.isnan(p)
    if p.ndim != 1 or not ((p[there] >= 0) & (p[there] <= 1)).all():
        raise ValueError(f"holm: expected a list of p, each 0 to 1 or missing, got {p_values!r}")
    order = np.argsort(p[there], kind="stable")
    # Not statsmodels' own, which collects the process's garbage on every call: a second, with large frames around.
    factors = np.arange(len(order), 0, -1)
    p[np.flatnonzero(there)[order]] = np.maximum.accumulate(p[there][order] * factors).clip(max=1)
    return p


def pareto(x: ArrayLike, y: ArrayLike, *, maximise: tuple[bool, bool] = (True, True)) -> Bool[np.ndarray, "points"]:
    """Which points no other point beats: none is at least as good in both coordinates and better in one.

    Raises:
        ValueError: coordinates that are not finite, or not as many of one as of the other.

    >>> pareto([1, 2, 3], [3, 1, 2]).tolist()
    [True, False, True]
    """
    points = [np.asarray(side, dtype=float) for side in (x, y)]
    if points[0].ndim != 1 or points[0].shape != points[1].shape or not np.isfinite(points).all():
        shapes = " and ".join(str(side.shape) for side in points)
        raise ValueError(f"pareto: expected finite x and y, one of each for every point, got shapes {shapes}")
    a, b = (side if up else -side for side, up in zip(points, maximise, strict=True))
    as_good = (a[:, None] >= a) & (b[:, None] >= b)
    better = (a[:, None] > a) | (b[:, None] > b)
    return np.logical_not((as_good & better).any(0))
