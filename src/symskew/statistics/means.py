"""Means over prompts."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from symskew.statistics.arrays import Groups, numbers
from symskew.statistics.estimate import Estimate
from symskew.statistics.resample import DRAWS, interval, sign_flip, weighted_sums


def grouped_mean(
    values: ArrayLike, prompts: ArrayLike, *, draws: int = DRAWS, seed: int = 0, expanded: bool = True
) -> Estimate:
    """The mean of the prompts' means, which counts each prompt alike however many samples it has.

    The interval is of the cluster bootstrap: prompts are drawn again with replacement, each with all its samples. Of
    fewer than 8 prompts it is Student's.

    Args:
        values: (samples,).
        prompts: (samples,) label of each sample's prompt.
        draws: of the bootstrap.
        seed: of the bootstrap; the same numbers give the same interval.
        expanded: allow for few prompts, see `resample.interval`; otherwise the plain percentiles.

    Raises:
        ValueError: no values, values that are not finite, another number of prompts than values, a single prompt.

    >>> grouped_mean([1, 3, 5, 5], ["a", "a", "b", "c"]).value
    4.0
    """
    array = numbers("grouped_mean", "values", values)
    groups = Groups.of("grouped_mean", prompts, values=array)
    return mean_of_prompts(groups.means(array), len(array), draws=draws, seed=seed, expanded=expanded)


def mean_of_prompts(
    per_prompt: Float[np.ndarray, "prompts"],
    samples: int,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    expanded: bool = True,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    test: bool = False,
) -> Estimate:
    """The same from one number for each prompt; `test` adds the p of `resample.sign_flip`."""
    sums = weighted_sums(per_prompt[:, None], draws=draws, seed=seed)[:, 0]
    low, high = interval(sums / len(per_prompt), len(per_prompt), expanded=expanded, bounds=bounds)
    p = sign_flip(per_prompt, draws=draws, seed=seed) if test else None
    return Estimate(float(per_prompt.mean()), low, high, len(per_prompt), samples, p)
