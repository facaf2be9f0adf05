"""What an image of Ensemble gets right and wrong, by the judge's reading held against the prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from symskew.ensemble.judge import Reading
from symskew.ensemble.prompts import parse_caption
from symskew.ensemble.verdict import FAILURES, Verdict, compare
from symskew.ensemble.vocabulary import ColouredDigit
from symskew.metrics.judging import ID
from symskew.metrics.kinds import Features, Quantity, SampleMetric

__all__ = ["METRICS", "VerdictMetric", "objects_of_prompt"]


class VerdictMetric(SampleMetric):
    """One number of each image's `Verdict`."""

    extractor = ID

    def __init__(self, quantity: Quantity, number: Callable[[Verdict], float]) -> None:
        self.quantities = (quantity,)
        self._number = number

    def check(self, prompt: str) -> None:
        """`ValueError` for one that Ensemble's language does not have."""
        objects_of_prompt(self.id, prompt)

    def score(self, features: Features, prompts: Sequence[str]) -> Float[np.ndarray, " images"]:
        """From `log_probabilities`; `ValueError` for a prompt that Ensemble's language does not have."""
        rows = features["log_probabilities"].astype(np.float64)
        if len(rows) != len(prompts):
            raise ValueError(f"{self.id}: expected a prompt for each image, got {len(prompts)} for {len(rows)} images")
        wanted = {prompt: objects_of_prompt(self.id, prompt) for prompt in set(prompts)}
        verdicts = [compare(Reading.of(row), wanted[prompt]) for row, prompt in zip(rows, prompts, strict=True)]
        return np.array([self._number(verdict) for verdict in verdicts], np.float64)


def objects_of_prompt(where: str, prompt: str) -> frozenset[ColouredDigit]:
    """What a prompt asks for; `ValueError` that names the metric where the prompt is not in Ensemble's language."""
    try:
        return parse_caption(prompt)
    except ValueError as error:
        raise ValueError(f"{where}: only prompts for Ensemble can be scored; {error}") from error


def _count(kind: str) -> Callable[[Verdict], float]:
    return lambda verdict: sum(failure.kind == kind for failure in verdict.failures)


METRICS = (
    VerdictMetric(
        Quantity("ensemble/all-right", "Entirely right", "share of images", True), lambda verdict: verdict.all_right
    ),
    VerdictMetric(
        Quantity("ensemble/objects-right", "Objects right", "share of the prompt's objects", True),
        lambda verdict: verdict.accuracy,
    ),
    VerdictMetric(
        Quantity("ensemble/log-likelihood", "Log-likelihood of the prompt", "nats", True),
        lambda verdict: verdict.log_likelihood,
    ),
    *(
        VerdictMetric(Quantity(f"ensemble/{kind}", f"{kind.capitalize()} objects", "per image", False), _count(kind))
        for kind in FAILURES
    ),
)
"""Counts of failures are per kind, as `symskew.ensemble.verdict.FAILURES` tells them apart."""
