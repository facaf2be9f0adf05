"""The arms of a comparison on chosen prompts: what chooses, what is compared, and what shows the rebound."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from symskew.protocols.choices import control, knobs, schedule
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.statistics import SubsetChange, subset_change

NAIVE = "naive, selection-biased"
"""What changes are called whose images were chosen by the very scores that they are compared with."""
LEAST = 10
"""Fewer prompts cannot be put in an order that means anything."""
TESTABLE = 6
"""With fewer prompts no p of turning their signs is below 0.05: the least is 2 / 2⁵."""
Scores = dict[str, np.ndarray]


class ChosenArms(NamedTuple):
    """Scores by prompt, higher is better, of the prompts that all arms have."""

    select: Scores
    baseline: Scores
    treated: Scores
    placebo: Scores
    null: Scores | None
    dropped: int
    """Evaluated samples that had no partner."""


def null_of(evidence: Evidence, setting: str) -> str | None:
    """The null perturbation with the same α and β, if the study has one with the same prompts and seeds."""
    wanted, both = _acting(evidence, setting), len(evidence.matched(setting, evidence.vanilla)[1])
    for null in evidence.family("null"):
        alike = _acting(evidence, null) == wanted and control(evidence, null) == control(evidence, setting)
        if wanted is not None and alike:
            # One that was run on a part only would have the whole comparison shrink to it.
            return null if len(evidence.matched(setting, evidence.vanilla, null)[1]) >= 0.9 * both else None
    return None


def _acting(evidence: Evidence, setting: str) -> tuple[float, float] | tuple[str, str] | None:
    return knobs(evidence, setting) or schedule(evidence, setting)


def few_note(chosen: Iterable[int]) -> str | None:
    """A warning where so few prompts were chosen that nothing can come out; None where there are enough."""
    least = min(chosen)
    if least >= TESTABLE:
        return None
    return (
        f"Only {least} prompts are chosen: turning the signs of fewer than {TESTABLE} gives no p below 0.05, and the "
        "intervals, Student's, take the changes to be normal. More prompts, or a larger share, would tell more."
    )


def chosen_arms(evidence: Evidence, metric: str, setting: str) -> ChosenArms:
    """The arms of a subset comparison, on the prompts that all have and the seeds that vanilla and treated have.

    Raises:
        MissingError: there are too few such prompts.
    """

    def compute() -> ChosenArms:
        sign, null = evidence.sign(metric), null_of(evidence, setting)
        settings = [setting, evidence.vanilla, *([null] if null else [])]
        pair = evidence.paired(metric, setting)
        rows, prompts = evidence.matched(*settings)
        scores = sign * np.stack([evidence.values(metric)[each] for each in rows])
        there = ~np.isnan(scores).any(0)
        treated, baseline, *nulls = (evidence.grouped(each[there], prompts[there]) for each in scores)
        vanilla = [evidence.by_prompt(metric, evidence.vanilla, role) for role in ("select", "placebo")]
        names = [name for name in baseline if all(name in each for each in vanilla)]
        if len(names) < LEAST:
            raise MissingError(
                f"at least {LEAST} prompts with scores of {evidence.title(metric)} in every arm of "
                f"{evidence.label(setting)}, got {len(names)}"
            )
        select, placebo = ({name: sign * each[name] for name in names} for each in vanilla)
        first, second, *third = ({name: each[name] for name in names} for each in (baseline, treated, *nulls))
        return ChosenArms(select, first, second, placebo, third[0] if third else None, sum(pair.dropped))

    return evidence.remember(("arms", metric, setting), compute)


def chosen_change(evidence: Evidence, metric: str, setting: str, *, share: float, worst: bool) -> SubsetChange:
    """What changed on the worst or best share, higher scores being better; computed once."""

    def compute() -> SubsetChange:
        arms = chosen_arms(evidence, metric, setting)
        return subset_change(
            arms.select, arms.baseline, arms.treated, arms.placebo, null=arms.null, share=share, worst=worst
        )

    return evidence.remember(("subset", metric, setting, share, worst), compute)
