"""What one layer gave in one forward, and who its rows are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from symskew.grid import Grid
from symskew.timeline import Moment, Time

MEASURES = ("energy", "instability", "alignment", "symmetry", "skew_ratio", "alpha", "beta")
"""What is measured per head."""
RETRIEVALS = ("vanilla", "controlled")
STATES = ("input", "value")
MAPS = ("agreement", "conflict")
"""λ (Eq. 26) averaged over features and heads; share of features and heads with λ < 0."""


@dataclass(frozen=True)
class Place:
    """Where a layer is in its model."""

    name: str
    stage: str
    index: int
    depth: float


@dataclass(eq=False)
class Reading:
    """What one layer gave in one forward of the denoiser."""

    layer: int
    """Its place among the record's layers."""
    states: int
    """Its place among `STATES`."""
    given: int
    """Rows that the layer was given: more than the denoiser where each frame of a video is one."""
    numbers: Tensor
    """(retrievals, rows, heads, measures): vanilla first, then controlled if there was a control; `MEASURES`."""
    maps: Tensor | None = None
    """(retrievals, rows, 2, tokens): `MAPS`, of the image's tokens; or of a text's, NaN where one is padding."""
    grid: Grid | None = None
    """What the tokens fold to; (tokens,) for a text."""


@dataclass(eq=False)
class Generation:
    """The moments of one generation, whichever denoiser ran, each with its readings."""

    number: int
    moments: list[Moment] = field(default_factory=list)
    readings: list[list[Reading]] = field(default_factory=list)
    times: list[Time] = field(default_factory=list)


class Shape(NamedTuple):
    """Retrievals, rows and heads of a reading, and whose the rows are."""

    retrievals: int
    rows: int
    heads: int
    samples: int
    branches: tuple[str, ...]


def row_count(reading: Reading, per_head: bool) -> int:
    """How many rows of a table a reading makes."""
    retrievals, rows, heads, _ = reading.numbers.shape
    return retrievals * rows * (heads if per_head else 1)


def row_pattern(shape: Shape, branches: list[str]) -> Tensor:
    """Who the rows of a reading are: (rows, 6), its line, retrieval, sample, branch, head, and whether it was used."""
    retrievals, rows, heads, samples, own = shape
    if rows % samples:  # rows that are no images of the batch, but parts of it
        samples = rows
    if (present := rows // samples) < len(own):  # PAG takes out the perturbed rows, FasterCache the unconditional
        own = own[:present] if "perturbed" in own else own[-present:]
    retrieval, row, head = torch.meshgrid(*(torch.arange(n) for n in (retrievals, rows, heads)), indexing="ij")
    codes = torch.tensor([branches.index(name) for name in own])
    branch = codes[(row // samples).clamp(max=len(own) - 1)]
    line = retrieval * rows + row
    return torch.stack([line, retrieval, row % samples, branch, head, retrieval == retrievals - 1], -1).flatten(0, 2)
