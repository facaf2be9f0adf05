"""Figure 3: what is left of an image under the symmetric part alone, and under the skew part alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from symskew.protocols.choices import diversity_metrics, fidelity_metrics, settings_of
from symskew.protocols.distances import between_seeds, from_vanilla, mean_distance, measurable
from symskew.protocols.effects import READINGS, Effect, effect_table, effects
from symskew.protocols.evidence import Evidence
from symskew.protocols.registry import protocol
from symskew.protocols.scopes import in_each, scopes
from symskew.protocols.table import ResultTable

DISTANCE = "distance from vanilla"


@protocol("figure-3", "the symmetric part alone and the skew part alone: fidelity, diversity, distance from vanilla")
def figure_3(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    sym: str | Sequence[str] = "sym-only",
    skew: str | Sequence[str] = "skew-only",
) -> list[ResultTable]:
    """Sym-only and Skew-only against vanilla (what the paper's Figure 3 shows by eye).

    Args:
        evidence: with both families on eval seeds; with features, their distance from the vanilla images is a row,
            beside that between vanilla images of two seeds.
        metrics: of samples; the main ones by default.
        sym: families of the symmetric part alone.
        skew: families of the skew part alone.

    Raises:
        MissingError: one of the two is not there.
    """
    parts = [*settings_of(evidence, sym), *settings_of(evidence, skew)]
    families = list(dict.fromkeys(str(evidence.setting(each)["family"]) for each in parts))
    chosen = fidelity_metrics(evidence, metrics)
    return in_each(scopes(evidence, families), lambda some, settings: [_table(some, settings, chosen)])


def _table(evidence: Evidence, settings: Sequence[str], metrics: Sequence[str]) -> ResultTable:
    found = effects(evidence, settings, metrics, diversity_metrics(evidence), readings=READINGS)
    caption = ""
    if measurable(evidence):
        apart = {setting: mean_distance(from_vanilla(evidence, setting)) for setting in settings}
        seeds = mean_distance(between_seeds(evidence))
        found += [Effect(DISTANCE, each, far, None, None, None) for each, far in apart.items() if far is not None]
        if seeds is not None:
            found.append(Effect(DISTANCE, evidence.vanilla, seeds, None, None, None))
        caption = (
            f"“{DISTANCE}” is between the features of images of the same prompt and seed; in the row of vanilla, "
            "between two vanilla images of a prompt with different seeds, as far as chance goes."
        )
    return effect_table(evidence, "figure-3", "The two parts alone", found, caption=caption)
