"""What settings do to every metric: means, and changes against vanilla, as the rows of several tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from symskew.protocols.choices import heading, knobs, schedule
from symskew.protocols.compare import (
    adjusted,
    change,
    complement,
    family_note,
    gap_notes,
    mean,
    prompts_note,
    spread,
    spread_change,
    turned,
)
from symskew.protocols.evidence import Evidence, Reading
from symskew.protocols.table import Cell, Column, ResultTable
from symskew.statistics import Estimate

READINGS = tuple(map(Reading, ("energy", "instability", "alignment", "symmetry")))


class Effect(NamedTuple):
    """One metric, or measure, under one setting."""

    metric: str
    setting: str
    mean: Estimate | None
    change: Estimate | None
    size: float | None
    """Cohen's d_z of the change."""
    wins: Estimate | None
    """Share of samples that got better; None for measures and diversity."""


COLUMNS = (
    Column("metric"), Column("setting"), Column("α", "g"), Column("β", "g"), Column("mean"),
    Column("change", sign=True, mark=True), Column("p", ".3f"), Column("d_z", ".2f", sign=True),
    Column("better", ".0%"), Column("prompts"),
)  # fmt: skip
CAPTION = (
    "Means over prompts, and changes against the vanilla images of the same prompts and seeds, with 95% bootstrap "
    "intervals over prompts; d_z is the change in standard deviations of prompts' changes, “better” the share of "
    "images that improve, ties counted half."
)


def effects(
    evidence: Evidence,
    settings: Sequence[str],
    metrics: Iterable[str],
    diversity: Iterable[str] = (),
    readings: Iterable[Reading] = (),
) -> list[Effect]:
    """Metric by metric, vanilla first, then every setting; p adjusted over all changes. Empty ones are left out."""
    everything = [evidence.vanilla, *(each for each in settings if each != evidence.vanilla)]
    found = [_sampled(evidence, metric, setting) for metric in (*metrics, *readings) for setting in everything]
    found += [_spread(evidence, metric, setting) for metric in diversity for setting in everything]
    found = [each for each in found if each.mean is not None]
    tested = adjusted([each.change for each in found])
    return [each._replace(change=new) for each, new in zip(found, tested, strict=True)]


def effect_table(
    evidence: Evidence, name: str, title: str, found: Sequence[Effect], *, caption: str = "", notes: Iterable[str] = ()
) -> ResultTable:
    """The table of effects."""
    rows: list[tuple[Cell, ...]] = []
    for each in found:
        alpha, beta = knobs(evidence, each.setting) or schedule(evidence, each.setting) or (None, None)
        p = None if each.change is None else each.change.p
        prompts = None if each.mean is None else each.mean.n
        rows.append((
            each.metric, evidence.label(each.setting), alpha, beta, each.mean, each.change, p, each.size, each.wins,
            prompts,
        ))  # fmt: skip
    changes = [each.change for each in found]
    settings = dict.fromkeys(each.setting for each in found)
    counts = {each.mean.n for each in found if each.mean is not None}
    uneven = "Rows rest on different numbers of prompts: compare changes; means only where prompts are the same."
    notes = [*notes, *([uneven] if len(counts) > 1 else [])]
    all_notes = [
        family_note(changes, "changes of this table"), *notes, *gap_notes(evidence, settings), prompts_note(evidence),
    ]  # fmt: skip
    return ResultTable(
        name, title, COLUMNS, tuple(rows), tell(evidence, found), f"{CAPTION} {caption}".strip(), tuple(all_notes)
    )


def tell(evidence: Evidence, found: Sequence[Effect]) -> str:
    """How many changes there are, and the surest one of the first metric."""
    changes = [each for each in found if each.change is not None]
    if not changes:
        return "No setting could be compared with vanilla."
    clear = [each for each in changes if each.change and each.change.p is not None and each.change.p < 0.05]
    first = changes[0].metric
    some = [each for each in clear if each.metric == first]
    summary = f"{len(clear)} of {len(changes)} changes against vanilla differ from 0 after Holm's correction"
    if not some:
        return f"{summary}, none of them in {first}."
    most = max(some, key=lambda each: abs(each.change.value) if each.change else 0.0)
    return f"{summary}; the largest in {first}: {COLUMNS[5].text(most.change)} with {evidence.label(most.setting)}."


def _sampled(evidence: Evidence, metric: str | Reading, setting: str) -> Effect:
    found = None if setting == evidence.vanilla else change(evidence, metric, setting)
    average = mean(evidence, metric, setting)
    if found is None:
        return Effect(heading(evidence, metric), setting, _sided(average, metric), None, None, None)
    if isinstance(metric, Reading):
        size = -found.effect if metric.measure == "energy" else found.effect
        return Effect(
            heading(evidence, metric), setting, _sided(average, metric), _sided(found.estimate, metric), size, None
        )
    wins = found.wins if evidence.sign(metric) > 0 else complement(found.wins)
    return Effect(heading(evidence, metric), setting, average, found.estimate, found.effect, wins)


def _spread(evidence: Evidence, metric: str, setting: str) -> Effect:
    found = None if setting == evidence.vanilla else spread_change(evidence, metric, setting)
    average = spread(evidence, metric, setting)
    estimate, size = (found.estimate, found.effect) if found else (None, None)
    return Effect(heading(evidence, metric), setting, average, estimate, size, None)


def _sided(estimate: Estimate | None, metric: str | Reading) -> Estimate | None:
    """The energy with its sign turned, everything else as it is."""
    energy = isinstance(metric, Reading) and metric.measure == "energy"
    return turned(estimate) if estimate and energy else estimate
