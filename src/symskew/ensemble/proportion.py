"""Shares of trials with their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

__all__ = ["Proportion"]


@dataclass(frozen=True)
class Proportion:
    """A share of trials with its 95% Wilson interval."""

    share: float
    low: float
    high: float
    trials: int

    @classmethod
    def of(cls, successes: int, trials: int) -> Proportion:
        """From counts; `ValueError` where there are no trials or more successes than trials."""
        if not 0 <= successes <= trials or trials == 0:
            raise ValueError(f"Proportion.of: expected 0 ≤ successes ≤ trials ≠ 0, got {successes} of {trials}")
        z = 1.959964
        share = successes / trials
        centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
        half = z / (1 + z**2 / trials) * sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
        return cls(share, max(0.0, centre - half), min(1.0, centre + half), trials)

    def __str__(self) -> str:
        return f"{self.share:.1%} ({self.low:.1%} to {self.high:.1%})"
