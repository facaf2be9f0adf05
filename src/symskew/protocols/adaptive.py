"""Table 6: does adapting α and β keep the gains of a moderate setting, and save an excessive one?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from symskew.protocols.choices import fidelity_metrics, heading, knobs, left_out, settings_of, strength
from symskew.protocols.compare import adjusted, change, family_note, gap_notes, mean, prompts_note
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocol
from symskew.protocols.scopes import in_each, scopes
from symskew.protocols.table import Cell, Column, ResultTable

Knobs = tuple[float, float]
MODERATE, EXCESSIVE = "moderate", "excessive"


class Pair(NamedTuple):
    """A static and an adaptive setting with the same α and β."""

    regime: str
    static: str
    adaptive: str


def pairs(
    evidence: Evidence,
    static: str | Sequence[str] = "static",
    adaptive: str | Sequence[str] = "adaptive",
    moderate: Knobs | None = None,
    excessive: Knobs | None = None,
) -> list[Pair]:
    """Settings of the same α and β, from the mildest to the strongest, with what they count as.

    Where it is not said which α and β are moderate and excessive, the mildest are and the strongest.

    Raises:
        MissingError: no two settings are alike, or not those that were named.
    """
    fixed = {known: each for each in settings_of(evidence, static) if (known := knobs(evidence, each))}
    found = [
        (known, fixed[known], each)
        for each in settings_of(evidence, adaptive)
        if (known := knobs(evidence, each)) in fixed and known is not None
    ]
    if not found:
        families = [*_names(static), *_names(adaptive)]
        raise MissingError("a static and an adaptive setting with the same α and β", settings=families)
    found.sort(key=lambda each: strength(evidence, each[1]))
    there = [known for known, *_ in found]
    for name, wanted in ((MODERATE, moderate), (EXCESSIVE, excessive)):
        if wanted is not None and tuple(wanted) not in there:
            shown = ", ".join(f"({a:g}, {b:g})" for a, b in there)
            raise MissingError(
                f"the {name} setting α={wanted[0]:g} β={wanted[1]:g} static and adaptive; there are {shown}"
            )
    ends = {tuple(moderate or there[0]): MODERATE}
    if excessive or there[-1] != there[0]:
        ends[tuple(excessive or there[-1])] = EXCESSIVE
    return [Pair(ends.get(known, ""), one, other) for known, one, other in found]


@protocol("table-6", "static against adaptive control, moderate and excessive")
def table_6(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    static: str | Sequence[str] = "static",
    adaptive: str | Sequence[str] = "adaptive",
    moderate: Knobs | None = None,
    excessive: Knobs | None = None,
) -> list[ResultTable]:
    """Static and adaptive control with the same α and β, against vanilla and each other (the paper's Table 6).

    Args:
        evidence: with both families on eval seeds.
        metrics: of samples; the main ones by default.
        static: families of static settings.
        adaptive: families of adaptive ones.
        moderate: α and β that count as moderate; the mildest pair by default.
        excessive: those that count as excessive; the strongest pair by default.

    Raises:
        MissingError: no two settings with the same α and β.
    """
    pairs(evidence, static, adaptive, moderate, excessive)  # there is one at all
    chosen, families = fidelity_metrics(evidence, metrics), [*_names(static), *_names(adaptive)]
    return in_each(
        scopes(evidence, families),
        lambda some, every: [_table(some, pairs(some, static, adaptive, moderate, excessive), chosen, every)],
    )


def _names(families: str | Sequence[str]) -> list[str]:
    return [families] if isinstance(families, str) else list(families)


def _table(evidence: Evidence, found: Sequence[Pair], metrics: Sequence[str], everything: Sequence[str]) -> ResultTable:
    rows: list[list[Cell]] = []
    for pair in found:
        alpha, beta = knobs(evidence, pair.static) or (None, None)
        for metric in metrics:
            changes = [change(evidence, metric, each) for each in (pair.static, pair.adaptive)]
            apart = change(evidence, metric, pair.adaptive, pair.static)
            means = [mean(evidence, metric, each) for each in (evidence.vanilla, pair.static, pair.adaptive)]
            rows.append([
                pair.regime, alpha, beta, evidence.label(pair.adaptive), heading(evidence, metric), *means,
                *(each and each.estimate for each in (*changes, apart)),
            ])  # fmt: skip
    final = adjusted([cell for row in rows for cell in row[8:]])  # pyright: ignore[reportArgumentType]
    for i, row in enumerate(rows):
        row[8:] = final[3 * i : 3 * i + 3]
    columns = (
        Column("regime"), Column("α", "g"), Column("β", "g"), Column("adaptive setting"), Column("metric"),
        Column("vanilla"), Column("static"), Column("adaptive"), Column("static − vanilla", None, True, True),
        Column("adaptive − vanilla", None, True, True), Column("adaptive − static", None, True, True),
    )  # fmt: skip
    last = next(row for row in reversed(rows) if row[4] == rows[0][4])
    told = "; ".join(f"{c.name} {c.text(cell)}" for c, cell in zip(columns[8:], last[8:], strict=True))
    return ResultTable(
        "table-6", "Static against adaptive control", columns, tuple(map(tuple, rows)),
        f"At the strongest pair, α={last[1]:g} β={last[2]:g}, in {last[4]}: {told}.",
        "Pairs of settings with the same α and β, from the mildest to the strongest. Means over prompts; differences "
        "are between images of the same prompts and seeds, with 95% bootstrap intervals over prompts.",
        (family_note(final, "differences of this table"), *_unpaired(evidence, found, everything),
         *gap_notes(evidence, [each for pair in found for each in pair[1:]]), prompts_note(evidence)),
    )  # fmt: skip


def _unpaired(evidence: Evidence, found: Sequence[Pair], everything: Sequence[str]) -> list[str]:
    """Notes on the settings that are not there."""
    paired = {each for pair in found for each in pair[1:]}
    rest = [each for each in everything if each not in paired]
    alone = ", ".join(evidence.label(each) for each in rest if knobs(evidence, each))
    return [
        *left_out(evidence, rest),
        *([f"Left out, without a partner of the same α and β: {alone}."] if alone else []),
    ]
