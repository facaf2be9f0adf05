"""The operating point: each family's best setting, chosen on tuning prompts, held against others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from symskew.protocols.choices import deciding, diversity_metrics, heading
from symskew.protocols.compare import (
    adjusted,
    change,
    complement,
    family_note,
    gap_notes,
    placebo,
    prompts_note,
    spread,
)
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocol
from symskew.protocols.table import Cell, Column, ResultTable
from symskew.statistics import Estimate


class Point(NamedTuple):
    """The setting that a family is represented by."""

    family: str
    setting: str
    """The best of those that were run on the held-out prompts too."""
    missed: str | None
    """The best on the tuning prompts, where it is another."""
    tried: int
    """How many settings there were to choose from."""
    allowed: int
    """How many of them met the constraints."""
    tuning: Estimate
    """Its change on the tuning prompts."""


def best_points(
    evidence: Evidence,
    *,
    metric: str,
    families: Sequence[str] | None = None,
    tuning: str = "tuning",
    heldout: str = "heldout",
    least_diversity: float | None = None,
    diversity: str | None = None,
    most_passes: float | None = None,
) -> list[Point]:
    """The best setting of each family by its mean change against vanilla on the tuning prompts; see `operating_point`.

    Raises:
        MissingError: one of the sets of prompts is not there, or no family was run on both.
    """
    absent = [name for name in (tuning, heldout) if name not in evidence.prompt_sets]
    if absent:
        raise MissingError(
            f"prompts to tune on and others to report on, {tuning} and {heldout}; not there: {' and '.join(absent)}",
            prompts=absent,
        )
    tuned, held = evidence.on(tuning), evidence.on(heldout)
    spreads = diversity_metrics(evidence, None if diversity is None else [diversity])
    if least_diversity is not None and not spreads:
        raise MissingError("a metric of diversity, for the constraint", metrics="diversity")
    families = _families(evidence, families)

    def allowed(setting: str) -> bool:
        if most_passes is not None and not float(evidence.setting(setting)["passes"]) <= most_passes:
            return False
        if least_diversity is None:
            return True
        own, vanilla = (spread(tuned, spreads[0], each) for each in (setting, tuned.vanilla))
        return own is not None and vanilla is not None and own.value >= least_diversity * vanilla.value

    points = []
    for family in families:
        tried = {each: found.estimate for each in tuned.family(family) if (found := change(tuned, metric, each))}
        best = sorted(filter(allowed, tried), key=lambda each: -evidence.sign(metric) * tried[each].value)
        there = [each for each in best if change(held, metric, each)]
        if there:
            missed = best[0] if best[0] != there[0] else None
            points.append(Point(family, there[0], missed, len(tried), len(best), tried[there[0]]))
    if not points:
        raise MissingError(
            f"settings that were run both on {tuning} and on {heldout} prompts and meet the constraints; of the "
            f"families {', '.join(families) or 'besides vanilla'} there are none",
            settings=families or ["static"],
        )
    return points


def _families(evidence: Evidence, given: Sequence[str] | None) -> Sequence[str]:
    """Those that are asked for; all but vanilla and the null perturbation by default."""
    if given is not None:
        return given
    return [each for each in dict.fromkeys(evidence.settings["family"]) if each not in ("vanilla", "null")]


def _absent(evidence: Evidence, families: Sequence[str], metric: str, tuning: str, heldout: str) -> list[str]:
    """Why families have no point, as a note."""
    told = []
    for family in families:
        tried, held = (
            [each for each in some.family(family) if change(some, metric, each)]
            for some in (evidence.on(tuning), evidence.on(heldout))
        )
        why = f"not run on {heldout}" if not held else "not the same settings on both, or not within the constraints"
        told.append(f"{family} ({len(tried)} tried on {tuning}, {why if tried else 'so nothing to choose by'})")
    return [f"Without a row: {', '.join(told)}."] if told else []


@protocol("operating-point", "the best setting of each family, chosen on tuning prompts, reported on held-out ones")
def operating_point(
    evidence: Evidence,
    *,
    metric: str | None = None,
    families: Sequence[str] | None = None,
    tuning: str = "tuning",
    heldout: str = "heldout",
    least_diversity: float | None = None,
    diversity: str | None = None,
    most_passes: float | None = None,
) -> ResultTable:
    """What the best setting of each family gains on prompts that had no part in choosing it.

    The change on the tuning prompts is shown too: it is flattered by the choice, the more so the more were tried.

    Args:
        evidence: with eval seeds on both sets of prompts.
        metric: to choose by; the first of the main ones by default.
        families: all but vanilla and the null perturbation by default.
        tuning: the set of prompts to choose on.
        heldout: the set to report on.
        least_diversity: only settings whose mean diversity on the tuning prompts is at least this share of vanilla's.
        diversity: by which metric; the first there is by default.
        most_passes: only settings that cost at most so many passes per step.

    Raises:
        MissingError: a set of prompts or every setting is not there.
    """
    metric = deciding(evidence, metric)
    points = best_points(
        evidence, metric=metric, families=families, tuning=tuning, heldout=heldout, least_diversity=least_diversity,
        diversity=diversity, most_passes=most_passes,
    )  # fmt: skip
    held = evidence.on(heldout)
    found = [change(held, metric, point.setting) for point in points]
    final = adjusted([each and each.estimate for each in found])
    again = [placebo(held, metric, point.setting) for point in points]
    rows: list[tuple[Cell, ...]] = []
    for point, gained, tested, null in zip(points, found, final, again, strict=True):
        wins = gained and (gained.wins if evidence.sign(metric) > 0 else complement(gained.wins))
        rows.append((
            point.family, evidence.label(point.setting), point.tried, float(evidence.setting(point.setting)["passes"]),
            point.tuning, tested, tested and tested.p, null and null.estimate, gained and gained.effect, wins,
            tested and tested.n,
        ))  # fmt: skip
    columns = (
        Column("family"), Column("best on tuning prompts"), Column("tried"), Column("passes", "g"),
        Column("change there, flattered", sign=True), Column("change held out", sign=True, mark=True),
        Column("p", ".3f"), Column("placebo held out", sign=True), Column("d_z", ".2f", sign=True),
        Column("better", ".0%"), Column("prompts held out"),
    )  # fmt: skip
    sign = evidence.sign(metric)
    clear = [row for row in rows if isinstance(row[5], Estimate) and sign * row[5].value > 0 and (row[6] or 0) < 0.05]  # pyright: ignore
    told = ", ".join(f"{row[1]} {columns[5].text(row[5])}" for row in clear)
    constraints = [
        f"diversity of at least {least_diversity:.0%} of vanilla's" if least_diversity is not None else "",
        f"at most {most_passes:g} passes per step" if most_passes is not None else "",
    ]
    notes = [
        family_note(final, "families"),
        "On the tuning prompts the change is flattered by the choice (winner's curse); held out it is a finding.",
    ]
    if all(null is None for null in again):
        notes.append("No placebo: vanilla has no samples with placebo seeds on these prompts.")
    if missed := [f"{evidence.label(each.missed)} ({each.family})" for each in points if each.missed]:
        notes.append(f"Better on the tuning prompts, but not run on the held-out ones: {', '.join(missed)}.")
    absent = [each for each in _families(evidence, families) if each not in {point.family for point in points}]
    notes += _absent(evidence, absent, metric, tuning, heldout)
    if refused := {point.family: point.tried - point.allowed for point in points if point.allowed < point.tried}:
        notes.append("Settings that did not meet the constraints: " + ", ".join(f"{k} {v}" for k, v in refused.items()))
    notes += [*gap_notes(evidence, [evidence.vanilla, *(each.setting for each in points)]), prompts_note(evidence)]
    given = " and ".join(filter(None, constraints))
    return ResultTable(
        "operating-point", f"Operating points by {heading(evidence, metric)}", columns, tuple(rows),
        f"Held out, {len(clear)} of {len(rows)} families improve {heading(evidence, metric)} after Holm's correction"
        + (f": {told}." if told else "."),
        f"Each family's best setting by the mean change of {heading(evidence, metric)} on the prompts “{tuning}”"
        + (f", with {given}" if given else "")
        + f", and what it changes on the prompts “{heldout}”, against vanilla images of the same prompts and seeds. "
        "Placebo: vanilla with other seeds minus vanilla, on the row's prompts. 95% bootstrap intervals over "
        "prompts.", tuple(notes),
    )  # fmt: skip
