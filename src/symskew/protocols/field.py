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
    spread,
    spread_change,
)
from symskew.protocols.effects import effect_table, effects
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocol
from symskew.protocols.scopes import in_each, scopes
from symskew.protocols.table import Cell, Column, ResultTable
from symskew.statistics import Estimate, equivalence, pareto

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
            effect_table(some, "field-metrics", "The field: every metric", found),
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
            wide, wider and wider.estimate, _kept(evidence, other, setting, margin), "",
        ])  # fmt: skip
    for row, best in zip(rows, _front(rows, evidence.sign(one), evidence.sign(other)), strict=True):
        row[8] = "yes" if best else ""
    final = adjusted([row[place] for row in rows for place in (4, 6)])  # pyright: ignore[reportArgumentType]
    for i, row in enumerate(rows):
        row[4], row[6] = final[2 * i : 2 * i + 2]
    first, second = heading(evidence, one), heading(evidence, other)
    columns = (
        Column("family"), Column("setting"), Column("passes", "g"), Column(first),
        Column(f"change of {first}", sign=True, mark=True), Column(second),
        Column(f"change of {second}", sign=True, mark=True), Column("diversity kept"), Column("on the front"),
    )  # fmt: skip
    front = [str(row[1]) for row in rows if row[8]]
    return ResultTable(
        "field", f"The field: {first} and {second}", columns, tuple(map(tuple, rows)),
        f"On the Pareto front: {', '.join(front)}.",
        "Means over prompts, and changes against the vanilla images of the same prompts and seeds (diversity: over the "
        "same seeds), with 95% bootstrap intervals over prompts. Passes: of the denoiser, per step. “Diversity kept”: "
        f"two one-sided tests at ±{margin:.0%} of vanilla's mean say so with p < 0.05; “changed”: the interval lies "
        "wholly beyond that margin; else open. The front is of the means, without their uncertainty.",
        (family_note(final, "changes of this table"), *gap_notes(evidence, everything), prompts_note(evidence)),
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


def _front(rows: Sequence[Sequence[Cell]], one: int, other: int) -> list[bool]:
    """Which rows nobody beats in both means."""
    known = [isinstance(row[3], Estimate) and isinstance(row[5], Estimate) for row in rows]
    points = [(row[3].value, row[5].value) for row, there in zip(rows, known, strict=True) if there]  # pyright: ignore
    if not points:
        return [False] * len(rows)
    x, y = np.array(points).T
    best = iter(pareto(x, y, maximise=(one > 0, other > 0)).tolist())
    return [next(best) if there else False for there in known]
