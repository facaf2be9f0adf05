"""What of an extractor's arrays is compared: one point per image, or one for each object that is seen in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from symskew.ensemble.judge import ABSENT_CLASS
from symskew.ensemble.vocabulary import COLOUR_NAMES
from symskew.metrics.kinds import Features, Metric

__all__ = ["Points", "View", "checked", "normalised", "of_images", "of_objects", "sizes", "subset"]


class Points(NamedTuple):
    """Points of a set of images: their features, and the number of the image (ascending) that each is of."""

    rows: Float[np.ndarray, "points width"]
    image: Int[np.ndarray, " points"]
    images: int


View = Callable[[Features], Points]


def of_images(features: Features) -> Points:
    """Each image is a point: its row of `features`."""
    rows = features["features"].astype(np.float64)
    return Points(rows, np.arange(len(rows)), len(rows))


def of_objects(features: Features) -> Points:
    """Each colour that the judge of Ensemble does not read as absent is a point: its 128 features.

    Whole images are of too many kinds to be compared by their distances: four objects alone can be combined in 150,000
    ways, and an image is nearest to those that share its objects, well drawn or not. Objects are of ten kinds. Measured
    with 384 images against 1,920 real ones (MNIST's test digits): by images, real images of only 48 prompts are at a
    Fréchet distance of 271 and have a recall of 0.08, worse than images of any prompts with one object cut (137, 0.90)
    or scrambled (125, 0.91); by objects they are at 3.7 with a recall of 0.94, the spoilt ones at 37 and 28. The digits
    of few prompts are still not those of all (others are at 1.1), so compare settings on the same prompts.
    """
    there = features["log_probabilities"].argmax(-1) != ABSENT_CLASS
    planes = features["features"].reshape(len(there), len(COLOUR_NAMES), -1)
    return Points(planes[there].astype(np.float64), there.nonzero()[0], len(there))


def normalised(rows: Float[np.ndarray, "points width"]) -> Float[np.ndarray, "points width"]:
    """Rows of length 1; a row of zeros stays as it is."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)


def checked(metric: Metric, generated: Points, reference: Points, *, least: int) -> tuple[Points, Points]:
    """Two sets that can be compared; `ValueError` where one has fewer points than needed, or another width."""
    if min(len(generated.rows), len(reference.rows)) < least or generated.rows.shape[1] != reference.rows.shape[1]:
        raise ValueError(
            f"{metric.quantities[0].id}: expected two sets of at least {least} points with features of one width, got "
            f"{generated.rows.shape} from {generated.images} generated images and {reference.rows.shape} from "
            f"{reference.images} real ones"
        )
    return generated, reference


def subset(name: str, points: Points, rows: Int[np.ndarray, " rows"] | None, *, least: int) -> Int[np.ndarray, " rows"]:
    """The numbers of the points of some images (None: all).

    Raises:
        ValueError: they have fewer points than the metric needs, are outside the set, or not distinct: a copy of an
            image is its own nearest neighbour, so that drawing with replacement would measure the drawing.
    """
    if rows is None:
        return np.arange(len(points.rows))
    taken = np.zeros(points.images, bool)
    rows = np.asarray(rows)
    if rows.size and (rows.min() < 0 or rows.max() >= points.images):
        raise ValueError(f"{name}: expected rows of {points.images} images, got {rows.min()} to {rows.max()}")
    taken[rows] = True
    if taken.sum() < len(rows):
        raise ValueError(f"{name}: expected every row once, got {len(rows)} of which {taken.sum()} are distinct")
    chosen = np.flatnonzero(taken[points.image])
    if len(chosen) < least:
        raise ValueError(f"{name}: expected at least {least} points, got {len(chosen)} from {len(rows)} images")
    return chosen


def sizes(points: Points, rows: Int[np.ndarray, " rows"] | None, reference: Points) -> dict[str, float]:
    """The numbers of images, which go with every number about sets."""
    return {
        "generated": float(points.images if rows is None else len(rows)),
        "reference": float(reference.images),
    }
