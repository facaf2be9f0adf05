"""What every training shares: a wall-clock budget, a log, an average of the weights, checkpoints that resume."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Average", "Budget", "Log", "learning_rate", "load_checkpoint", "save_checkpoint"]


class Budget:
    """How much of a training is done: by steps where `steps` is given (exactly repeatable), by wall-clock otherwise.

    Wall-clock is what a shared machine has; the learning rate follows the elapsed share, so training always ends in a
    finished decay. `spent` carries the seconds of earlier sittings over a resume.
    """

    def __init__(self, *, minutes: float | None = None, steps: int | None = None, spent: float = 0.0) -> None:
        if (minutes is None) == (steps is None):
            raise ValueError(f"Budget: give either minutes or steps, got minutes={minutes} and steps={steps}")
        self.minutes, self.steps, self._before, self._start = minutes, steps, spent, time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds of training so far, over all sittings."""
        return self._before + time.monotonic() - self._start

    def restart(self) -> None:
        """Count this sitting from now: compilation, which happens in the first step, is not training."""
        self._start = time.monotonic()

    def share(self, step: int) -> float:
        """The share of the budget that is used up before `step`, 0 to 1."""
        done = step / self.steps if self.steps else self.spent / (60 * (self.minutes or 1))
        return min(1.0, done)


def learning_rate(share: float, peak: float, *, warmup: float = 0.02, flat: float = 0.0) -> float:
    """Linear warm-up over the first `warmup` of the budget, constant until `flat`, then linear decay to zero."""
    if share < warmup:
        return peak * max(share, warmup / 50) / warmup
    start = max(warmup, flat)
    return peak if share < start else peak * (1 - share) / (1 - start)


class Average:
    """Exponential moving average of weights; warms up so that the first steps do not linger."""

    def __init__(self, weights: Iterable[Tensor], decay: float = 0.999) -> None:
        self.source = list(weights)
        self.shadow = [w.detach().clone() for w in self.source]
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights as they are after `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for shadow, weight in zip(self.shadow, self.source, strict=True):
            shadow.lerp_(weight.detach(), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their average (call again to undo)."""
        for weight, shadow in zip(self.source, self.shadow, strict=True):
            kept = weight.detach().clone()
            weight.copy_(shadow)
            shadow.copy_(kept)


class Log:
    """A JSON line per report, appended to a file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def __call__(self, **values: Any) -> None:
        """Append one line of values, floats to five digits."""
        rounded = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(rounded) + "\n")


def save_checkpoint(path: Path, **state: Any) -> None:
    """Write a checkpoint in one piece: a crash half way leaves the earlier one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state that `save_checkpoint` wrote, or None where there is none yet."""
    return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None


def parameters_of(*modules: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters of several modules, in order."""
    return [p for module in modules for p in module.parameters() if p.requires_grad]
