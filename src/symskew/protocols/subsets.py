"""Tables 3b and 4: what a setting does to the worst and to the best prompts, apart from the rebound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from symskew.protocols.choices import fidelity_metrics, heading
from symskew.protocols.compare import adjusted, clear_count, family_note, gap_notes, prompts_note, turned
from symskew.protocols.contract import ROLES
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocol
from symskew.protocols.scopes import in_each, scopes
from symskew.protocols.selected import NAIVE, chosen_arms, chosen_change, few_note
from symskew.protocols.table import Cell, Column, ResultTable
from symskew.statistics import Estimate, SubsetChange, paired_change

SUBSET_COLUMNS = (
    Column("chosen by"), Column("setting"), Column("change in"), Column("fair", sign=True, mark=True),
    Column("fair placebo", sign=True), Column(NAIVE, sign=True), Column("naive placebo", sign=True),
    Column("corrected", sign=True), Column("null", sign=True), Column("corrected by null", sign=True),
    Column("ρ"), Column("predicted rebound", sign=True), Column("prompts"),
)  # fmt: skip
_CAPTION = (
    "Fair: prompts are chosen by their vanilla images with the selection seeds, and vanilla and treated images are "
    "compared on the evaluation seeds. Fair placebo: vanilla with other seeds instead of the treatment, about 0. "
    f"“{NAIVE}” is the paper's way: images chosen by their own vanilla score and compared with it, which rises by "
    "itself; the naive placebo shows by how much when they are merely drawn again, the predicted rebound how much that "
    "would be for normal scores of reliability ρ. Corrected: naive minus naive placebo, which errs {errs}; corrected "
    "by null: naive minus a perturbation of the same seeds and strength without the mechanism. "
    "95% bootstrap intervals over prompts; of fewer than 8, Student's."
)
_ERRS = {
    True: "against the treatment, whose images keep their seeds and with them a part of what is bad",
    False: "for the treatment, whose images keep their seeds and with them a part of what is good: harm looks smaller "
    "than it is, and none looks like a gain",
}
"""Which way the correction by the placebo is biased on the worst, and on the best."""


@protocol("table-3b", "the worst prompts: fair change, placebo, and the naive change beside its correction")
def table_3b(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    families: str | Sequence[str] = "static",
    share: float = 0.2,
    side_effects: bool = True,
) -> list[ResultTable]:
    """Changes on the worst share of prompts by each metric (the paper's Table 3b).

    Args:
        evidence: with vanilla samples of all three roles, and the families' on eval seeds. Where the family "null" has
            a setting of the same α and β, it is the matched null perturbation.
        metrics: of samples, to choose by and to compare; the main ones by default.
        families: whose settings.
        share: of the prompts.
        side_effects: also what changes in the metrics that were not chosen by.

    Raises:
        MissingError: roles or settings that are not there.
    """
    return _in_scopes(evidence, "table-3b", metrics, families, share=share, worst=True, side_effects=side_effects)


@protocol("table-4", "the best prompts: what a setting costs where all was well")
def table_4(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    families: str | Sequence[str] = "static",
    share: float = 0.2,
    side_effects: bool = False,
) -> list[ResultTable]:
    """Changes on the best share of prompts by each metric (the paper's Table 4); see `table_3b`."""
    return _in_scopes(evidence, "table-4", metrics, families, share=share, worst=False, side_effects=side_effects)


def subset_table(
    evidence: Evidence,
    name: str,
    settings: Sequence[str],
    metrics: Sequence[str],
    *,
    share: float,
    worst: bool,
    side_effects: bool = False,
) -> ResultTable:
    """The table of changes on the worst or best share of prompts; `MissingError` where arms are not there."""
    rows: list[list[Cell]] = []
    dropped: dict[str, int] = {}
    unmatched = set()
    varied = [metric for metric in metrics if np.ptp(evidence.scores(metric, evidence.vanilla, None)[0]) > 0]
    if not varied:
        raise MissingError(f"a metric that differs between vanilla samples, unlike {', '.join(metrics)}")
    for metric in varied:
        for setting in settings:
            arms = chosen_arms(evidence, metric, setting)
            found = chosen_change(evidence, metric, setting, share=share, worst=worst)
            dropped[evidence.label(setting)] = arms.dropped
            if arms.null is None:
                unmatched.add(evidence.label(setting))
            where = [heading(evidence, metric), evidence.label(setting)]
            turn = evidence.sign(metric) < 0
            numbers = [
                found.fair, found.fair_placebo, found.naive, found.naive_placebo, found.corrected, found.null,
                found.corrected_by_null,
            ]  # fmt: skip
            shown = [turned(each) if each is not None and turn else each for each in numbers]
            rebound = -found.rebound if turn else found.rebound
            rows.append([*where, where[0], *shown, found.reliability, rebound, len(found.prompts)])
            for other in metrics if side_effects else ():
                if other != metric:
                    changed = _on(evidence, other, setting, found)
                    rows.append([*where, heading(evidence, other), *changed, *[None] * 7, len(found.prompts)])
    for row, new in zip(rows, adjusted([row[3] for row in rows]), strict=True):  # pyright: ignore[reportArgumentType]
        row[3] = new
    targets = [row for row in rows if row[0] == row[2]]
    fair = [row[3] for row in targets]
    title = f"The {'worst' if worst else 'best'} {share:.0%} of prompts by each metric"
    notes = [
        family_note([row[3] for row in rows], "fair changes of this table"),  # pyright: ignore[reportArgumentType]
        f"“{NAIVE}”: not a measure of any effect; read it only beside its placebo.",
    ]
    if lost := {label: count for label, count in dropped.items() if count}:
        notes.append("Without a partner, left out: " + ", ".join(f"{k} {v}" for k, v in lost.items()) + " samples.")
    if few := few_note([row[-1] for row in rows]):  # pyright: ignore[reportArgumentType]
        notes.append(few)
    if unmatched:
        some = f"{len(settings) - len(unmatched)} of {len(settings)} settings"
        notes.append(f"A matched null perturbation (family null, same α and β, layers and steps) is there for {some}.")
    if constant := [heading(evidence, metric) for metric in metrics if metric not in varied]:
        notes.append(f"Nothing to choose by, the same for every vanilla sample: {', '.join(constant)}.")
    notes += [
        *gap_notes(evidence, [evidence.vanilla, *settings], ROLES),
        prompts_note(evidence),
    ]
    return ResultTable(
        name,
        title,
        SUBSET_COLUMNS,
        tuple(map(tuple, rows)),
        _told(targets, fair),
        _CAPTION.format(errs=_ERRS[worst]),
        tuple(notes),
    )


def _on(evidence: Evidence, metric: str, setting: str, found: SubsetChange) -> list[Estimate | None]:
    """The fair change of another metric on the chosen prompts, and that of the placebo."""
    pair, chosen = evidence.paired(metric, setting), set(found.prompts)
    changes = [evidence.grouped(values, pair.prompts) for values in (pair.treated, pair.baseline)]
    placebo = evidence.by_prompt(metric, evidence.vanilla, "placebo")
    return [_change(changes[0], changes[1], chosen), _change(placebo, changes[1], chosen)]


def _change(treated: Mapping[str, np.ndarray], baseline: Mapping[str, np.ndarray], chosen: set) -> Estimate | None:
    names = [name for name in baseline if name in chosen and name in treated]
    after, before = ([each[name].mean() for name in names] for each in (treated, baseline))
    return paired_change(after, before, names).estimate if len(names) > 1 else None


def _told(targets: Sequence[Sequence[Cell]], fair: Sequence[Cell]) -> str:
    """How many fair changes are clear, and what the naive ones and their placebo are on average, first metric."""
    first = [row for row in targets if row[0] == targets[0][0]]
    clear = clear_count([each for each in fair if isinstance(each, Estimate)], "fair changes")
    naive, again = (np.mean([row[i].value for row in first if isinstance(row[i], Estimate)]) for i in (5, 6))  # pyright: ignore
    return (
        f"{clear} In {first[0][0]}, the naive change is {naive:+.3g} on average over settings, where merely drawing "
        f"the same images again brings {again:+.3g}."
    )


def _in_scopes(
    evidence: Evidence, name: str, metrics: Iterable[str] | None, families: str | Sequence[str], **options: Any
) -> list[ResultTable]:
    """A table for each group of prompts on which vanilla has all roles."""
    chosen = fidelity_metrics(evidence, metrics)
    return in_each(
        scopes(evidence, families, ROLES),
        lambda some, settings: [subset_table(some, name, settings, chosen, **options)],
    )
