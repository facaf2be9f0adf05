"""Tables 3a and 7: what a sweep of α and β does to all prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from symskew.protocols.choices import fidelity_metrics, knobs, settings_of
from symskew.protocols.effects import READINGS, effect_table, effects
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocol
from symskew.protocols.subsets import subset_table
from symskew.protocols.table import ResultTable


@protocol("table-3a", "every metric over all prompts, for each setting of a sweep")
def table_3a(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    families: str | Sequence[str] = "static",
    measures: bool = True,
) -> ResultTable:
    """Means over all prompts for each setting (the paper's Table 3a), and what changed against vanilla.

    Args:
        evidence: with the families' samples on eval seeds.
        metrics: of samples; the main ones by default.
        families: whose settings; on the sets of prompts that all of them were run on.
        measures: whether the measures under control are rows too, where both they and vanilla were diagnosed.

    Raises:
        MissingError: no such setting.
    """
    settings = settings_of(evidence, families)
    evidence = evidence.shared([evidence.vanilla, *settings])
    return effect_table(
        evidence, "table-3a", "All prompts, setting by setting",
        effects(evidence, settings, fidelity_metrics(evidence, metrics), readings=READINGS if measures else ()),
        caption="Measures are those of the controlled retrieval, where it was diagnosed.",
    )  # fmt: skip


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
    found = {setting: known[0] for setting in settings_of(evidence, families) if (known := knobs(evidence, setting))}
    settings = sorted((setting for setting, alpha in found.items() if alpha != 1), key=lambda each: found[each])
    for side, there in (("below", any(found[s] < 1 for s in settings)), ("above", any(found[s] > 1 for s in settings))):
        if not there:
            raise MissingError(f"a setting with α {side} 1", settings=["static"])
    evidence = evidence.shared([evidence.vanilla, *settings])
    chosen = fidelity_metrics(evidence, metrics)
    tables = [
        effect_table(
            evidence, "table-7", "α below and above 1, all prompts", effects(evidence, settings, chosen),
            caption="In order of α. The paper found α below 1 to help SD3, above 1 SDXL.",
        )
    ]  # fmt: skip
    with suppress(MissingError):
        tables.append(subset_table(evidence, "table-7-worst", settings, chosen, share=share, worst=True))
    return tables
