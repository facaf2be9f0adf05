"""Figure 9: circulation against attention temperature, at the same distance from the vanilla images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from symskew.protocols.choices import deciding, diversity_metrics, fidelity_metrics, heading, settings_of
from symskew.protocols.compare import adjusted, change, family_note, gap_notes, prompts_note, seeds_note
from symskew.protocols.distances import from_vanilla, mean_distance, measurable
from symskew.protocols.effects import effect_table, effects
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocol
from symskew.protocols.scopes import in_each, scopes
from symskew.protocols.table import Cell, Column, ResultTable
from symskew.statistics import Estimate

NEAR = 0.25
"""By how much strengths may differ, as a share, to count as the same."""


@protocol("figure-9", "circulation against temperature at matched strength, and the sweep of τ")
def figure_9(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    families: str | Sequence[str] = "static",
    temperatures: str | Sequence[str] = "temperature",
) -> list[ResultTable]:
    """Each circulation beside the temperature that moves the images as far (the paper's Section 6.2, Figure 9).

    Strength is the mean distance of an image's features from those of the vanilla image of the same seed.

    Args:
        evidence: with both families on eval seeds; without features only the sweep of τ is made.
        metrics: of samples; the main ones by default.
        families: of circulation.
        temperatures: families of temperature.

    Raises:
        MissingError: no setting of temperature.
    """
    taus, chosen = settings_of(evidence, temperatures), fidelity_metrics(evidence, metrics)
    notes = [] if measurable(evidence) else ["No matching by strength: the study kept no features."]
    sweeps = in_each(scopes(evidence, temperatures), lambda some, settings: [
        effect_table(
            some, "figure-9-sweep", "The sweep of temperature",
            effects(some, settings, chosen, diversity_metrics(some)), notes=[*notes, *seeds_note(some, settings)],
        )
    ])  # fmt: skip
    if not measurable(evidence):
        return sweeps
    both = settings_of(evidence, families) + taus
    names = list(dict.fromkeys(str(evidence.setting(each)["family"]) for each in both))

    def matched(some: Evidence, settings: list[str]) -> list[ResultTable]:
        hot = [each for each in settings if each in taus]
        rest = [each for each in settings if each not in taus]
        if not hot or not rest:
            raise MissingError("circulation and temperature on the same prompts", settings=names)
        return [_matched(some, rest, hot, chosen)]

    return [*in_each(scopes(evidence, names), matched), *sweeps]


def _matched(evidence: Evidence, settings: Sequence[str], taus: Sequence[str], metrics: Sequence[str]) -> ResultTable:
    strengths = {each: mean_distance(from_vanilla(evidence, each)) for each in (*settings, *taus)}
    far = {each: strength.value for each, strength in strengths.items() if strength is not None}
    rows: list[list[Cell]] = []
    for setting in (each for each in settings if each in far):
        nearest = min((each for each in taus if each in far), key=lambda each: abs(far[each] - far[setting]))
        alike = abs(far[nearest] - far[setting]) <= NEAR * far[setting]
        for metric in metrics:
            changes = [change(evidence, metric, each) for each in (setting, nearest)]
            apart = change(evidence, metric, setting, nearest)
            rows.append([
                heading(evidence, metric), evidence.label(setting), strengths[setting], evidence.label(nearest),
                strengths[nearest], "yes" if alike else "no", *(each and each.estimate.n for each in changes),
                *(each and each.estimate for each in (*changes, apart)),
            ])  # fmt: skip
    rows.sort(key=lambda row: [heading(evidence, metric) for metric in metrics].index(str(row[0])))
    final = adjusted([row[-1] for row in rows])  # pyright: ignore[reportArgumentType]
    for row, new in zip(rows, final, strict=True):
        row[-1] = new
    columns = (
        Column("metric"), Column("circulation"), Column("its strength"), Column("temperature"),
        Column("that strength"), Column("matched"), Column("prompts"), Column("prompts of the temperature"),
        Column("change by circulation", sign=True), Column("change by temperature", sign=True),
        Column("circulation − temperature", sign=True, mark=True),
    )  # fmt: skip
    first = heading(evidence, deciding(evidence, metrics[0]))
    some = [row[-1] for row in rows if row[0] == first and row[5] == "yes" and isinstance(row[-1], Estimate)]
    better = sum(evidence.sign(metrics[0]) * each.value > 0 and (each.p or 0) < 0.05 for each in some)
    worse = sum(evidence.sign(metrics[0]) * each.value < 0 and (each.p or 0) < 0.05 for each in some)
    unmatched = sorted({str(row[1]) for row in rows if row[5] == "no"})
    notes = [family_note(final, "differences of this table")]
    if any(row[6] != row[7] for row in rows):
        notes.append("Where the two rest on different prompts, their difference is of those that both were run on.")
    if unmatched:
        notes.append(f"No temperature comes within {NEAR:.0%} of the strength of: {', '.join(unmatched)}.")
    spread = np.array([far[each] for each in taus if each in far])
    notes.append(f"Temperatures reach strengths from {spread.min():.3g} to {spread.max():.3g}.")
    notes += [*gap_notes(evidence, [*settings, *taus]), prompts_note(evidence)]
    return ResultTable(
        "figure-9", "Circulation against temperature at matched strength", columns, tuple(map(tuple, rows)),
        f"In {first}, of {len(some)} matched circulations {better} are better than temperature and {worse} worse, "
        "after Holm's correction.",
        "Strength is the mean distance of an image's features from those of the vanilla image of the same prompt and "
        f"seed; each circulation stands beside the temperature nearest in strength, “matched” if within {NEAR:.0%}. "
        "Differences are between images of the same prompts and seeds; 95% bootstrap intervals over prompts.",
        tuple(notes),
    )  # fmt: skip
