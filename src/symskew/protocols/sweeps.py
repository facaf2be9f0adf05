"""Tables 3a and 7: what a sweep of α and β does to all prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from symskew.protocols.choices import fidelity_metrics, knobs, left_out
from symskew.protocols.contract import ROLES
from symskew.protocols.effects import READINGS, effect_table, effects
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocol
from symskew.protocols.scopes import in_each, scopes
from symskew.protocols.subsets import subset_table
from symskew.protocols.table import ResultTable


@protocol("table-3a", "every metric over all prompts, for each setting of a sweep")
def table_3a(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    families: str | Sequence[str] = "static",
    measures: bool = True,
) -> list[ResultTable]:
    """Means over all prompts for each setting (the paper's Table 3a), and what changed against vanilla.

    Args:
        evidence: with the families' samples on eval seeds.
        metrics: of samples; the main ones by default.
        families: whose settings; a table for each group of prompts that the same of them were run on.
        measures: whether the measures under control are rows too, where both they and vanilla were diagnosed.

    Raises:
        MissingError: no such setting.
    """
    chosen = fidelity_metrics(evidence, metrics)
    return in_each(scopes(evidence, families), lambda some, settings: [
        effect_table(
            some, "table-3a", "All prompts, setting by setting",
            effects(some, settings, chosen, readings=READINGS if measures else ()),
            caption="Measures are those of the controlled retrieval, where it was diagnosed.",
        )
    ])  # fmt: skip


@protocol("table-7", "a sweep with α below 1, in its order, for models that want less circulation")
def table_7(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    families: str | Sequence[str] = "static",
    share: float = 0.2,
) -> list[ResultTable]:
    """Means over all prompts, and changes on the worst by each metric, from α below 1 on (the paper's Table 7, on SD3).

    The paper has four settings, all below 1: (0.90, 3), (0.95, 3), (0.97, 4) and (0.97, 2). Where a study has some
    above 1 too, they follow, so that the two directions stand side by side.

    Args:
        evidence: with settings below 1; the second table, of the worst prompts with what changes there in the other
            metrics, needs select and placebo seeds, and is left out without.
        metrics: of samples; the main ones by default.
        families: whose settings.
        share: of the prompts that count as the worst.

    Raises:
        MissingError: no setting with α below 1.
    """
    chosen = fidelity_metrics(evidence, metrics)
    return in_each(scopes(evidence, families), lambda some, settings: _in_order(some, settings, chosen, share))


def _in_order(evidence: Evidence, everything: Sequence[str], metrics: Sequence[str], share: float) -> list[ResultTable]:
    alphas = {setting: known[0] for setting in everything if (known := knobs(evidence, setting))}
    settings = sorted(alphas, key=lambda setting: alphas[setting])
    if min(alphas.values(), default=1) >= 1:
        raise MissingError("a setting with α below 1", settings=["static"])
    both = "α below and above 1" if max(alphas.values()) > 1 else "α below 1"
    tables = [
        effect_table(
            evidence, "table-7", f"{both}, all prompts", effects(evidence, settings, metrics),
            caption="In order of α. The paper found α below 1 to help SD3, above 1 SDXL.",
            notes=left_out(evidence, everything),
        )
    ]  # fmt: skip
    if all(len(evidence.arm(evidence.vanilla, role).rows) for role in ROLES):
        with suppress(MissingError):
            worst = subset_table(
                evidence, "table-7-worst", settings, metrics, share=share, worst=True, side_effects=True
            )
            tables.append(worst)
    return tables
