"""The arms of a comparison: vanilla on three sets of seeds, and what is compared with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from symskew.statistics.arrays import numbers
from symskew.statistics.estimate import Estimate
from symskew.statistics.means import mean_of_prompts
from symskew.statistics.resample import interval, sign_flip, weighted_sums

Scores: TypeAlias = Mapping[Any, ArrayLike]
"""Of one arm: for each prompt, by its id, the scores of its samples on the seeds of one role, in the seeds' order."""


def ordered(scores: Float[np.ndarray, "scores"], seed: int) -> Int[np.ndarray, "scores"]:
    """Places from the lowest score to the highest; ties at random, since the order they come in may mean something."""
    return np.lexsort((np.random.default_rng(seed).permutation(len(scores)), levels(scores)))


def levels(scores: Float[np.ndarray, "scores"]) -> Int[np.ndarray, "scores"]:
    """The scores numbered from the lowest; those less than 10⁻⁶ of the range apart are the same but for rounding.

    >>> levels(np.array([(1 + 0.9 + 0.8) / 3, 0.9, 0.0])).tolist()
    [1, 1, 0]
    """
    order = np.argsort(scores, kind="stable")
    steps = np.diff(scores[order], prepend=scores[order[:1]]) > 1e-6 * np.ptp(scores)
    found = np.empty(len(scores), dtype=np.int64)
    found[order] = steps.cumsum()
    return found


@dataclass(frozen=True)
class Arms:
    """The arms of a comparison as flat arrays: `codes` says of which prompt each evaluated sample is.

    Attributes:
        where: the function that asks, for messages.
        names: of the prompts.
        select: mean score of each prompt on the selection seeds.
        selected_on: mean number of selection seeds.
        codes: of each evaluated sample, the place of its prompt in `names`.
        baseline: score of each evaluated sample.
        changes: of each evaluated sample, what treatment, null and placebo (its prompt's mean) changed.
        vanilla: all vanilla scores, and the place of each one's prompt.
    """

    where: str
    names: list[Any]
    select: Float[np.ndarray, "prompts"]
    selected_on: float
    codes: Int[np.ndarray, "samples"]
    baseline: Float[np.ndarray, "samples"]
    changes: dict[str, Float[np.ndarray, "samples"]]
    vanilla: tuple[Float[np.ndarray, "all"], Int[np.ndarray, "all"]]

    @classmethod
    def of(
        cls, where: str, select: Scores, baseline: Scores, treated: Scores, placebo: Scores, null: Scores | None
    ) -> Arms:
        """Checked; raises `ValueError` as `subset_change` says."""
        given = {"select": select, "baseline": baseline, "treated": treated, "placebo": placebo}
        given |= {} if null is None else {"null": null}
        names = sorted(baseline, key=str)  # whatever the order they come in, for the same numbers
        for name, arm in given.items():
            if apart := set(names) ^ set(arm):
                raise ValueError(
                    f"{where}: all arms must have the same prompts, but {name} differs from baseline in "
                    f"{len(apart)}, {min(apart, key=str)!r} among them"
                )
        arms = {name: [numbers(where, f"{name}[{p!r}]", arm[p]) for p in names] for name, arm in given.items()}
        for name in ("treated", "null") if null is not None else ("treated",):
            for prompt, have, want in zip(names, arms[name], arms["baseline"], strict=True):
                if len(have) != len(want):
                    raise ValueError(
                        f"{where}: {name} must have the seeds of baseline, got {len(have)} scores and {len(want)} "
                        f"for the prompt {prompt!r}; keep the seeds that both have"
                    )
        if len(names) < 2:
            raise ValueError(f"{where}: prompts are the units, and at least 2 are needed, got {len(names)}")
        places = {name: np.repeat(np.arange(len(names)), [len(scores) for scores in arm]) for name, arm in arms.items()}
        scores = {name: np.concatenate(arm) for name, arm in arms.items()}
        vanilla = ["select", "baseline", "placebo"]
        means = {name: np.array([few.mean() for few in arms[name]]) for name in ("select", "placebo")}
        compared = {name: scores[name] for name in scores if name not in vanilla}
        compared["placebo"] = means["placebo"][places["baseline"]]
        return cls(
            where,
            names,
            means["select"],
            len(scores["select"]) / len(names),
            places["baseline"],
            scores["baseline"],
            {name: values - scores["baseline"] for name, values in compared.items()},
            (np.concatenate([scores[name] for name in vanilla]), np.concatenate([places[name] for name in vanilla])),
        )

    def on_prompts(self, prompts: Int[np.ndarray, "_"], change: Float[np.ndarray, "samples"], **how: Any) -> Estimate:
        """The mean of the changes of these prompts, each a mean over its samples."""
        sums, counts = self._sums(np.arange(len(change)), change)
        return mean_of_prompts(sums[prompts] / counts[prompts], int(counts[prompts].sum()), test=True, **how)

    def on_samples(self, samples: Int[np.ndarray, "_"], change: Float[np.ndarray, "samples"], **how: Any) -> Estimate:
        """The mean of the changes of these samples, drawn again by prompts."""
        sums, counts = self._sums(samples, change)
        n = int((counts > 0).sum())
        if n < 2:
            raise ValueError(f"{self.where}: all chosen samples are of one prompt; give more prompts or a larger share")
        # Of all prompts, those without a chosen sample too: how many samples are chosen is a matter of the draw.
        drawn = weighted_sums(np.stack([sums, counts], axis=1), **how)
        drawn = drawn[drawn[:, 1] > 0.5]
        low, high = interval(drawn[:, 0] / drawn[:, 1], n)
        return Estimate(float(sums.sum() / counts.sum()), low, high, n, int(counts.sum()), sign_flip(sums, **how))

    def _sums(
        self, samples: Int[np.ndarray, "_"], change: Float[np.ndarray, "samples"]
    ) -> tuple[Float[np.ndarray, "prompts"], Float[np.ndarray, "prompts"]]:
        codes, size = self.codes[samples], len(self.names)
        return np.bincount(codes, change[samples], size), np.bincount(codes, minlength=size).astype(float)
