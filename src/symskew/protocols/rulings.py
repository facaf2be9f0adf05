"""How a claim is decided: by intervals, with a size below which an effect counts as none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from symskew.protocols.compare import adjusted, student, turned
from symskew.statistics import Estimate
from symskew.statistics.resample import LEVEL
from symskew.table import need

Verdict = Literal["holds", "does not hold", "open"]
HOLDS, FAILS, OPEN = "holds", "does not hold", "open"


class Ruling(NamedTuple):
    """A verdict, the number that decided it, and what that number is."""

    verdict: Verdict
    number: Estimate | None
    why: str


class Found(NamedTuple):
    """An effect that a claim is about."""

    estimate: Estimate
    """Its p is adjusted for all there was to find it among."""
    sign: int
    """1 where the claim wants it above 0, −1 below."""
    slight: float
    """An effect below this size counts as none."""
    what: str

    @property
    def wanted(self) -> Estimate:
        """With its sign turned so that the claim wants it above 0."""
        return self.estimate if self.sign > 0 else turned(self.estimate)

    @property
    def verdict(self) -> Verdict:
        """Holds if interval and p exclude 0 on the wanted side; does not if the interval stays below what is slight."""
        wanted = self.wanted
        if wanted.high < self.slight:
            return FAILS
        return HOLDS if wanted.low > 0 and (wanted.p is None or wanted.p < 0.05) else OPEN


def any_of(found: Sequence[Found]) -> Ruling:
    """Holds if one does; does not hold if none can."""
    clear = [each for each in found if each.verdict == HOLDS]
    best = max(clear or found, key=lambda each: each.wanted.low if clear else each.wanted.high)
    if clear:
        return Ruling(HOLDS, best.estimate, best.what)
    return Ruling(FAILS if all(each.verdict == FAILS for each in found) else OPEN, best.estimate, best.what)


def every(found: Sequence[Found]) -> Ruling:
    """Holds if all do; does not hold if one does not."""
    order = {FAILS: 0, OPEN: 1, HOLDS: 2}
    worst = min(found, key=lambda each: (order[each.verdict], each.wanted.low))
    return Ruling(worst.verdict, worst.estimate, worst.what)


def consistently(found: Sequence[Found]) -> Ruling:
    """Holds if some clearly do and none is clearly the other way; the reverse; open where both happen."""
    against = [each for each in found if each._replace(sign=-each.sign).verdict == HOLDS]
    ruling = any_of(found)
    if not against:
        return ruling
    worst = min(against, key=lambda each: each.wanted.high)
    if ruling.verdict == HOLDS:
        return Ruling(OPEN, worst.estimate, f"{ruling.why} holds, but {worst.what} is the other way")
    return Ruling(FAILS, worst.estimate, worst.what)


def within(found: Sequence[Found]) -> Ruling:
    """Holds if every interval lies within ± the slight effect; does not hold if one lies wholly beyond."""
    beyond = [each for each in found if _least(each.estimate) > each.slight]
    unsure = [each for each in found if max(abs(each.estimate.low), abs(each.estimate.high)) > each.slight]
    some = beyond or unsure or found
    worst = max(some, key=lambda each: abs(each.estimate.value))
    return Ruling(FAILS if beyond else OPEN if unsure else HOLDS, worst.estimate, f"{worst.what}, ±{worst.slight:.3g}")


def not_worse(found: Sequence[Found]) -> Ruling:
    """Holds if all are above − the slight effect on the wanted side; does not hold if one lies wholly below."""
    worst = min(found, key=lambda each: each.wanted.low)
    below = [each for each in found if each.wanted.high < -each.slight]
    each = below[0] if below else worst
    verdict = FAILS if below else HOLDS if worst.wanted.low > -worst.slight else OPEN
    return Ruling(verdict, each.estimate, f"{each.what}, not worse by {each.slight:.3g}")


def together(found: Sequence[Found]) -> list[Found]:
    """The same with p adjusted over these."""
    final = adjusted([each.estimate for each in found])
    return [each._replace(estimate=new) for each, new in zip(found, final, strict=True) if new is not None]


def difference(one: Estimate, other: Estimate) -> Estimate:
    """One − other, of two independent estimates, with Welch's interval and p, of the errors that their intervals imply.

    Degrees of freedom are those of Welch and Satterthwaite: (e₁² + e₂²)² / (e₁⁴ / (n₁ − 1) + e₂⁴ / (n₂ − 1)).
    """
    value, errors = one.value - other.value, (_error(one), _error(other))
    error, half, p = math.hypot(*errors), 0.0, float(value == 0)
    if error:
        freedom = error**4 / sum(e**4 / (each.n - 1) for e, each in zip(errors, (one, other), strict=True))
        half, p = error * _quantile(freedom), 2 * float(_special().stdtr(freedom, -abs(value) / error))
    return Estimate(value, value - half, value + half, one.n + other.n, one.samples + other.samples, p)


def with_p(estimate: Estimate) -> Estimate:
    """The same with the p that its interval implies, if it has none."""
    if estimate.p is not None:
        return estimate
    return dataclasses.replace(estimate, p=student(estimate.value, _error(estimate), estimate.n))


def _error(estimate: Estimate) -> float:
    """The standard error: all intervals are Student's, or made as wide as it."""
    return (estimate.high - estimate.low) / 2 / _quantile(estimate.n - 1)


def _quantile(freedom: float) -> float:
    return float(_special().stdtrit(freedom, (1 + LEVEL) / 2))


def _special() -> Any:
    return need("scipy.special", "study")


def _least(estimate: Estimate) -> float:
    """The smallest size that the interval allows."""
    return 0.0 if estimate.low <= 0 <= estimate.high else min(abs(estimate.low), abs(estimate.high))
