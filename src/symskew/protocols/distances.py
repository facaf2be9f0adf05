"""How far the images of a setting are from the vanilla ones, in the features of an extractor."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from symskew.protocols.evidence import Evidence
from symskew.statistics import Estimate, grouped_mean, paired_change

COLUMN = "distance"
"""Of the frame of evidence that was kept without features: for each sample what `measured` found."""
Distances = tuple[Float[np.ndarray, "samples"], Int[np.ndarray, "samples"]]
"""Distances, and the number of each one's prompt."""


def measurable(evidence: Evidence) -> bool:
    """Whether there are features to measure distances in, or what was measured in them."""
    return evidence.features is not None or COLUMN in evidence.frame


def measured(evidence: Evidence) -> Float[np.ndarray, "samples"]:
    """The one distance of each sample that tables are made of; NaN for samples without.

    Of a vanilla image from that of another seed, of any other from the vanilla one of the same prompt and seed.
    """
    found = np.full(len(evidence.frame), np.nan)
    for setting in dict.fromkeys(evidence.frame["setting_id"]):
        if setting == evidence.vanilla:
            rows, others, _ = _neighbours(evidence)
        else:
            (rows, others), _ = evidence.matched(setting, evidence.vanilla)
        if len(rows):
            found[rows] = _apart(evidence, rows, others)
    return found


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
    rows, others, prompts = _neighbours(evidence)
    return _apart(evidence, rows, others), prompts


def mean_distance(distances: Distances) -> Estimate | None:
    """The mean over prompts; None for fewer than two."""
    values, prompts = distances
    return grouped_mean(values, prompts) if len(np.unique(prompts)) > 1 else None


def _neighbours(evidence: Evidence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The places of vanilla images, of those of the next seed of their prompts, and the numbers of the prompts."""
    arm = evidence.arm(evidence.vanilla)
    starts = np.flatnonzero(np.diff(arm.prompts, prepend=-1))
    following = np.append(np.arange(1, len(arm.rows)), 0)
    following[np.append(starts[1:], len(arm.rows)) - 1] = starts
    several = following != np.arange(len(arm.rows))
    return arm.rows[several], arm.rows[following[several]], arm.prompts[several]


def _apart(evidence: Evidence, some: np.ndarray, others: np.ndarray) -> Float[np.ndarray, "samples"]:
    if evidence.features is None and COLUMN in evidence.frame:
        return evidence.frame[COLUMN].to_numpy(float)[some]
    one, other = (_points(evidence.embedded(rows)) for rows in (some, others))
    apart = np.sqrt(((one - other) ** 2).sum(tuple(range(1, one.ndim))))
    return apart.astype(np.float32).astype(np.float64)  # as they are kept


def _points(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """What an extractor makes of each image, whether it is for measuring distances or for comparing with a text."""
    return (arrays["features"] if "features" in arrays else arrays["embedding"]).astype(np.float64)
