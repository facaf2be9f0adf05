"""Eigenvalues of the second moments of many subsets of points, at the price of little more than the decompositions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["spectra"]


def spectra(
    rows: Float[np.ndarray, "points width"], kept: Bool[np.ndarray, "subsets points"], *, centred: bool = False
) -> Iterator[Float[np.ndarray, " values"]]:
    """Of each subset, the eigenvalues of Σ x xᵀ, or of Σ (x − m)(x − m)ᵀ about its mean m; ascending.

    The matrix of all points is made once: x · y between points where these are fewer than the width, as the eigenvalues
    are the same but for zeros, else the moments, from which a subset's differ by the points left out.

    >>> [values.round(6).tolist() for values in spectra(np.diag([1.0, 2.0, 3.0]), np.array([[True, False, True]]))]
    [[1.0, 9.0]]
    """
    between = len(rows) <= rows.shape[1]
    whole = rows @ rows.T if between else rows.T @ rows
    for own in kept:
        count = int(own.sum())
        if between:
            matrix = whole[np.ix_(own, own)]
            if centred:
                mean = matrix.mean(0)
                matrix += mean.mean() - mean - mean[:, None]
        else:
            fewer = rows[own != (2 * count > len(rows))]
            matrix = fewer.T @ fewer
            if 2 * count > len(rows):
                matrix = whole - matrix
            if centred:
                total = own @ rows
                matrix -= np.outer(total, total) / count
        yield np.linalg.eigvalsh(matrix)
