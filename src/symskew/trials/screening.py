"""Is a seed's early stability worth ranking by? Chosen on one set of prompts, reported on another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from symskew.statistics import Estimate
from symskew.trials.collect import BRANCHES, MEASURES, STATES, Sample, over_prompts


class Rule(NamedTuple):
    """A way to score an image: the mean of a measure over some layers, steps and branches, times `sign`."""

    states: str
    measure: str
    stage: str
    first: int
    stop: int
    branch: str
    sign: int

    def scores(self, sample: Sample) -> np.ndarray:
        """(seeds,); higher is to be kept."""
        assert sample.measures is not None
        values = sample.measures[
            :, STATES.index(self.states), self.first : self.stop, :, :, MEASURES.index(self.measure)
        ]
        layers = [self.stage in ("all", stage) for stage in sample.stages]
        branches = slice(None) if self.branch == "both" else [BRANCHES.index(self.branch)]
        return self.sign * values[:, :, layers][..., branches].mean((1, 2, 3))

    def __str__(self) -> str:
        order = "highest" if self.sign > 0 else "lowest"
        where = "all layers" if self.stage == "all" else f"layers of {self.stage}"
        branch = "both branches" if self.branch == "both" else f"{self.branch} branch"
        return (
            f"{order} {self.measure} of {self.states} states, {where}, steps {self.first} to {self.stop - 1}, {branch}"
        )


PAPER = Rule("input", "alignment", "all", 0, 9, "both", 1)
"""What the paper's Table 2 suggests, taken over the part of the schedule that screening runs: nothing chosen by us."""


def rules(steps: int) -> Iterator[Rule]:
    """Every rule that is tried, over parts of the first `steps` steps."""
    third = steps // 3
    windows = [(0, steps), (0, third), (third, 2 * third), (2 * third, steps)]
    for states in STATES:
        for measure in MEASURES:
            if measure == "symmetry" and states == "value":
                continue  # the symmetry is of q and k, whatever is retrieved
            for stage in ("all", "down", "mid", "up"):
                for first, stop in windows:
                    for branch in (*BRANCHES, "both"):
                        for sign in (1, -1):
                            yield Rule(states, measure, stage, first, stop, branch, sign)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's ρ; 0 where one side is constant."""
    ranks = [_ranks(side) for side in (a, b)]
    spread = [side.std() for side in ranks]
    if not all(spread):
        return 0.0
    return float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / (spread[0] * spread[1]))


def correlations(rule: Rule, samples: Sequence[Sample]) -> np.ndarray:
    """Within each prompt, the rank correlation of the score with the judge's log-likelihood."""
    return np.array([rank_correlation(rule.scores(sample), sample.likelihood) for sample in samples])


def choose(samples: Sequence[Sample], steps: int) -> Rule:
    """The rule whose scores go best with the log-likelihood, within prompts."""
    return max(rules(steps), key=lambda rule: correlations(rule, samples).mean())


class Outcome(NamedTuple):
    """What keeping the best few by a rule gained over keeping a few at random, prompt by prompt."""

    correlation: Estimate
    right: Estimate
    right_random: Estimate
    right_gain: Estimate
    objects_gain: Estimate
    likelihood_gain: Estimate
    diversity_ratio: Estimate
    """Mean distance between kept images in the judge's features, as a ratio to that between any."""


def outcome(rule: Rule, samples: Sequence[Sample], keep: int) -> Outcome:
    """The outcome of a rule on prompts that had no part in choosing it. Random choice is exact: the mean of all."""
    rows = []
    for sample in samples:
        kept = np.argsort(-rule.scores(sample), kind="stable")[:keep]
        rows.append(
            (
                rank_correlation(rule.scores(sample), sample.likelihood),
                sample.right[kept].mean(),
                sample.right.mean(),
                sample.right[kept].mean() - sample.right.mean(),
                sample.objects[kept].mean() - sample.objects.mean(),
                sample.likelihood[kept].mean() - sample.likelihood.mean(),
                _spread(sample.features[kept]) / _spread(sample.features),
            )
        )
    return Outcome(*(over_prompts(column) for column in np.array(rows, dtype=float).T))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]


def _spread(features: np.ndarray) -> float:
    """Mean Euclidean distance over all pairs."""
    distances = np.linalg.norm(features[:, None] - features[None], axis=-1)
    return float(distances[np.triu_indices(len(features), 1)].mean())
