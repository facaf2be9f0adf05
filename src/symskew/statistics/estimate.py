"""A number with its uncertainty."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95% interval over prompts.

    Attributes:
        value: the statistic.
        low: lower end of the interval.
        high: upper end of the interval.
        n: how many prompts it rests on, which are the clusters.
        samples: how many samples it rests on.
        p: of the test that the function that made it describes; None where it makes none.

    >>> Estimate(0.25, 0.125, 0.375, n=20, samples=80).text(".1%", sign=True)
    '+25.0% (+12.5% to +37.5%)'
    """

    value: float
    low: float
    high: float
    n: int
    samples: int
    p: float | None = None

    def text(self, spec: str = ".3f", *, sign: bool = False) -> str:
        """As `value (low to high)`, each by the format `spec`."""
        mark = "+" if sign else ""
        return f"{self.value:{mark}{spec}} ({self.low:{mark}{spec}} to {self.high:{mark}{spec}})"
