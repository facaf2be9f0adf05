"""The field: every method over its own knob, fidelity against diversity, at its cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from symskew.protocols.choices import deciding, diversity_metrics, fidelity_metrics, heading
from symskew.protocols.compare import (
    adjusted,
    change,
    family_note,
    gap_notes,
    mean,
    paired_diversity,
    prompts_note,
    seeds_note,
    spread,
    spread_change,
)
from symskew.protocols.effects import effect_table, effects
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocol
from symskew.protocols.scopes import in_each, scopes
from symskew.protocols.table import Cell, Column, ResultTable
from symskew.statistics import equivalence, pareto

MARGIN = 0.05
"""Diversity counts as kept if it changes by less than this share of vanilla's mean."""


@protocol("field", "every family over its own knob: fidelity, diversity, cost, the Pareto front")
def field(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    fidelity: str | None = None,
    diversity: str | None = None,
    families: Sequence[str] | None = None,
    margin: float = MARGIN,
) -> list[ResultTable]:
    """Each setting's fidelity and diversity with what they changed against vanilla, and who is beaten by nobody.

    Args:
        evidence: with eval samples of the families, and a metric of diversity.
        metrics: of samples, for the second table of everything; the main ones by default.
        fidelity: the metric of the front; the first of the main ones by default.
        diversity: that of the front; the first there is by default.
        families: all but the null perturbation by default.
        margin: as a share of vanilla's mean diversity: changes below it count as “kept”, by two one-sided tests.

    Raises:
        MissingError: no metric of diversity, or no settings besides vanilla.
    """
    spreads = diversity_metrics(evidence, None if diversity is None else [diversity])
    if not spreads:
        raise MissingError("a metric of diversity, over several eval seeds", roles=["eval"], metrics="diversity")
    one, other = deciding(evidence, fidelity), spreads[0]
    if families is None:
        families = [name for name in dict.fromkeys(evidence.settings["family"]) if name != "null"]
    settings = [each for each in evidence.family(*families) if each != evidence.vanilla]
    if not settings:
        raise MissingError("settings besides vanilla", settings=["static"])
    chosen, names = fidelity_metrics(evidence, metrics), [name for name in families if name != "vanilla"]

    def make(some: Evidence, settings: list[str]) -> list[ResultTable]:
        found = effects(some, settings, chosen, diversity_metrics(some))
        return [
            _field(some, settings, one, other, margin),
            effect_table(some, "field-metrics", "The field: every metric", found, notes=seeds_note(some, settings)),
        ]

    return in_each(scopes(evidence, names), make)


def _field(evidence: Evidence, settings: Sequence[str], one: str, other: str, margin: float) -> ResultTable:
    everything = [evidence.vanilla, *settings]
    rows: list[list[Cell]] = []
    for setting in everything:
        row = evidence.setting(setting)
        good, wide = mean(evidence, one, setting), spread(evidence, other, setting)
        better = None if setting == evidence.vanilla else change(evidence, one, setting)
        wider = None if setting == evidence.vanilla else spread_change(evidence, other, setting)
        rows.append([
            str(row["family"]), evidence.label(setting), float(row["passes"]), good, better and better.estimate,
            wide, wider and wider.estimate, good and good.n, _kept(evidence, other, setting, margin), "",
        ])  # fmt: skip
    best, told = _front(evidence, settings, one, other)
    for setting, row in zip(everything, rows, strict=True):
        row[9] = "yes" if setting in best else ""
    final = adjusted([row[place] for row in rows for place in (4, 6)])  # pyright: ignore[reportArgumentType]
    for i, row in enumerate(rows):
        row[4], row[6] = final[2 * i : 2 * i + 2]
    first, second = heading(evidence, one), heading(evidence, other)
    columns = (
        Column("family"), Column("setting"), Column("passes", "g"), Column(first),
        Column(f"change of {first}", sign=True, mark=True), Column(second),
        Column(f"change of {second}", sign=True, mark=True), Column("prompts"), Column("diversity kept"),
        Column("on the front"),
    )  # fmt: skip
    front = [str(row[1]) for row in rows if row[9]]
    if len({row[7] for row in rows}) > 1:
        told.append(
            "Rows rest on different numbers of prompts: compare changes; means only where prompts are the same."
        )
    return ResultTable(
        "field", f"The field: {first} and {second}", columns, tuple(map(tuple, rows)),
        f"On the Pareto front: {', '.join(front) or 'nothing can be placed'}.",
        "Means over prompts, and changes against the vanilla images of the same prompts and seeds (diversity: over the "
        "same seeds), with 95% bootstrap intervals over prompts. Passes: of the denoiser, per step. “Diversity kept”: "
        f"two one-sided tests at ±{margin:.0%} of vanilla's mean say so with p < 0.05; “changed”: the interval lies "
        "wholly beyond that margin; else open. The front is of the mean changes, vanilla's being 0, on the prompts "
        "on which all who are placed on it have both scores, without their uncertainty.",
        (
            family_note(final, "changes of this table"), *told, *seeds_note(evidence, settings),
            *gap_notes(evidence, everything), prompts_note(evidence),
        ),
    )  # fmt: skip


def _kept(evidence: Evidence, metric: str, setting: str, margin: float) -> str | None:
    """Whether the diversity is within the margin of vanilla's."""
    treated, baseline, names = paired_diversity(evidence, metric, setting)
    if setting == evidence.vanilla or len(names) < 2:
        return None
    allowed = margin * abs(float(np.mean(baseline)))
    found = equivalence(treated, baseline, allowed, names) if allowed > 0 else None
    if found is None:
        return None
    if found.equivalent:
        return "kept"
    beyond = found.estimate.low > allowed or found.estimate.high < -allowed
    return "changed" if beyond else "open"


def _front(evidence: Evidence, settings: Sequence[str], one: str, other: str) -> tuple[set[str], list[str]]:
    """Who is beaten by nobody in both mean changes against vanilla on the same prompts; and notes on what they rest."""
    found = {setting: known for setting in settings if (known := _changes(evidence, setting, one, other))}
    absent = ", ".join(evidence.label(each) for each in settings if each not in found)
    notes = [f"Not placed on the front, for want of changes in both on the same prompts: {absent}."] if absent else []
    if not found:
        return set(), notes
    common = set.intersection(*map(set, found.values()))
    if not common:
        return set(), [*notes, "No front: on no prompt has every setting both scores."]
    if any(len(known) > len(common) for known in found.values()):
        notes.append(f"The front is of the {len(common)} prompts on which all who are placed on it have both scores.")
    points = [np.mean([known[name] for name in sorted(common)], 0) for known in found.values()]
    x, y = np.array([np.zeros(2), *points]).T
    best = pareto(x, y, maximise=(evidence.sign(one) > 0, evidence.sign(other) > 0))
    return {name for name, kept in zip([evidence.vanilla, *found], best, strict=True) if kept}, notes


def _changes(evidence: Evidence, setting: str, one: str, other: str) -> dict[str, tuple[float, float]]:
    """What a setting changes in two metrics, of samples and of diversity, by prompt id."""
    pair = evidence.paired(one, setting)
    better = evidence.grouped(pair.treated - pair.baseline, pair.prompts)
    wide, vanilla, names = paired_diversity(evidence, other, setting)
    return {
        name: (float(better[name].mean()), after - before)
        for name, after, before in zip(names, wide, vanilla, strict=True)
        if name in better
    }
