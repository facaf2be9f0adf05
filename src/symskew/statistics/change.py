"""What a treatment changed, sample by sample against a baseline of the same prompts and seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from symskew.statistics.arrays import Groups, numbers
from symskew.statistics.estimate import Estimate
from symskew.statistics.means import mean_of_prompts
from symskew.statistics.resample import DRAWS, LEVEL
from symskew.table import need


@dataclass(frozen=True)
class Change:
    """What a treatment changed.

    Attributes:
        estimate: mean over prompts of treated − baseline; its p is by sign flips.
        effect: Cohen's d_z, the mean of the prompts' changes over their standard deviation.
        wins: share of samples that improve, ties counted half; mean over prompts.
        p_t: of the paired t-test on prompt means.
    """

    estimate: Estimate
    effect: float
    wins: Estimate
    p_t: float


def paired_change(
    treated: ArrayLike, baseline: ArrayLike, prompts: ArrayLike, *, draws: int = DRAWS, seed: int = 0
) -> Change:
    """Treated − baseline over prompts. Both are of the same prompts and seeds, in the same order; higher is better.

    With d the prompts' mean changes, n of them:

    - `estimate`: mean(d), interval of the cluster bootstrap as in `grouped_mean`. p, two-sided, is of the permutation
      test that turns the signs of the prompts' d: all 2ⁿ of them where that is at most `draws`, otherwise `draws`
      random ones, with p = (1 + flips at least as extreme) / (1 + draws), and as many of importance sampling where
      fewer than 10 are, so that the number of draws is no lower bound of p. It supposes that without an effect the d
      are symmetric about 0, not that they are normal, nor that seeds within a prompt are independent.
    - `effect`: mean(d) / std(d, ddof=1). Infinite where all d are the same, and not 0.
    - `wins`: the Wilson interval at the effective number of samples (Korn & Graubard 1998), which lies between the
      number of prompts and that of samples, as seeds within a prompt agree or not.
    - `p_t`: of mean(d)·√n / std(d, ddof=1) against Student's distribution with n − 1 degrees of freedom.

    Raises:
        ValueError: as `grouped_mean`, or arrays of different lengths.

    >>> found = paired_change([2, 3, 5, 6], [1, 3, 2, 5], ["a", "a", "b", "b"])
    >>> found.estimate.value, found.estimate.p, found.wins.value
    (1.25, 0.5, 0.875)
    """
    change, groups = _differences("paired_change", treated, baseline, prompts)
    per_prompt = groups.means(change)
    estimate = mean_of_prompts(per_prompt, len(change), draws=draws, seed=seed, test=True)
    spread, n = per_prompt.std(ddof=1), len(per_prompt)
    if spread > 1e-12 * abs(estimate.value):  # the same but for rounding is the same
        effect = estimate.value / spread
    else:
        effect = math.copysign(math.inf, estimate.value) if estimate.value else 0.0
    p_t = 2 * need("scipy.special", "study").stdtr(n - 1, -abs(effect) * math.sqrt(n))
    shares = groups.means((change > 0) + (change == 0) / 2)
    return Change(estimate, float(effect), _share(shares, len(change)), float(p_t))


@dataclass(frozen=True)
class Equivalence:
    """Whether two arms are the same but for a margin.

    Attributes:
        estimate: mean over prompts of treated − baseline, with its 95% bootstrap interval.
        p: of the two one-sided tests: how likely so small a change would be if the true one were at the margin.
        margin: how far apart the arms may be.
        equivalent: whether p < 0.05.
    """

    estimate: Estimate
    p: float
    margin: float
    equivalent: bool


def equivalence(
    treated: ArrayLike,
    baseline: ArrayLike,
    margin: float,
    prompts: ArrayLike,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Equivalence:
    """Two one-sided paired t-tests on prompt means: is the change within ±margin? ("No difference found" is no answer.)

    p is the larger of the two tests' (`statsmodels.stats.weightstats.ttost_paired`).

    Raises:
        ValueError: as `paired_change`, or a margin that is not positive.

    >>> equivalence([1.1, 2.0, 2.9, 4.0], [1, 2, 3, 4], 0.5, list("abcd")).equivalent
    True
    """
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"equivalence: margin must be a positive number, in the metric's unit, got {margin!r}")
    change, groups = _differences("equivalence", treated, baseline, prompts)
    per_prompt = groups.means(change)
    estimate = mean_of_prompts(per_prompt, len(change), draws=draws, seed=seed)
    if per_prompt.std():
        tests = need("statsmodels.stats.weightstats", "study")
        p = float(tests.ttost_paired(per_prompt, np.zeros_like(per_prompt), -margin, margin)[0])
    else:
        p = float(abs(estimate.value) >= margin)
    return Equivalence(estimate, p, margin, p < 0.05)


def _differences(
    where: str, treated: ArrayLike, baseline: ArrayLike, prompts: ArrayLike
) -> tuple[Float[np.ndarray, "samples"], Groups]:
    after, before = numbers(where, "treated", treated), numbers(where, "baseline", baseline)
    groups = Groups.of(where, prompts, treated=after, baseline=before)
    return after - before, groups


def _share(per_prompt: Float[np.ndarray, "prompts"], samples: int) -> Estimate:
    """The mean of the prompts' shares with the Wilson interval at the effective number of samples."""
    n, share = len(per_prompt), float(per_prompt.mean())
    alone, variance = share * (1 - share), per_prompt.var(ddof=1) / n
    effective = np.clip(alone / variance, n, samples) if variance else n
    tail = (1 - LEVEL) / 2
    z = NormalDist().inv_cdf(tail)
    effective *= (z / need("scipy.special", "study").stdtrit(n - 1, tail)) ** 2
    centre = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = -z * math.sqrt(alone / effective + z**2 / (4 * effective**2)) / (1 + z**2 / effective)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), n, samples)
