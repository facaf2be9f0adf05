"""Intervals for statistics of whole sets, which cannot be drawn again sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from symskew.statistics.arrays import Groups
from symskew.statistics.estimate import Estimate
from symskew.statistics.resample import LEVEL
from symskew.table import need


def jackknife(
    statistic: Callable[[Int[np.ndarray, "kept"]], float],
    prompts: ArrayLike,
    *,
    groups: int = 20,
    seed: int = 0,
) -> Estimate:
    """A statistic of a set (a Fréchet or kernel distance, coverage) with an interval, leaving out groups of prompts.

    Prompts are dealt into at most `groups` groups, and the statistic is computed once on all samples and once without
    each group. The variance is that of the delete-m_j jackknife (Busing et al. 1999), which allows for groups of
    different sizes; the interval is value ± t·se with Student's t of groups − 1 degrees of freedom, about the value on
    all samples, whose bias (a Fréchet distance falls with the number of samples) it leaves alone. A bootstrap would
    not do: samples drawn twice change such distances by themselves.

    Args:
        statistic: of the places, in order, of the samples that are kept.
        prompts: (samples,) label of each sample's prompt.
        groups: at most, which is how often the statistic is computed.
        seed: of the deal.

    Raises:
        ValueError: fewer than two prompts or groups, or a statistic that is not finite.

    >>> values = np.arange(8.0)
    >>> found = jackknife(lambda kept: values[kept].mean(), list("abcdefgh"))
    >>> round((found.high - found.low) / 2, 6)  # as the t interval of a mean
    2.047825
    """
    made = Groups.of("jackknife", prompts)
    n = len(made.sizes)
    if groups < 2:
        raise ValueError(f"jackknife: at least 2 groups are needed, got {groups}")
    count = min(groups, n)
    group = np.empty(n, dtype=int)
    group[np.random.default_rng(seed).permutation(n)] = np.arange(n) % count
    of_sample = group[made.codes]

    def at(kept: np.ndarray) -> float:
        value = float(statistic(np.flatnonzero(kept)))
        if not math.isfinite(value):
            raise ValueError(f"jackknife: the statistic is {value} on {int(kept.sum())} of {len(kept)} samples")
        return value

    value = at(np.full(len(of_sample), True))
    without = np.array([at(of_sample != number) for number in range(count)])
    ratio = n / np.bincount(group, minlength=count)
    pseudo = ratio * value - (ratio - 1) * without
    centre = count * value - ((1 - 1 / ratio) * without).sum()
    error = math.sqrt(((pseudo - centre) ** 2 / (ratio - 1)).mean())
    half = error * float(need("scipy.special", "study").stdtrit(count - 1, (1 + LEVEL) / 2))
    return Estimate(value, value - half, value + half, n, len(of_sample))
