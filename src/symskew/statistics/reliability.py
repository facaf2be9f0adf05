"""How much of a score is the prompt's, how much the seed's, and what selecting by the latter brings back."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from symskew.statistics.arrays import Groups, numbers
from symskew.statistics.estimate import Estimate
from symskew.statistics.resample import DRAWS, interval, weighted_sums


class Components(NamedTuple):
    """The reliability ρ and the standard deviation σ of a single sample's score."""

    reliability: Estimate
    sigma: float


def reliability(values: ArrayLike, prompts: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """ρ = σ²_prompt / (σ²_prompt + σ²_seed), the correlation between two seeds of a prompt: ICC(1).

        ρ = (MSB − MSW) / (MSB + (n₀ − 1) MSW),    n₀ = (N − Σ nᵢ²/N) / (k − 1)

    by one-way analysis of variance for k prompts of nᵢ samples, N in all (Donner 1986). It may come out below 0. The
    interval is of the cluster bootstrap.

    Raises:
        ValueError: as `grouped_mean`, no prompt with several samples, or values that are all the same.

    >>> reliability([1, 1, 2, 2, 3, 3], list("aabbcc")).value
    1.0
    """
    return components("reliability", values, prompts, draws=draws, seed=seed).reliability


def components(where: str, values: ArrayLike, prompts: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> Components:
    """ρ as above, with σ = √(σ²_prompt + σ²_seed), where a σ²_prompt below 0 counts as 0."""
    array = numbers(where, "values", values)
    groups = Groups.of(where, prompts, values=array)
    if groups.sizes.max() < 2:
        raise ValueError(f"{where}: at least one prompt must have several samples, got one sample of each")
    if array.min() == array.max():
        raise ValueError(f"{where}: all values are {array[0]:g}, so no share of their variance is the prompt's")
    array = array - array.mean()
    means = groups.means(array)
    inside = groups.sums((array - means[groups.codes]) ** 2)
    sizes = groups.sizes.astype(float)
    columns = np.stack([sizes, sizes**2, sizes * means, sizes * means**2, inside], axis=1)
    value, sigma = _anova(columns.sum(0, keepdims=True), len(sizes))
    drawn, _ = _anova(weighted_sums(columns, draws=draws, seed=seed), len(sizes))
    low, high = interval(drawn[np.isfinite(drawn)], len(sizes), bounds=(-1, 1))
    return Components(Estimate(float(value[0]), low, high, len(sizes), len(array)), float(sigma[0]))


def spearman_brown(rho: float, k: float) -> float:
    """The reliability of the mean of k seeds, kρ / (1 + (k − 1)ρ), from that of one.

    >>> round(spearman_brown(0.5, 4), 6)
    0.8
    """
    return k * rho / (1 + (k - 1) * rho)


def predicted_rebound(rho: float, sigma: float, share: float = 0.2, *, worst: bool = True) -> float:
    """What samples chosen as the worst (or best) share by their own score gain when they are drawn again.

        (1 − ρ) σ φ(z_q) / q

    for normal scores and seeds that are independent within a prompt, with no effect at all: regression to the mean.
    Negative for the best.

    Args:
        rho: reliability, 0 to 1.
        sigma: standard deviation of a sample's score.
        share: q, the share that is chosen.
        worst: whether the worst are chosen.

    Raises:
        ValueError: a number outside its range.

    >>> round(predicted_rebound(0.5, 1), 3)  # the worst fifth: 1.40 (1 − ρ) σ
    0.7
    """
    if not (0 <= rho <= 1 and 0 <= sigma < math.inf and 0 < share < 1):
        raise ValueError(
            "predicted_rebound: rho must be 0 to 1, sigma at least 0 and share between 0 and 1, "
            f"got {rho!r}, {sigma!r} and {share!r}"
        )
    normal = NormalDist()
    rebound = (1 - rho) * sigma * normal.pdf(normal.inv_cdf(share)) / share
    return rebound if worst else -rebound


def _anova(
    sums: Float[np.ndarray, "draws 5"], prompts: int
) -> tuple[Float[np.ndarray, "draws"], Float[np.ndarray, "draws"]]:
    """ρ and σ from the sums over prompts of n, n², n·mean, n·mean² and squares within; NaN where undefined."""
    total, squares, level, between, inside = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        msb = np.maximum(between - level**2 / total, 0) / (prompts - 1)
        msw = np.maximum(inside, 0) / (total - prompts)
        size = (total - squares / total) / (prompts - 1)
        rho = (msb - msw) / (msb + (size - 1) * msw)
        return rho, np.sqrt(msw + np.maximum(msb - msw, 0) / size)
