"""Many rank correlations at once: of every row of one side with every row of the other, each ranked once a draw."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from symskew.protocols.compare import student
from symskew.statistics import Estimate
from symskew.statistics.means import mean_of_prompts
from symskew.statistics.resample import counts, interval

_ENTRIES = 2**16
"""Draws × samples that are handled at a time."""

Estimates = list[list[Estimate | None]]


def rank_correlations(
    x: Float[np.ndarray, "some samples"],
    y: Float[np.ndarray, "others samples"],
    prompts: np.ndarray,
    *,
    draws: int = 1_000,
    seed: int = 0,
) -> Estimates:
    """Spearman's ρ of each row of x with each of y over all samples; value and interval as `rank_correlation`.

    p is of ρ over the draws' standard deviation against Student's distribution, with no lower bound, as a family of
    many tests needs it. None where a row is constant or there are fewer than three prompts.
    """
    _, codes = np.unique(prompts, return_inverse=True)
    n = int(codes.max(initial=-1)) + 1
    sides = [[_Ranked(row) for row in side] for side in (x, y)]
    if n < 3:
        return [[None] * len(y) for _ in x]
    one, other = sides
    values = _all_pairs(one, other, np.ones((1, len(codes))))[0]
    found = [
        _all_pairs(one, other, part[:, codes].astype(float))
        for block in counts(n, draws, seed)
        for part in np.array_split(block, -(-block.shape[0] * len(codes) // _ENTRIES))
    ]
    drawn = np.concatenate(found)

    def estimate(i: int, j: int) -> Estimate | None:
        if sides[0][i].constant or sides[1][j].constant:
            return None
        rho, each = float(values[i, j]), drawn[:, i, j]
        return Estimate(
            rho, *interval(each, n, bounds=(-1, 1)), n, len(codes), student(rho, float(each.std(ddof=1)), n)
        )

    return [[estimate(i, j) for j in range(len(y))] for i in range(len(x))]


def rank_correlations_within(
    x: Float[np.ndarray, "some samples"], y: Float[np.ndarray, "others samples"], prompts: np.ndarray
) -> Estimates:
    """The mean over prompts of ρ within each prompt, for each row of x with each of y, as `rank_correlation` has it.

    None where a row is constant or fewer than three prompts have several samples.
    """
    _, codes, sizes = np.unique(prompts, return_inverse=True, return_counts=True)
    several = sizes > 1
    if several.sum() < 3:
        return [[None] * len(y) for _ in x]
    sides = [[_ranks_within(row, codes, sizes) for row in side] for side in (x, y)]
    lengths = [[np.sqrt(np.bincount(codes, ranks**2)) for ranks in side] for side in sides]

    def estimate(i: int, j: int) -> Estimate | None:
        if x[i].min() == x[i].max() or y[j].min() == y[j].max():
            return None
        product, scale = np.bincount(codes, sides[0][i] * sides[1][j]), lengths[0][i] * lengths[1][j]
        each = np.divide(product, scale, out=np.zeros_like(scale), where=scale > 0)
        return mean_of_prompts(each[several], int(sizes[several].sum()), bounds=(-1, 1), test=True)

    return [[estimate(i, j) for j in range(len(y))] for i in range(len(x))]


class _Ranked:
    """A row's order, from which its ranks under any weights follow."""

    def __init__(self, values: Float[np.ndarray, "samples"]) -> None:
        self.places = np.unique(values, return_inverse=True)[1]
        self._order = np.argsort(self.places, kind="stable")
        self._starts = np.flatnonzero(np.diff(self.places[self._order], prepend=-1))
        self.constant = len(self._starts) < 2

    def under(self, weights: Float[np.ndarray, "draws samples"], half: Float[np.ndarray, "draws 1"]) -> np.ndarray:
        """Middle ranks under weights whose sums are twice `half`, centred; (draws, samples)."""
        shares = weights.take(self._order, 1)
        if len(self._starts) < shares.shape[1]:
            shares = np.add.reduceat(shares, self._starts, axis=1)
        middle = shares.cumsum(1)
        middle -= shares / 2
        middle -= half
        return middle.take(self.places, 1)


def _all_pairs(
    x: list[_Ranked], y: list[_Ranked], weights: Float[np.ndarray, "draws samples"]
) -> Float[np.ndarray, "draws some others"]:
    """Spearman's ρ of weighted samples; 0 where a side is constant."""
    half = weights.sum(1, keepdims=True) / 2
    first, second = (np.empty((len(weights), len(side), weights.shape[1])) for side in (x, y))
    for side, ranks in ((x, first), (y, second)):
        for place, row in enumerate(side):
            ranks[:, place] = row.under(weights, half)
    weighted = second * weights[:, None]
    products = first @ weighted.transpose(0, 2, 1)
    squares = np.einsum("dis,dis->di", second, weighted)
    first *= first
    scale = np.sqrt(np.einsum("dis,ds->di", first, weights)[:, :, None] * squares[:, None])
    return np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)


def _ranks_within(
    values: Float[np.ndarray, "samples"], codes: Int[np.ndarray, "samples"], sizes: Int[np.ndarray, "prompts"]
) -> Float[np.ndarray, "samples"]:
    """Middle ranks of each sample among those of its prompt, centred."""
    order = np.lexsort((values, codes))
    fresh = np.diff(codes[order], prepend=-1) != 0
    fresh[1:] |= np.diff(values[order]) != 0
    tie = fresh.cumsum() - 1
    middle = np.bincount(tie, np.arange(len(order))) / np.bincount(tie)
    starts = np.cumsum(sizes) - sizes
    ranks = np.empty(len(order))
    ranks[order] = middle[tie]
    return ranks - starts[codes] - (sizes[codes] - 1) / 2
