"""One case: what is combined, and what is claimed of control and diagnosis under it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import tiny

ACTS, COMPUTED, REFUSED, UNTESTED = "acts", "acts where computed", "refused", "untested"
MEASURES, MEASURED = "measures", "measures where computed"
BOTH = ("unconditional", "conditional")


@dataclass
class Live:
    """A tiny pipeline with what it is combined with, and what is known of its passes."""

    pipe: Any
    run: Callable[[], Tensor]
    """Generates once, the same each time."""
    layers: str = r".*\.attn1"
    """The denoiser's self-attention modules, as a regular expression on their names."""
    passes: tuple[tuple[str, ...], ...] = (BOTH,)
    """The branches in the batch of each forward of a step, in their order."""
    steps: int = 2
    first: int = 0
    """The place of the first step in the schedule."""
    plan: tuple[tuple[int, tuple[str, ...]], ...] = ()
    """The step and branches of each forward; `passes` in every one of the `steps` if not given."""
    generations: int = 1
    """How many times a run goes through all of that."""
    samples: int = 1
    spared: str = "perturbed"
    """The branch that a layer was not given, where it was given fewer rows."""
    model: nn.Module | None = None
    """Where the attention of the reference is replaced; the pipeline's denoiser if not given."""
    reference: Callable[[], Tensor] | None = None
    """Generates the same without what hides the attention from the reference; `run` if not given."""
    tolerance: float = 1e-3
    """Of the effect of the control, relative to its size."""
    backend: str = ""
    """What computes the attention, as the control has to say."""
    done: Callable[[], None] = lambda: None
    """Puts back what belongs to everyone."""

    def __post_init__(self) -> None:
        self.plan = self.plan or tuple((self.first + n, part) for n in range(self.steps) for part in self.passes)

    def when(self, forward: int) -> tuple[int, int, tuple[str, ...]]:
        """The generation, step and branches of a forward, by its number."""
        return forward // len(self.plan), *self.plan[forward % len(self.plan)]

    @property
    def denoiser(self) -> nn.Module:
        """The module whose attention is replaced in the reference."""
        return self.model or getattr(self.pipe, "unet", None) or self.pipe.transformer


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    part: str
    name: str
    build: Callable[[], Live] | None = None
    """Makes it; None where other tests prove the line, or nothing does."""
    control: str = ACTS
    diagnosis: str = MEASURES
    note: str = ""
    by: tuple[str, ...] = ()
    """The tests that prove it, as file::function, where it does not run as the others do."""
    refusal: str = ""
    """What the error says where something is refused."""


def proved(part: str, name: str, *by: str, control: str = ACTS, diagnosis: str = UNTESTED, note: str = "") -> Case:
    """A case that other tests prove, which may be of the control alone."""
    return Case(part, name, None, control, diagnosis, note, by)


def images(pipe: Any, **arguments: Any) -> Callable[[], Tensor]:
    """A run of a tiny pipeline, as in `tiny.generate`."""
    return lambda: tiny.generate(pipe, **{"steps": 2} | arguments)


def other(kind: str, pipe: Any, **extra: Any) -> Any:
    """Another of diffusers' pipelines around the models of this one."""
    wanted = inspect.signature(getattr(tiny.diffusers, kind)).parameters
    parts = {name: part for name, part in pipe.components.items() if name in wanted}
    made = getattr(tiny.diffusers, kind)(**parts, **extra)
    made.set_progress_bar_config(disable=True)
    return made


def noise(*shape: int, seed: int = 1) -> Tensor:
    """The same random numbers each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
