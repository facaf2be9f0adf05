"""Rank correlation of two measures of the same samples."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from symskew.statistics.arrays import Groups, numbers
from symskew.statistics.estimate import Estimate
from symskew.statistics.means import mean_of_prompts
from symskew.statistics.resample import counts, interval
from symskew.table import need

_DRAWS = 64
"""Draws that are ranked at a time: what they need should stay in the processor's cache."""


def rank_correlation(
    x: ArrayLike, y: ArrayLike, prompts: ArrayLike, *, within: bool = False, draws: int = 2_000, seed: int = 0
) -> Estimate:
    """Spearman's ρ of two measures, with an interval over prompts.

    Over all samples, easy and hard prompts are part of the correlation. The interval is of the cluster bootstrap, with
    samples ranked anew in each draw; p, two-sided, is of ρ over the draws' standard deviation against Student's
    distribution with n − 1 degrees of freedom (and 1 / (draws + 1) where they are all the same).

    `within` a prompt, which takes its difficulty out: the mean over prompts of the ρ of each prompt's samples. A prompt
    on whose samples one measure is constant counts as 0, one of a single sample not at all. The interval is that of
    `grouped_mean`, p that of `paired_change`.

    Args:
        x: (samples,).
        y: (samples,).
        prompts: (samples,) label of each sample's prompt.
        within: rank within each prompt.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: as `grouped_mean`, or a measure that is constant.

    >>> rank_correlation([1, 2, 3, 4], [1, 2, 4, 3], list("aabb")).value
    0.8
    >>> rank_correlation([1, 2, 3, 4], [1, 2, 4, 3], list("aabb"), within=True).value
    0.0
    """
    where = "rank_correlation"
    sides = [numbers(where, name, side) for name, side in (("x", x), ("y", y))]
    groups = Groups.of(where, prompts, x=sides[0], y=sides[1])
    for name, side in zip("xy", sides, strict=True):
        if side.min() == side.max():
            raise ValueError(f"{where}: {name} is {side[0]:g} for every sample, so nothing can be ranked by it")
    if within:
        return _within(sides, groups, draws, seed)
    places = [np.unique(side, return_inverse=True)[1] for side in sides]
    value = _spearman(np.ones((len(groups.codes), 1)), *places)[0]
    found = np.concatenate(
        [
            _spearman(block[first : first + _DRAWS].T[groups.codes].astype(np.float32), *places)
            for block in counts(len(groups.sizes), draws, seed)
            for first in range(0, len(block), _DRAWS)
        ]
    )
    n, spread = len(groups.sizes), found.std(ddof=1)
    p = 2 * need("scipy.special", "study").stdtr(n - 1, -abs(value) / spread) if spread else 1 / (draws + 1)
    low, high = interval(found, n, bounds=(-1, 1))
    return Estimate(float(value), low, high, n, len(groups.codes), float(p))


def _within(sides: list[Float[np.ndarray, "samples"]], groups: Groups, draws: int, seed: int) -> Estimate:
    several = groups.sizes > 1
    if several.sum() < 2:
        raise ValueError(
            f"rank_correlation: within prompts, at least 2 prompts must have several samples, got {several.sum()}"
        )
    # Ranked by prompt first, ranks are apart from those within the prompt by a constant, which goes with the mean.
    keys = [groups.codes * len(side) + np.unique(side, return_inverse=True)[1] for side in sides]
    ranks = []
    for key in keys:
        _, places, sizes = np.unique(key, return_inverse=True, return_counts=True)
        middle = (sizes.cumsum() - sizes / 2)[places]
        ranks.append(middle - groups.means(middle)[groups.codes])
    a, b = ranks
    scale = np.sqrt(groups.sums(a**2) * groups.sums(b**2))
    per_prompt = np.divide(groups.sums(a * b), scale, out=np.zeros_like(scale), where=scale > 0)[several]
    samples = int(groups.sizes[several].sum())
    return mean_of_prompts(per_prompt, samples, draws=draws, seed=seed, bounds=(-1, 1), test=True)


def _spearman(
    weights: Float[np.ndarray, "samples draws"], x: Int[np.ndarray, "samples"], y: Int[np.ndarray, "samples"]
) -> Float[np.ndarray, "draws"]:
    """Spearman's ρ of weighted samples, given the places of their values; 0 where a side is constant."""
    ranks, spreads = [], []
    for places in (x, y):
        order = np.argsort(places, kind="stable")
        ends = np.flatnonzero(np.diff(places[order], append=-1))
        below = weights[order].cumsum(0)[ends]
        shares = np.diff(below, axis=0, prepend=0)
        middle = below - shares / 2 - below[-1] / 2
        ranks.append(middle[places])
        spreads.append((shares * middle**2).sum(0))
    covariance = (weights * ranks[0] * ranks[1]).sum(0)
    scale = np.sqrt(spreads[0] * spreads[1])
    return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
