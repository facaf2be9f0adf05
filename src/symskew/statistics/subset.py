"""Did the worst prompts get better, or were they only drawn again? Subsets that are chosen by the score itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from symskew.statistics.arms import Arms, Scores, ordered
from symskew.statistics.estimate import Estimate
from symskew.statistics.reliability import components, predicted_rebound, spearman_brown
from symskew.statistics.resample import DRAWS


@dataclass(frozen=True)
class SubsetChange:
    """What changed on the worst (or best) share, by the fair protocol and by the naive one.

    Attributes:
        fair: treated − baseline on the evaluation seeds of the prompts that the selection seeds chose.
        fair_placebo: placebo − baseline on those prompts; about 0, or the protocol is broken.
        naive: treated − baseline on the samples that their own baseline score chose: selection-biased.
        naive_placebo: placebo − baseline on those samples: what merely drawing them again brings.
        corrected: naive − naive_placebo, the difference in differences; errs for or against the treatment, see below.
        reliability: ρ, the correlation between seeds of a prompt, from all vanilla samples.
        rebound: of the naive placebo, as predicted from ρ.
        reliability_selected: of the mean over selection seeds that prompts were chosen by.
        prompts: those that the selection seeds chose, the most extreme first.
        n: how many prompts there were to choose from.
        null: null − baseline on the samples of `naive`; None without a null arm.
        corrected_by_null: naive − null.
    """

    fair: Estimate
    fair_placebo: Estimate
    naive: Estimate
    naive_placebo: Estimate
    corrected: Estimate
    reliability: Estimate
    rebound: float
    reliability_selected: float
    prompts: tuple[Any, ...]
    n: int
    null: Estimate | None = None
    corrected_by_null: Estimate | None = None


def subset_change(
    select: Scores,
    baseline: Scores,
    treated: Scores,
    placebo: Scores,
    *,
    null: Scores | None = None,
    share: float = 0.2,
    worst: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
) -> SubsetChange:
    """The change on the share of prompts with the lowest (or highest) scores.

    A score is a prompt's part and a seed's. Choose images by their own baseline score and compare on those very images,
    and the seed's part, chosen low, comes back by itself: with no effect at all the worst fifth gains 1.40 (1 − ρ) σ
    (`predicted_rebound`), and the p of a test is no defence (Barnett et al. 2005, Int. J. Epidemiology 34:215). Hence:

    - `fair` chooses prompts on seeds of their own and compares on others; unbiased for prompts that score so.
    - `corrected` takes from the naive change that of vanilla samples with other seeds. A treated sample shares its
      seed with the baseline and keeps some of its noise, so it rebounds less than the placebo. On the worst share
      `corrected` therefore errs against the treatment and `naive` for it; on the best share it is the other way round:
      `corrected` errs for the treatment, whose harm it makes look smaller than it is, or a gain.
    - `corrected_by_null` takes the change under a null perturbation instead: same seeds, same strength, no mechanism.

    Fair numbers are means of prompts' means. Naive ones are means over the chosen samples, drawn again by prompts. All
    intervals are of the cluster bootstrap with the choice held fixed; all p turn the signs of the prompts' sums (see
    `paired_change`). Equal scores are put in an order at random, by `seed`.

    Args:
        select: vanilla scores on the seeds of selection, {prompt: (seeds,)}; higher is better.
        baseline: vanilla scores on the seeds of evaluation.
        treated: treated scores on the seeds of evaluation, in the order of `baseline`.
        placebo: vanilla scores on the placebo's seeds.
        null: scores under a null perturbation on the seeds of evaluation, in the order of `baseline`.
        share: of prompts (fair) and of samples (naive).
        worst: choose the lowest scores; otherwise the highest.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: arms of different prompts, treated or null not aligned with the baseline, scores that are not
            finite, a share outside 0 to 1, or so small that fewer than two prompts are chosen.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> arms = [{p: p / 50 + rng.normal(size=4) for p in range(200)} for _ in range(4)]  # no effect at all
    >>> found = subset_change(*arms)
    >>> found.fair.text(".1f", sign=True), found.naive.text(".1f", sign=True)
    ('+0.1 (-0.2 to +0.3)', '+0.6 (+0.4 to +0.8)')
    """
    arms = Arms.of("subset_change", select, baseline, treated, placebo, null)
    if not 0 < share < 1:
        raise ValueError(f"subset_change: share must be between 0 and 1, got {share!r}")
    how: Any = {"draws": draws, "seed": seed}
    sign = 1 if worst else -1
    chosen = ordered(sign * arms.select, seed)[: max(1, round(share * len(arms.names)))]
    if len(chosen) < 2:
        raise ValueError(
            f"subset_change: a share of {share:g} of {len(arms.names)} prompts is {len(chosen)}, and at least 2 are "
            "needed; give more prompts or a larger share"
        )
    samples = ordered(sign * arms.baseline, seed)[: max(1, round(share * len(arms.baseline)))]
    rho, sigma = components("subset_change", *arms.vanilla, **how)
    bounded = min(max(rho.value, 0.0), 1.0)
    parts = {name: arms.on_samples(samples, change, **how) for name, change in arms.changes.items()}
    return SubsetChange(
        fair=arms.on_prompts(chosen, arms.changes["treated"], **how),
        fair_placebo=arms.on_prompts(chosen, arms.changes["placebo"], **how),
        naive=parts["treated"],
        naive_placebo=parts["placebo"],
        corrected=arms.on_samples(samples, arms.changes["treated"] - arms.changes["placebo"], **how),
        reliability=rho,
        rebound=predicted_rebound(bounded, sigma, share, worst=worst),
        reliability_selected=spearman_brown(bounded, arms.selected_on),
        prompts=tuple(arms.names[place] for place in chosen),
        n=len(arms.names),
        null=parts.get("null"),
        corrected_by_null=arms.on_samples(samples, arms.changes["treated"] - arms.changes["null"], **how)
        if null is not None
        else None,
    )
