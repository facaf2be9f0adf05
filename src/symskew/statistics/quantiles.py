"""The change along the whole range of prompts: a rebound is mirror-shaped, a rescue is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from symskew.statistics.arms import Arms, Scores, ordered
from symskew.statistics.estimate import Estimate
from symskew.statistics.resample import DRAWS


@dataclass(frozen=True)
class Bin:
    """One quantile of the prompts, and as many of the samples.

    Attributes:
        number: of the bin, from 0 for the lowest scores.
        low: lowest mean score on the selection seeds of its prompts.
        high: highest of these.
        fair: treated − baseline on its prompts, on the evaluation seeds.
        fair_placebo: placebo − baseline on its prompts.
        naive: treated − baseline on the samples in this quantile of the baseline's scores: selection-biased.
        naive_placebo: placebo − baseline on those samples.
    """

    number: int
    low: float
    high: float
    fair: Estimate
    fair_placebo: Estimate
    naive: Estimate
    naive_placebo: Estimate


def quantile_curve(
    select: Scores,
    baseline: Scores,
    treated: Scores,
    placebo: Scores,
    *,
    bins: int = 5,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Bin]:
    """What changed in each quantile, from the lowest scores to the highest; arguments and numbers as `subset_change`.

    Prompts are put into bins of equal size by their mean on the selection seeds, samples (for the naive curve) by their
    own baseline score.

    Raises:
        ValueError: as `subset_change`, or fewer than two prompts for each bin.
    """
    arms = Arms.of("quantile_curve", select, baseline, treated, placebo, None)
    if not 1 <= bins <= len(arms.names) // 2:
        raise ValueError(
            f"quantile_curve: each bin needs at least 2 prompts, got {len(arms.names)} prompts for {bins} bins"
        )
    how = {"draws": draws, "seed": seed}
    prompts = np.array_split(ordered(arms.select, seed), bins)
    samples = np.array_split(ordered(arms.baseline, seed), bins)
    change, again = arms.changes["treated"], arms.changes["placebo"]
    return [
        Bin(
            number,
            float(arms.select[few].min()),
            float(arms.select[few].max()),
            arms.on_prompts(few, change, **how),
            arms.on_prompts(few, again, **how),
            arms.on_samples(some, change, **how),
            arms.on_samples(some, again, **how),
        )
        for number, (few, some) in enumerate(zip(prompts, samples, strict=True))
    ]
