"""Tables 3a and 7: what a sweep of α and β does to all prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from symskew.protocols.choices import fidelity_metrics, knobs
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


@protocol("table-7", "a sweep on both sides of α = 1, for models that want less circulation")
def table_7(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    families: str | Sequence[str] = "static",
    share: float = 0.2,
) -> list[ResultTable]:
    """Table 3 for settings with α below 1 and above it, in this order (the paper's Table 7, on SD3).

    Args:
        evidence: with settings on both sides; the second table, of the worst prompts, needs select and placebo seeds,
            and is left out without.
        metrics: of samples; the main ones by default.
        families: whose settings.
        share: of the prompts that count as the worst.

    Raises:
        MissingError: no setting with α below 1, or none above.
    """
    chosen = fidelity_metrics(evidence, metrics)
    return in_each(scopes(evidence, families), lambda some, settings: _both_sides(some, settings, chosen, share))


def _both_sides(
    evidence: Evidence, everything: Sequence[str], metrics: Sequence[str], share: float
) -> list[ResultTable]:
    alphas = {setting: known[0] for setting in everything if (known := knobs(evidence, setting))}
    settings = sorted(alphas, key=lambda setting: alphas[setting])
    for side, there in (("below", any(a < 1 for a in alphas.values())), ("above", any(a > 1 for a in alphas.values()))):
        if not there:
            raise MissingError(f"a setting with α {side} 1", settings=["static"])
    tables = [
        effect_table(
            evidence, "table-7", "α below and above 1, all prompts", effects(evidence, settings, metrics),
            caption="In order of α. The paper found α below 1 to help SD3, above 1 SDXL.",
        )
    ]  # fmt: skip
    if all(len(evidence.arm(evidence.vanilla, role).rows) for role in ROLES):
        with suppress(MissingError):
            tables.append(subset_table(evidence, "table-7-worst", settings, metrics, share=share, worst=True))
    return tables
