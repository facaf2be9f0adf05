"""Sets of made-up points for the metrics that compare sets: images with several points each, some with none."""

import numpy as np

from symskew.metrics.kinds import Features
from symskew.metrics.views import Points


def view(features: Features) -> Points:
    return Points(features["rows"], features["image"], int(features["images"]))


def cloud(images: int, *, width: int = 8, seed: int = 0, shift: float = 0.0) -> Features:
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), rng.integers(0, 4, size=images))
    rows = rng.normal(size=(len(image), width)) * np.linspace(0.5, 2, width) + shift
    return {"rows": rows, "image": image, "images": np.array(images)}


def taken(features: Features, rows: np.ndarray) -> Features:
    """The set of some images only."""
    chosen = np.isin(features["image"], rows)
    place = np.searchsorted(np.sort(rows), features["image"][chosen])
    return {"rows": features["rows"][chosen], "image": place, "images": np.array(len(rows))}


def subsets(images: int) -> list[np.ndarray]:
    """Nearly all, half, and few of the images."""
    rng = np.random.default_rng(1)
    return [
        np.delete(np.arange(images), [3, 4, 5]),
        rng.permutation(images)[: images // 2],
        rng.permutation(images)[:9],
    ]
