"""Real images of Ensemble from 300 of MNIST's test digits, and what the judge says about them."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from symskew.ensemble.data import digit_index, draw_scene, make_scenes, objects_of
from symskew.ensemble.mnist import Digits
from symskew.ensemble.prompts import caption, parse_caption
from symskew.metrics.judging import EnsembleJudge


@cache
def digits() -> Digits:
    with np.load(Path(__file__).parent / "data" / "mnist-test-300.npz") as file:
        return Digits(file["images"], file["labels"])


@cache
def scenes(count: int, seed: int = 11) -> tuple[list[Image.Image], list[str]]:
    """Images of anything, and captions of them."""
    made = make_scenes(count, digits(), seed=seed, held_out=None)
    return [Image.fromarray(image) for image in made.images], [caption(objects_of(row)) for row in made.labels]


@cache
def seeds(prompt: str, count: int) -> list[Image.Image]:
    """Images of one prompt."""
    objects, index = tuple(sorted(parse_caption(prompt))), digit_index(digits())
    return [
        Image.fromarray(draw_scene(np.random.default_rng((5, seed)), objects, digits(), index)) for seed in range(count)
    ]


@cache
def features(count: int, seed: int = 11) -> dict[str, np.ndarray]:
    return EnsembleJudge().extract(scenes(count, seed)[0])
