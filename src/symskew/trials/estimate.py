"""Means with intervals where prompts are the units, and seeds within a prompt are not independent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts with its 95% bootstrap interval."""

    mean: float
    low: float
    high: float
    prompts: int

    @classmethod
    def of(cls, per_prompt: np.ndarray, *, draws: int = 10_000, seed: int = 0) -> Estimate:
        """From one number per prompt; prompts are drawn again with replacement."""
        values = np.asarray(per_prompt, dtype=float)
        rng = np.random.default_rng(seed)
        means = values[rng.integers(len(values), size=(draws, len(values)))].mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        return cls(float(values.mean()), float(low), float(high), len(values))

    def text(self, spec: str = ".3f", *, sign: bool = False) -> str:
        """As `mean (low to high)`."""
        mark = "+" if sign else ""
        return f"{self.mean:{mark}{spec}} ({self.low:{mark}{spec}} to {self.high:{mark}{spec}})"
