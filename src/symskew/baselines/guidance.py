"""Guidance away from a weaker self, by a pass with blurred queries or with another circulation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from symskew.baselines.base import Attached, Baseline, hashable, number
from symskew.circulation import Circulation
from symskew.perturbation import Blur, Circulating
from symskew.selection import Selector, choose_layers
from symskew.weak import check_weaken, weaken


@dataclass(frozen=True)
class SEG(Baseline):
    """Smoothed energy guidance (Hong 2024, NeurIPS 37): away from the prediction with blurred self-attention.

        guided      u + ω·(c − u) + scale·(c − w)       w: the conditional prediction, its queries blurred

    Agrees with diffusers' guider, but for two mistakes in version 0.42.1: it never attaches its hooks, and its blur
    takes the mean of the queries for a finite sigma, and a box for an infinite one, where the paper has the reverse.

    Args:
        scale: above 0; the paper uses 3.
        sigma: width of the Gaussian, in tokens of the layer; inf, the paper's choice, makes all queries the same.
        layers: where attention is perturbed, as in `symskew.control`.

    Raises:
        ValueError: numbers out of range.

    >>> SEG(3).to_dict(), SEG(3, 2).to_dict()
    ({'name': 'seg', 'scale': 3.0}, {'name': 'seg', 'scale': 3.0, 'sigma': 2.0})
    """

    name: ClassVar[str] = "seg"
    passes: ClassVar[int] = 3
    scale: float
    sigma: float = math.inf
    layers: Selector = "mid"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", number("SEG", "scale", self.scale))
        if self.sigma != math.inf:
            object.__setattr__(self, "sigma", number("SEG", "sigma", self.sigma))
        object.__setattr__(self, "layers", hashable(self.layers))

    def check(self, pipe: Any) -> None:
        """A pipeline whose guidance is known, and layers it has."""
        check_weaken(pipe, self.scale)
        choose_layers(pipe, self.layers)

    @contextmanager
    def attach(self, pipe: Any, seeds: Sequence[int] = (0,)) -> Iterator[Attached]:
        """The same pipeline, which takes one more pass per step."""
        with weaken(pipe, self.scale, Blur(self.sigma), layers=self.layers):
            yield Attached(pipe, {})


@dataclass(frozen=True)
class CirculatedGuidance(Baseline):
    """Guidance away from the prediction with another circulation: the knob as a weak branch.

        guided      u + ω·(c − u) + scale·(c − w)       w: the conditional prediction, its attention circulated

    Args:
        scale: above 0.
        circulation: of the weak branch, by numbers; `Circulation.sym_only()` guides towards more circulation.
        layers: where attention is circulated, as in `symskew.control`.

    Raises:
        ValueError: a scale out of range, a circulation that does nothing, or one with tensors.

    >>> CirculatedGuidance(2, Circulation(0.0)).to_dict()
    {'name': 'circulated', 'scale': 2.0, 'circulation': {'alpha': 0.0}}
    """

    name: ClassVar[str] = "circulated"
    passes: ClassVar[int] = 3
    scale: float
    circulation: Circulation
    layers: Selector = "mid"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", number("CirculatedGuidance", "scale", self.scale))
        object.__setattr__(self, "layers", hashable(self.layers))
        Circulating(self.circulation)

    @property
    def alone(self) -> bool:
        """Whether the circulation adapts to the whole call."""
        return self.circulation.adaptive == "call"

    def check(self, pipe: Any) -> None:
        """A pipeline whose guidance is known, and layers it has."""
        check_weaken(pipe, self.scale)
        choose_layers(pipe, self.layers)

    @contextmanager
    def attach(self, pipe: Any, seeds: Sequence[int] = (0,)) -> Iterator[Attached]:
        """The same pipeline, which takes one more pass per step."""
        with weaken(pipe, self.scale, Circulating(self.circulation), layers=self.layers):
            yield Attached(pipe, {})
