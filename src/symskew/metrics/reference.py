"""Real images of Ensemble as features: what generated ones are compared with.

`python -m symskew.metrics.reference --mnist DIR` makes the shipped file anew, the same for the same judge.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from jaxtyping import Int8
from PIL import Image
from rich.console import Console

from symskew import ensemble
from symskew.ensemble.data import ABSENT, digit_index, draw_scene, label
from symskew.ensemble.mnist import Digits, load_mnist
from symskew.ensemble.prompts import draw_objects, parse_caption
from symskew.ensemble.vocabulary import MAX_OBJECTS
from symskew.metrics import real
from symskew.metrics.judging import EnsembleJudge
from symskew.metrics.kinds import Extractor

__all__ = ["Reference", "load", "make", "save", "shipped"]

COUNT, SEED = 1600, 20
"""Images of the shipped file, 400 with each number of objects, and what they are drawn from; 2.8 MB."""


@dataclass(frozen=True)
class Reference(real.RealImages):
    """Features of real images of Ensemble, in half precision.

    Attributes:
        labels: per colour the digit that is in the image, or `ABSENT`.
    """

    labels: Int8[np.ndarray, "images 6"]

    def matching(self, prompts: Sequence[str]) -> Reference:
        """The first images with as many objects as the prompts ask for, in the same proportions, as many as there are.

        Prompts of three objects are then compared with all 400 real images of three objects.

        Raises:
            ValueError: no prompt, or one that is not in Ensemble's language.
        """
        if not prompts:
            raise ValueError("reference: expected prompts whose numbers of objects to match, got none")
        wanted = Counter(len(parse_caption(prompt)) for prompt in prompts)
        numbers = (self.labels != ABSENT).sum(1)
        times = min(Fraction(int((numbers == number).sum()), share) for number, share in wanted.items())
        chosen = np.sort(
            np.concatenate([np.flatnonzero(numbers == n)[: int(times * share)] for n, share in wanted.items()])
        )
        return replace(
            self, features={name: array[chosen] for name, array in self.features.items()}, labels=self.labels[chosen]
        )


def make(digits: Digits, eye: Extractor, *, count: int = COUNT, seed: int = SEED) -> Reference:
    """Draw real images, one to four objects in turn, any combinations of them, and extract their features.

    The n-th image does not depend on `count`.
    """
    index, images, labels = digit_index(digits), [], []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        objects = draw_objects(rng, number % MAX_OBJECTS + 1, held_out=None)
        images.append(Image.fromarray(draw_scene(rng, objects, digits, index)))
        labels.append(label(objects))
    features = {name: array.astype(np.float16) for name, array in eye.extract(images).items()}
    metadata = {"count": count, "seed": seed, "extractor": eye.id, "weights": eye.weights}
    return Reference(features, metadata, np.stack(labels))


def save(reference: Reference, path: Path) -> None:
    """Write a reference as one safetensors file, whole or not at all."""
    real.save(reference, path, labels=reference.labels)


def shipped() -> Path:
    """Where the shipped reference is."""
    return Path(ensemble.__file__).parent / "models" / "reference.safetensors"


@cache
def load(path: Path | None = None, eye: Extractor | None = None) -> Reference:
    """The shipped reference, or that at `path`, for features of `eye` (None: the shipped judge).

    Raises:
        FileNotFoundError: there is no file.
        ValueError: it is not a reference, or was made by another extractor or with other weights; names the remedy.
    """
    file, eye = path or shipped(), eye or EnsembleJudge()
    if not file.is_file():
        raise FileNotFoundError(f"reference: there is no file {file}; the package may be damaged: install it again")
    arrays, metadata = real.arrays_in(file)
    if "labels" not in arrays:
        raise ValueError(f"reference: {file} is not a reference of images of Ensemble")
    labels = arrays.pop("labels")
    for name, came in (("extractor", eye.id), ("weights", eye.weights)):
        if metadata[name] != came:
            raise ValueError(
                f"reference: {file} holds features of {name} {metadata[name]}, and those in use are of {came}, so that "
                "distances would mean nothing; make it anew: python -m symskew.metrics.reference --mnist DIR"
            )
    return Reference(arrays, metadata, labels)


def main(
    mnist: Annotated[Path | None, typer.Option(help="Folder with MNIST's four .gz files.")] = None,
    count: Annotated[int, typer.Option(help="Images.")] = COUNT,
    seed: Annotated[int, typer.Option(help="Of the images.")] = SEED,
    out: Annotated[Path | None, typer.Option(help="File to write; default: the shipped one.")] = None,
) -> None:
    """Make the reference from MNIST's test digits, with the shipped judge."""
    reference = make(load_mnist("test", mnist), EnsembleJudge(), count=count, seed=seed)
    path = out or shipped()
    save(reference, path)
    Console().print(f"{path.name}: {json.dumps(reference.metadata)}, {path.stat().st_size:,} bytes", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
