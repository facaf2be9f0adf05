"""How different the images of one prompt are across seeds: where things are, how they are written, and all in all.

A diversity is the mean over pairs of seeds. Errors are no diversity: where a prompted colour cannot be compared between
two images, it is left out of that pair, and a pair without any comparable colour is left out of the mean.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from symskew.ensemble.judge import ABSENT_CLASS, SEVERAL_CLASS
from symskew.ensemble.vocabulary import COLOUR_NAMES
from symskew.metrics.correctness import objects_of_prompt
from symskew.metrics.judging import ID
from symskew.metrics.kinds import Features, Pair, PairMetric, Quantity
from symskew.metrics.views import normalised

__all__ = ["METRICS", "FeatureDiversity", "HandwritingDiversity", "LayoutDiversity", "PairwiseMetric"]


class PairwiseMetric(PairMetric):
    """A diversity that is the mean over pairs; NaN where no pair can be compared."""

    extractor = ID

    def __init__(self, quantity: Quantity) -> None:
        self.quantities = (quantity,)

    def score(self, features: Features, prompt: str) -> float:
        """The mean over `pairs`; NaN where there is none that can be compared."""
        values = [pair.value for pair in self.pairs(features, prompt)]
        return float(np.mean(values)) if values else float("nan")

    def pairs(self, features: Features, prompt: str) -> list[Pair]:
        """All pairs of rows that can be compared."""
        count = len(next(iter(features.values())))
        if count < 2:
            raise ValueError(f"{self.id}: expected at least two samples of {prompt!r}, got {count}")
        distances, compared = self._distances(features, prompt)
        return [Pair(a, b, float(distances[a, b])) for a, b in combinations(range(count), 2) if compared[a, b]]

    @abstractmethod
    def _distances(
        self, features: Features, prompt: str
    ) -> tuple[Float[np.ndarray, "images images"], Bool[np.ndarray, "images images"]]:
        """The distance of each pair, and whether it means anything."""


class LayoutDiversity(PairwiseMetric):
    """Mean distance between the places of the same colour in two images, in units of the image's width.

    Over the prompted colours that both images have in one place: the judge reads neither as absent nor as several
    digits. A colour's place is the centroid of its ink. Real images of one prompt have 0.35 (one object) to 0.38
    (four objects).
    """

    def check(self, prompt: str) -> None:
        """`ValueError` for one that Ensemble's language does not have."""
        objects_of_prompt(self.id, prompt)

    def _distances(
        self, features: Features, prompt: str
    ) -> tuple[Float[np.ndarray, "images images"], Bool[np.ndarray, "images images"]]:
        colours = [COLOUR_NAMES.index(item.colour) for item in sorted(objects_of_prompt(self.id, prompt))]
        classes = features["log_probabilities"][:, colours].argmax(-1)
        placed = (classes != ABSENT_CLASS) & (classes != SEVERAL_CLASS)
        places = features["layout"][:, colours, :2].astype(np.float64)
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
        return _mean_over_colours(apart, placed)


class HandwritingDiversity(PairwiseMetric):
    """Mean cosine distance (0 to 1) between the judge's 128 features of the same object in two images.

    Over the prompted objects that both images show right: a wrong digit would look like another handwriting. The
    features are the greatest and mean evidence over the image, so the place of the digit hardly counts. Real images
    of one prompt have 0.08.
    """

    def check(self, prompt: str) -> None:
        """`ValueError` for one that Ensemble's language does not have."""
        objects_of_prompt(self.id, prompt)

    def _distances(
        self, features: Features, prompt: str
    ) -> tuple[Float[np.ndarray, "images images"], Bool[np.ndarray, "images images"]]:
        objects = sorted(objects_of_prompt(self.id, prompt))
        colours = [COLOUR_NAMES.index(item.colour) for item in objects]
        right = features["log_probabilities"][:, colours].argmax(-1) == [item.digit for item in objects]
        planes = features["features"].astype(np.float64).reshape(len(right), len(COLOUR_NAMES), -1)[:, colours]
        units = normalised(planes.reshape(-1, planes.shape[-1])).reshape(planes.shape)
        return _mean_over_colours(1 - np.einsum("icf,jcf->ijc", units, units), right)


class FeatureDiversity(PairwiseMetric):
    """Mean cosine distance (0 to 1) between all 768 features: errors count, and look like diversity."""

    def _distances(
        self, features: Features, prompt: str
    ) -> tuple[Float[np.ndarray, "images images"], Bool[np.ndarray, "images images"]]:
        units = normalised(features["features"].astype(np.float64))
        return 1 - units @ units.T, np.ones((len(units), len(units)), bool)


def _mean_over_colours(
    distances: Float[np.ndarray, "images images colours"], comparable: Bool[np.ndarray, "images colours"]
) -> tuple[Float[np.ndarray, "images images"], Bool[np.ndarray, "images images"]]:
    both = comparable[:, None] & comparable[None]
    count = both.sum(-1)
    return (distances * both).sum(-1) / count.clip(1), count > 0


METRICS = (
    LayoutDiversity(Quantity("ensemble/diversity-layout", "Diversity of layout", "image widths", True)),
    HandwritingDiversity(
        Quantity("ensemble/diversity-handwriting", "Diversity of handwriting", "cosine distance", True)
    ),
    FeatureDiversity(Quantity("ensemble/diversity-features", "Diversity of features", "cosine distance", True)),
)
