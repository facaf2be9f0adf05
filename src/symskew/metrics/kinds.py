"""What a metric is: features of images go in, named scores come out, and samples are joined by id.

An `Extractor` looks at images once; its arrays are stored, and every metric is computed from them, so that a new one
needs no image. There are three kinds of metrics: of a sample, of pairs of samples of one prompt (diversity), and of a
set of samples against real images.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from PIL.Image import Image

if TYPE_CHECKING:
    from symskew.metrics.weights import Source

__all__ = [
    "Comparison",
    "Extractor",
    "Features",
    "Metric",
    "Pair",
    "PairMetric",
    "Quantity",
    "SampleMetric",
    "SetMetric",
    "sha256",
]

Features = Mapping[str, np.ndarray]
"""Named arrays of an extractor; the first axis of each is the image."""


@runtime_checkable
class Extractor(Protocol):
    """Turns images into arrays. Cheap to make: weights are read when first needed.

    An image's arrays do not depend on the images it comes with (beyond rounding). The `id` names weights, number format
    and version.

    Attributes:
        id: such as `ensemble-judge/fp32@1`.
        version: of the code that prepares and reads an image; part of the id.
        dtype: number format of the computation (`fp32`); part of the id.
        kept: whether to store the arrays. Where False they are large and are made again from the images when needed.
        sources: the published weights it needs; none where they come with symskew.
        memory: bytes of its device that it takes, about: its weights, and room to compute.
    """

    id: str
    version: str
    dtype: str
    kept: bool
    sources: tuple[Source, ...]
    memory: int

    @property
    def weights(self) -> str:
        """SHA-256 of the weights' file. `FileNotFoundError` where it is not on this machine; names the remedy."""
        ...

    def extract(self, images: Sequence[Image]) -> dict[str, np.ndarray]:
        """The named arrays of images, a row per image; `ValueError` for images of a form that is not accepted."""
        ...


@cache
def sha256(*files: Path) -> str:
    """Of files, one after the other; read once per process."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Quantity:
    """A number that is reported: its id (the name of its column), and what it means.

    `short` is what it may be called when it is asked for, where its id has a number format and a version in it.
    """

    id: str
    title: str
    unit: str
    higher_is_better: bool
    version: str = "1"
    short: str = ""


class Metric(ABC):
    """What all kinds have in common: the quantities they report, and the extractor they need (None: none).

    `sources` are published weights that the metric needs beside its extractor's.
    """

    kind: ClassVar[Literal["sample", "pair", "set"]]
    quantities: tuple[Quantity, ...]
    extractor: str | None
    sources: tuple[Source, ...] = ()

    def check(self, prompt: str) -> None:  # noqa: B027 — most metrics take any
        """`ValueError` for a prompt whose images cannot be scored, whatever they show."""


class OneQuantity(Metric):
    """A metric that reports one number, and is called by its name."""

    @property
    def id(self) -> str:
        """The name of the metric and of its column."""
        return self.quantities[0].id

    @property
    def title(self) -> str:
        """For a table or an axis."""
        return self.quantities[0].title

    @property
    def unit(self) -> str:
        """What the numbers count; empty for a plain number."""
        return self.quantities[0].unit

    @property
    def higher_is_better(self) -> bool:
        """The direction."""
        return self.quantities[0].higher_is_better


class SampleMetric(OneQuantity):
    """One number per sample."""

    kind = "sample"

    @abstractmethod
    def score(self, features: Features, prompts: Sequence[str]) -> Float[np.ndarray, " images"]:
        """The scores of images, given what was asked for.

        Raises:
            ValueError: a prompt that cannot be scored, or not one prompt per image.
        """


class Pair(NamedTuple):
    """How far two samples of a group are apart; `first` < `second` are rows of the features."""

    first: int
    second: int
    value: float


class PairMetric(OneQuantity):
    """One number per group: the samples of one prompt under one setting, which differ by their seeds."""

    kind = "pair"

    @abstractmethod
    def score(self, features: Features, prompt: str) -> float:
        """How different the samples of a group are.

        NaN says that nothing can be compared, never that something failed; the metric says when. Leave that group out.

        Raises:
            ValueError: fewer than two samples, or a prompt that cannot be scored.
        """

    def pairs(self, features: Features, prompt: str) -> list[Pair]:
        """The pairs that `score` is the mean of; empty for a metric that is of the group as a whole."""
        return []


class Comparison(Protocol):
    """Real images that were studied once, for generated ones to be compared with."""

    def scores(
        self, generated: Features, subsets: Sequence[Int[np.ndarray, " rows"]] | None = None
    ) -> list[dict[str, float]]:
        """The quantities of each subset of the generated images (distinct rows; None: one, of all), and both sizes.

        Raises:
            ValueError: too few images, features of another width, or rows that are no subset.
        """
        ...


class SetMetric(Metric):
    """Numbers for a set of generated images against a set of real ones (some need no real ones, and ignore them)."""

    kind = "set"

    @abstractmethod
    def against(self, reference: Features) -> Comparison:
        """What any generated set needs to be known of the real ones, computed once.

        Raises:
            ValueError: too few images.
        """

    def score(self, generated: Features, reference: Features) -> dict[str, float]:
        """The quantities by id; and `generated` and `reference`, the numbers of images, on which they depend."""
        return self.against(reference).scores(generated)[0]
