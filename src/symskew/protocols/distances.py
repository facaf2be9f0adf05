"""How far the images of a setting are from the vanilla ones, in the features of an extractor."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from symskew.protocols.evidence import Evidence
from symskew.statistics import Estimate, grouped_mean, paired_change

Distances = tuple[Float[np.ndarray, "samples"], Int[np.ndarray, "samples"]]
"""Distances, and the number of each one's prompt."""


def from_vanilla(evidence: Evidence, setting: str) -> Distances:
    """Euclidean distance of each image from the vanilla image of the same prompt and seed.

    Raises:
        MissingError: the study kept no features.
    """

    def compute() -> Distances:
        (treated, vanilla), prompts = evidence.matched(setting, evidence.vanilla)
        return _apart(evidence, treated, vanilla), prompts

    return evidence.remember(("distance", setting), compute)


def farther(evidence: Evidence, one: str, other: str) -> Estimate | None:
    """How much farther the images of one setting are from vanilla than those of another, same prompts and seeds."""
    (first, second, vanilla), prompts = evidence.matched(one, other, evidence.vanilla)
    if len(np.unique(prompts)) < 2:
        return None
    return paired_change(_apart(evidence, first, vanilla), _apart(evidence, second, vanilla), prompts).estimate


def between_seeds(evidence: Evidence) -> Distances:
    """The distance of each vanilla image from that of another seed of its prompt: as far as chance goes."""
    arm = evidence.arm(evidence.vanilla)
    starts = np.flatnonzero(np.diff(arm.prompts, prepend=-1))
    following = np.append(np.arange(1, len(arm.rows)), 0)
    following[np.append(starts[1:], len(arm.rows)) - 1] = starts
    several = following != np.arange(len(arm.rows))
    return _apart(evidence, arm.rows[several], arm.rows[following[several]]), arm.prompts[several]


def mean_distance(distances: Distances) -> Estimate | None:
    """The mean over prompts; None for fewer than two."""
    values, prompts = distances
    return grouped_mean(values, prompts) if len(np.unique(prompts)) > 1 else None


def _apart(evidence: Evidence, some: np.ndarray, others: np.ndarray) -> Float[np.ndarray, "samples"]:
    one, other = (_points(evidence.embedded(rows)) for rows in (some, others))
    return np.sqrt(((one - other) ** 2).sum(tuple(range(1, one.ndim))))


def _points(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """What an extractor makes of each image, whether it is for measuring distances or for comparing with a text."""
    return (arrays["features"] if "features" in arrays else arrays["embedding"]).astype(np.float64)
