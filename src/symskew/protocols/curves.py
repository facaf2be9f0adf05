"""The quantile curve: what a setting does along the whole range of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from symskew.protocols.choices import fidelity_metrics, heading
from symskew.protocols.compare import adjusted, clear_count, family_note, gap_notes, prompts_note, turned
from symskew.protocols.contract import ROLES
from symskew.protocols.evidence import Evidence
from symskew.protocols.registry import protocol
from symskew.protocols.scopes import in_each, scopes
from symskew.protocols.selected import NAIVE, chosen_arms, few_note
from symskew.protocols.table import Column, ResultTable
from symskew.statistics import quantile_curve


@protocol("quantiles", "the change along the whole range of prompts, from the worst to the best")
def quantiles(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    families: str | Sequence[str] = "static",
    bins: int = 5,
) -> list[ResultTable]:
    """The fair and the naive change in each quantile of the prompts: a rebound is mirror-shaped, a rescue is not.

    Args and errors as `table_3b`; `bins` is the number of quantiles.
    """
    chosen = fidelity_metrics(evidence, metrics)
    return in_each(scopes(evidence, families, ROLES), lambda some, settings: [_curve(some, settings, chosen, bins)])


def _curve(evidence: Evidence, settings: Sequence[str], chosen: Sequence[str], bins: int) -> ResultTable:
    found = []
    for metric in chosen:
        for setting in settings:
            arms = chosen_arms(evidence, metric, setting)
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
        "quantiles", "From the worst prompts to the best", columns, rows, clear_count(fair, "fair changes"),
        f"Change in each of {bins} quantiles, 1 the worst: of prompts by their selection seeds (fair), of images by "
        "their own score (naive). A rebound is mirror-shaped, gains at one end and losses at the other, and the "
        "placebo shows it too; what the treatment does by itself is in the fair column. 95% bootstrap intervals over "
        "prompts.",
        (family_note(fair, "fair changes of this table"), *filter(None, [few_note(row[3].n for row in found)]),
         *gap_notes(evidence, [evidence.vanilla, *settings], ROLES), prompts_note(evidence)),
    )  # fmt: skip
