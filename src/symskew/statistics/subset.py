"""Did the worst prompts get better, or were they only drawn again? Subsets that are chosen by the score itself."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from symskew.statistics.arrays import numbers
from symskew.statistics.estimate import Estimate
from symskew.statistics.means import mean_of_prompts
from symskew.statistics.reliability import components, predicted_rebound, spearman_brown
from symskew.statistics.resample import DRAWS, interval, sign_flip, weighted_sums

Scores: TypeAlias = Mapping[Hashable, ArrayLike]
"""Of one arm: for each prompt, the scores of its samples on the seeds of one role, in the order of the seeds."""


@dataclass(frozen=True)
class SubsetChange:
    """What changed on the worst (or best) share, by the fair protocol and by the naive one.

    Attributes:
        fair: treated − baseline on the evaluation seeds of the prompts that the selection seeds chose.
        fair_placebo: placebo − baseline on those prompts; about 0, or the protocol is broken.
        naive: treated − baseline on the samples that their own baseline score chose: selection-biased.
        naive_placebo: placebo − baseline on those samples: what merely drawing them again brings.
        corrected: naive − naive_placebo, the difference in differences.
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
    prompts: tuple[Hashable, ...]
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
      seed with the baseline and keeps some of its noise, so it rebounds less than the placebo: `corrected` errs
      against the treatment, `naive` for it.
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
    rho, sigma = components("subset_change", *arms.vanilla(), **how)
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


def ordered(scores: Float[np.ndarray, "scores"], seed: int) -> Int[np.ndarray, "scores"]:
    """Places from the lowest score to the highest; ties at random, since the order they come in may mean something."""
    return np.lexsort((np.random.default_rng(seed).permutation(len(scores)), scores))


@dataclass(frozen=True)
class Arms:
    """The arms of a comparison as flat arrays: `codes` says of which prompt each evaluated sample is.

    Attributes:
        names: of the prompts.
        select: mean score of each prompt on the selection seeds.
        selected_on: mean number of selection seeds.
        codes: of each evaluated sample, the place of its prompt in `names`.
        baseline: score of each evaluated sample.
        changes: of each evaluated sample, what treatment, null and placebo (its prompt's mean) changed.
    """

    names: list[Hashable]
    select: Float[np.ndarray, "prompts"]
    selected_on: float
    codes: Int[np.ndarray, "samples"]
    baseline: Float[np.ndarray, "samples"]
    changes: dict[str, Float[np.ndarray, "samples"]]
    _vanilla: list[list[Float[np.ndarray, "_"]]]

    @classmethod
    def of(
        cls, where: str, select: Scores, baseline: Scores, treated: Scores, placebo: Scores, null: Scores | None
    ) -> Arms:
        """Checked; raises `ValueError` as `subset_change` says."""
        given = {"select": select, "baseline": baseline, "treated": treated, "placebo": placebo}
        given |= {} if null is None else {"null": null}
        names = list(baseline)
        for name, arm in given.items():
            if apart := set(names) ^ set(arm):
                raise ValueError(
                    f"{where}: all arms must have the same prompts, but {name} differs from baseline in "
                    f"{len(apart)}, {next(iter(apart))!r} among them"
                )
        arms = {name: [numbers(where, f"{name}[{p!r}]", arm[p]) for p in names] for name, arm in given.items()}
        for name in given.keys() - {"select", "baseline", "placebo"}:
            for prompt, have, want in zip(names, arms[name], arms["baseline"], strict=True):
                if len(have) != len(want):
                    raise ValueError(
                        f"{where}: {name} must have the seeds of baseline, got {len(have)} scores and {len(want)} "
                        f"for the prompt {prompt!r}; keep the seeds that both have"
                    )
        codes = np.repeat(np.arange(len(names)), [len(scores) for scores in arms["baseline"]])
        if len(names) < 2:
            raise ValueError(f"{where}: prompts are the units, and at least 2 are needed, got {len(names)}")
        flat = {name: np.concatenate(arms[name]) for name in given.keys() - {"select", "placebo"}}
        flat["placebo"] = np.array([scores.mean() for scores in arms["placebo"]])[codes]
        return cls(
            names,
            np.array([scores.mean() for scores in arms["select"]]),
            float(np.mean([len(scores) for scores in arms["select"]])),
            codes,
            flat["baseline"],
            {name: scores - flat["baseline"] for name, scores in flat.items() if name != "baseline"},
            [arms["select"], arms["baseline"], arms["placebo"]],
        )

    def vanilla(self) -> tuple[Float[np.ndarray, "_"], Int[np.ndarray, "_"]]:
        """All vanilla scores, and the place of each one's prompt."""
        places = [np.repeat(np.arange(len(arm)), [len(scores) for scores in arm]) for arm in self._vanilla]
        return np.concatenate([scores for arm in self._vanilla for scores in arm]), np.concatenate(places)

    def on_prompts(self, prompts: Int[np.ndarray, "_"], change: Float[np.ndarray, "samples"], **how: Any) -> Estimate:
        """The mean of the changes of these prompts, each a mean over its samples."""
        sums, counts = self._sums(np.arange(len(change)), change)
        return mean_of_prompts(sums[prompts] / counts[prompts], int(counts[prompts].sum()), test=True, **how)

    def on_samples(self, samples: Int[np.ndarray, "_"], change: Float[np.ndarray, "samples"], **how: Any) -> Estimate:
        """The mean of the changes of these samples, drawn again by prompts."""
        sums, counts = self._sums(samples, change)
        sums, counts = sums[counts > 0], counts[counts > 0]
        if len(sums) < 2:
            raise ValueError("subset_change: all chosen samples are of one prompt; give more prompts or a larger share")
        drawn = weighted_sums(np.stack([sums, counts], axis=1), **how)
        low, high = interval(drawn[:, 0] / drawn[:, 1], len(sums))
        return Estimate(
            float(sums.sum() / counts.sum()), low, high, len(sums), int(counts.sum()), sign_flip(sums, **how)
        )

    def _sums(
        self, samples: Int[np.ndarray, "_"], change: Float[np.ndarray, "samples"]
    ) -> tuple[Float[np.ndarray, "prompts"], Float[np.ndarray, "prompts"]]:
        codes, size = self.codes[samples], len(self.names)
        return np.bincount(codes, change[samples], size), np.bincount(codes, minlength=size).astype(float)
