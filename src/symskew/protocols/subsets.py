"""Tables 3b and 4: what a setting does to the worst and to the best prompts, apart from the rebound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from symskew.protocols.choices import fidelity_metrics, heading, knobs, settings_of
from symskew.protocols.compare import adjusted, family_note, gap_notes, prompts_note, turned
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocol
from symskew.protocols.table import Cell, Column, ResultTable
from symskew.statistics import Estimate, SubsetChange, paired_change, quantile_curve, subset_change

NAIVE = "naive, selection-biased"
"""What changes are called whose images were chosen by the very scores that they are compared with."""
Scores = dict[str, np.ndarray]

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
    "would be for normal scores of reliability ρ. Corrected: naive minus naive placebo, which errs against the "
    "treatment, whose images keep their seeds and with them a part of what is bad; corrected by null: naive minus a "
    "perturbation of the same seeds and strength without the mechanism. "
    "95% bootstrap intervals over prompts."
)


class _Arms(NamedTuple):
    """Scores by prompt, higher is better, of the prompts that all arms have."""

    select: Scores
    baseline: Scores
    treated: Scores
    placebo: Scores
    null: Scores | None
    dropped: int
    """Evaluated samples that had no partner."""


@protocol("table-3b", "the worst prompts: fair change, placebo, and the naive change beside its correction")
def table_3b(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    families: str | Sequence[str] = "static",
    share: float = 0.2,
    side_effects: bool = True,
) -> ResultTable:
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
    settings, chosen = settings_of(evidence, families), fidelity_metrics(evidence, metrics)
    evidence = evidence.shared([evidence.vanilla, *settings])
    return subset_table(evidence, "table-3b", settings, chosen, share=share, worst=True, side_effects=side_effects)


@protocol("table-4", "the best prompts: what a setting costs where all was well")
def table_4(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    families: str | Sequence[str] = "static",
    share: float = 0.2,
    side_effects: bool = False,
) -> ResultTable:
    """Changes on the best share of prompts by each metric (the paper's Table 4); see `table_3b`."""
    settings, chosen = settings_of(evidence, families), fidelity_metrics(evidence, metrics)
    evidence = evidence.shared([evidence.vanilla, *settings])
    return subset_table(evidence, "table-4", settings, chosen, share=share, worst=False, side_effects=side_effects)


@protocol("quantiles", "the change along the whole range of prompts, from the worst to the best")
def quantiles(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    families: str | Sequence[str] = "static",
    bins: int = 5,
) -> ResultTable:
    """The fair and the naive change in each quantile of the prompts: a rebound is mirror-shaped, a rescue is not.

    Args and errors as `table_3b`; `bins` is the number of quantiles.
    """
    settings, chosen = settings_of(evidence, families), fidelity_metrics(evidence, metrics)
    evidence = evidence.shared([evidence.vanilla, *settings])
    found = []
    for metric in chosen:
        for setting in settings:
            arms = _arms(evidence, metric, setting)
            for each in quantile_curve(arms.select, arms.baseline, arms.treated, arms.placebo, bins=bins):
                # The first bin has the lowest scores of what is higher is better: the worst prompts.
                parts = [each.fair, each.fair_placebo, each.naive, each.naive_placebo]
                shown = [part if evidence.sign(metric) > 0 else turned(part) for part in parts]
                found.append((heading(evidence, metric), evidence.label(setting), each.number + 1, *shown))
    fair = adjusted([row[3] for row in found])
    rows = tuple((*row[:3], new, *row[4:]) for row, new in zip(found, fair, strict=True))
    columns = (
        Column("metric"), Column("setting"), Column("quantile"), Column("fair", sign=True, mark=True),
        Column("fair placebo", sign=True), Column(NAIVE, sign=True), Column("naive placebo", sign=True),
    )  # fmt: skip
    return ResultTable(
        "quantiles", "From the worst prompts to the best", columns, rows, _count(fair),
        f"Change in each of {bins} quantiles, 1 the worst: of prompts by their selection seeds (fair), of images by "
        "their own score (naive). A rebound is mirror-shaped, gains at one end and losses at the other, and the "
        "placebo shows it too; what the treatment does by itself is in the fair column. 95% bootstrap intervals over "
        "prompts.",
        (family_note(fair, "fair changes of this table"),
         *gap_notes(evidence, [evidence.vanilla, *settings], ("select", "eval", "placebo")), prompts_note(evidence)),
    )  # fmt: skip


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
    for metric in metrics:
        for setting in settings:
            arms = _arms(evidence, metric, setting)
            found = _subset(evidence, metric, setting, arms, share, worst)
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
    if unmatched:
        some = "no setting" if len(unmatched) == len(settings) else f"{len(settings) - len(unmatched)} settings only"
        notes.append(f"A matched null perturbation (family null, same α and β) is there for {some}.")
    notes += [
        *gap_notes(evidence, [evidence.vanilla, *settings], ("select", "eval", "placebo")),
        prompts_note(evidence),
    ]
    return ResultTable(
        name, title, SUBSET_COLUMNS, tuple(map(tuple, rows)), _told(targets, fair), _CAPTION, tuple(notes)
    )


def null_of(evidence: Evidence, setting: str) -> str | None:
    """The null perturbation with the same α and β, if the study has one with the same prompts and seeds."""
    wanted, both = knobs(evidence, setting), len(evidence.matched(setting, evidence.vanilla)[1])
    for null in evidence.family("null"):
        if wanted is not None and knobs(evidence, null) == wanted:
            # One that was run on a part only would have the whole comparison shrink to it.
            return null if len(evidence.matched(setting, evidence.vanilla, null)[1]) >= 0.9 * both else None
    return None


def _subset(evidence: Evidence, metric: str, setting: str, arms: _Arms, share: float, worst: bool) -> SubsetChange:
    return evidence.remember(
        ("subset", metric, setting, share, worst),
        lambda: subset_change(
            arms.select, arms.baseline, arms.treated, arms.placebo, null=arms.null, share=share, worst=worst
        ),
    )


def _arms(evidence: Evidence, metric: str, setting: str) -> _Arms:
    """The arms of a subset comparison, on the prompts that all have and the seeds that vanilla and treated have."""
    lacking = [role for role in ("select", "eval", "placebo") if not len(evidence.arm(evidence.vanilla, role).rows)]
    if lacking:
        raise MissingError(
            f"vanilla samples with seeds of the role{'s' * (len(lacking) > 1)} {' and '.join(lacking)}, to choose "
            "prompts by images that are not compared, and to see what merely drawing again brings",
            roles=lacking,
        )

    def compute() -> _Arms:
        sign, null = evidence.sign(metric), null_of(evidence, setting)
        settings = [setting, evidence.vanilla, *([null] if null else [])]
        pair = evidence.paired(metric, setting)
        rows, prompts = evidence.matched(*settings)
        scores = sign * np.stack([evidence.values(metric)[each] for each in rows])
        there = ~np.isnan(scores).any(0)
        treated, baseline, *nulls = (evidence.grouped(each[there], prompts[there]) for each in scores)
        vanilla = [evidence.by_prompt(metric, evidence.vanilla, role) for role in ("select", "placebo")]
        names = [name for name in baseline if all(name in each for each in vanilla)]
        if len(names) < 10:
            raise MissingError(
                f"at least 10 prompts with scores of {evidence.title(metric)} in every arm of "
                f"{evidence.label(setting)}, got {len(names)}"
            )
        select, placebo = ({name: sign * each[name] for name in names} for each in vanilla)
        first, second, *third = ({name: each[name] for name in names} for each in (baseline, treated, *nulls))
        return _Arms(select, first, second, placebo, third[0] if third else None, sum(pair.dropped))

    return evidence.remember(("arms", metric, setting), compute)


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


def _count(fair: Sequence[Estimate | None]) -> str:
    clear = sum(each is not None and each.p is not None and each.p < 0.05 for each in fair)
    return f"{clear} of {len(fair)} fair changes differ from 0 after Holm's correction."


def _told(targets: Sequence[Sequence[Cell]], fair: Sequence[Cell]) -> str:
    """How many fair changes are clear, and what the naive ones and their placebo are on average, first metric."""
    first = [row for row in targets if row[0] == targets[0][0]]
    naive, again = (np.mean([row[i].value for row in first if isinstance(row[i], Estimate)]) for i in (5, 6))  # pyright: ignore
    return (
        f"{_count([each for each in fair if isinstance(each, Estimate)])} In {first[0][0]}, the naive change is "
        f"{naive:+.3g} on average over settings, where merely drawing the same images again brings {again:+.3g}."
    )
