"""Table 5: is the symmetry η of bad samples lower, and does control raise it?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from symskew.protocols.choices import deciding, heading, settings_of
from symskew.protocols.compare import adjusted, contrast, family_note, gap_notes, prompts_note, subset_mean
from symskew.protocols.contract import ROLES
from symskew.protocols.evidence import Evidence, Reading
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocol
from symskew.protocols.scopes import each_set, in_each
from symskew.protocols.selected import NAIVE
from symskew.protocols.table import Cell, Column, ResultTable
from symskew.statistics import Estimate
from symskew.statistics.arms import levels, ordered

REGIMES = ("lowest", "middle", "highest")
APART = "lowest − highest"
FAIR = "prompts, by other seeds"


class _Units(NamedTuple):
    """Samples under vanilla and under control, and what they are put in order by (higher is better)."""

    prompts: np.ndarray
    score: np.ndarray
    """(vanilla and controlled, samples)"""
    eta: np.ndarray
    by: np.ndarray
    again: np.ndarray
    """The placebo's mean score of each sample's prompt; NaN where there is none."""


@protocol("table-5", "the symmetry η of low, middling and high samples, with and without control")
def table_5(
    evidence: Evidence,
    *,
    metric: str | None = None,
    setting: str | None = None,
    families: str | list[str] = "static",
    share: float = 0.2,
    stage: str = "all",
    branch: str = "both",
) -> list[ResultTable]:
    """Score and η of the lowest, middle and highest share by a metric (the paper's Table 5), chosen in two ways.

    Args:
        evidence: with diagnosed vanilla and controlled samples on eval seeds; select seeds for the fair choice.
        metric: to choose by; the first of the main ones by default.
        setting: the control; every diagnosed one of the families by default.
        families: where that is looked for.
        share: in each regime.
        stage: of η.
        branch: of η.

    Raises:
        MissingError: nothing under control was diagnosed together with vanilla.
    """
    metric, reading = deciding(evidence, metric), Reading("symmetry", stage, branch)
    wanted = [evidence.named(setting)] if setting else settings_of(evidence, families)
    return in_each(each_set(evidence), lambda some, _: [_table(some, metric, reading, wanted, share)])


def _table(evidence: Evidence, metric: str, reading: Reading, settings: Sequence[str], share: float) -> ResultTable:
    rows: list[list[Cell]] = []
    for control in settings:
        for way, units in _units(evidence, metric, reading, control):
            if len(np.unique(units.prompts)) * share >= 2:
                rows += [[evidence.label(control), way, *row] for row in _regimes(units, share)]
    if not rows:
        families = list(dict.fromkeys(str(evidence.setting(each)["family"]) for each in settings))
        raise MissingError(
            "vanilla and controlled samples that were diagnosed, with the same eval seeds",
            roles=["eval"],
            diagnosed=["vanilla", *families],
        )
    for row in rows:
        if row[1] == NAIVE and isinstance(row[6], Estimate):  # no p makes a biased change a finding
            row[6] = dataclasses.replace(row[6], p=None)
    for place in (6, 9):
        for row, new in zip(rows, adjusted([row[place] for row in rows]), strict=True):  # pyright: ignore
            row[place] = new
    columns = (
        Column("control"), Column("chosen"), Column("regime"), Column("vanilla"), Column("controlled"),
        Column("placebo", sign=True), Column("change", sign=True, mark=True), Column("η vanilla"),
        Column("η controlled"), Column("change of η", sign=True, mark=True),
    )  # fmt: skip
    title = heading(evidence, metric)
    low = next(row for row in rows if row[2] == APART)
    notes = [
        family_note([row[p] for row in rows for p in (6, 9)], "changes, each kind by itself"),  # pyright: ignore
        f"“{NAIVE}”: images by their own score; read the change only beside its placebo.",
    ]
    if not any(row[1] == FAIR for row in rows):
        notes.append(f"“{FAIR}” is not there: it needs vanilla samples with selection seeds.")
    shown = [each for each in settings if evidence.label(each) in {row[0] for row in rows}]
    notes += [*gap_notes(evidence, [evidence.vanilla, *shown], ROLES), prompts_note(evidence)]
    return ResultTable(
        "table-5", f"Symmetry η by {title}", columns, tuple(map(tuple, rows)),
        f"η of vanilla samples, lowest minus highest by {title}: {Column('', sign=True).text(low[7])} ({low[1]}).",
        f"Regimes are the lowest, the middle and the highest {share:.0%} by {title}: of prompts by vanilla images with "
        "the selection seeds (fair), or of images by themselves (the paper's). Placebo: vanilla with other seeds minus "
        f"vanilla. η is the mean over layers and steps of stage {reading.stage}, branch {reading.branch}. Means over "
        "samples with 95% bootstrap intervals over prompts.", tuple(notes),
    )  # fmt: skip


def _units(evidence: Evidence, metric: str, reading: Reading, control: str) -> Iterator[tuple[str, _Units]]:
    """The samples that were measured both vanilla and under a control, in the orders there are."""
    (treated, vanilla), prompts = evidence.matched(control, evidence.vanilla)
    rows, sign = np.stack([vanilla, treated]), evidence.sign(metric)
    score, eta = evidence.values(metric)[rows], evidence.values(reading)[rows]
    names = evidence.frame["prompt_id"].to_numpy(object)[vanilla]
    means = {
        role: {name: each.mean() for name, each in evidence.by_prompt(metric, evidence.vanilla, role).items()}
        for role in ("select", "placebo")
    }
    chosen, again = (np.array([means[role].get(name, np.nan) for name in names]) for role in ("select", "placebo"))
    for way, by in ((FAIR, chosen), (NAIVE, score[0])):
        kept = ~(np.isnan(score).any(0) | np.isnan(eta).any(0) | np.isnan(by))
        yield way, _Units(prompts[kept], score[:, kept], eta[:, kept], sign * by[kept], again[kept])


def _regimes(units: _Units, share: float) -> list[list[Estimate | str | None]]:
    """A row for each regime, and one for the lowest minus the highest."""
    keys, codes = np.unique(np.stack([levels(units.by), units.prompts]), axis=1, return_inverse=True)
    places = ordered(keys[0], 0)
    count = max(1, round(share * len(places)))
    middle = (len(places) - count) // 2
    parts = (places[:count], places[middle : middle + count], places[-count:])
    masks = [np.isin(codes.ravel(), part) for part in parts]
    placebo = units.again - units.score[0]
    columns = [*units.score, placebo, units.score[1] - units.score[0], *units.eta, units.eta[1] - units.eta[0]]

    def average(values: np.ndarray, mask: np.ndarray, *, test: bool) -> Estimate | None:
        known = mask & ~np.isnan(values)
        return subset_mean(values, units.prompts, known, test=test)

    rows: list[list[Estimate | str | None]] = []
    for name, mask in zip(REGIMES, masks, strict=True):
        rows.append([name, *(average(values, mask, test=place in (3, 6)) for place, values in enumerate(columns))])
    apart = [
        contrast(values, units.prompts, masks[0] & ~np.isnan(values), masks[2] & ~np.isnan(values))
        for values in columns
    ]
    return [*rows, [APART, *apart]]
