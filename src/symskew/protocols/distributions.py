"""Table 8: are the images of a setting, as a set, as near to real ones as vanilla's?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from symskew.metrics import Comparison, Features, Quantity, SetMetric, find
from symskew.protocols.choices import fidelity_metrics, heading
from symskew.protocols.compare import (
    adjusted,
    change,
    family_note,
    gap_notes,
    mean,
    of_interval,
    prompts_note,
)
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocol
from symskew.protocols.scopes import in_each, scopes
from symskew.protocols.table import Cell, Column, ResultTable
from symskew.statistics import Estimate, jackknife

Scores = dict[bytes, dict[str, float]]
"""The quantities of a setting, for each subset of its samples."""


@protocol("table-8", "distribution metrics of each setting, beside its mean fidelity")
def table_8(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    set_metrics: Sequence[str | SetMetric] | None = None,
    families: str | Sequence[str] = "static",
    groups: int = 20,
) -> list[ResultTable]:
    """Set metrics with jackknife intervals over groups of prompts (the paper's Table 8), at equal numbers of images.

    Args:
        evidence: with features and references; all settings are compared on the prompts and seeds that all have.
        metrics: of samples; the main ones by default.
        set_metrics: names of quantities, or metrics; by default those of kind "set" that the study has a reference for.
        families: whose settings, besides vanilla.
        groups: of prompts, each left out once.

    Raises:
        MissingError: no features, no reference, or no set metric.
    """
    several, quantities = _wanted(evidence, set_metrics)
    chosen = fidelity_metrics(evidence, metrics)
    comparisons = [
        (name, each.against(evidence.references[name].features)) for each in several if (name := each.extractor)
    ]

    def make(some: Evidence, settings: list[str]) -> list[ResultTable]:
        return [_table(some, [some.vanilla, *settings], comparisons, quantities, chosen, groups)]

    return in_each(scopes(evidence, families, largest=True), make)


def _table(
    evidence: Evidence,
    settings: Sequence[str],
    comparisons: Sequence[tuple[str, Comparison]],
    quantities: Sequence[Quantity],
    metrics: Sequence[str],
    groups: int,
) -> ResultTable:
    places, prompts = evidence.matched(*settings)
    if len(np.unique(prompts)) < 3:
        raise MissingError("the same prompts and seeds under all settings, at least 3 prompts of them", roles=["eval"])
    subsets = _subsets(prompts, groups)
    scored = {
        setting: _scores(comparisons, evidence, rows, subsets) for setting, rows in zip(settings, places, strict=True)
    }
    vanilla, count = scored[evidence.vanilla], min(groups, len(np.unique(prompts)))
    rows: list[list[Cell]] = []
    for quantity in quantities:
        reference = _jackknife(prompts, groups, lambda key, q=quantity.id: vanilla[key][q])
        away = reference.low > 0 and min(each[quantity.id] for each in vanilla.values()) > 0
        for setting in settings:
            own = scored[setting]
            value = _jackknife(prompts, groups, lambda key, own=own, q=quantity.id: own[key][q])
            cells: list[Estimate | None] = [None, None]
            if setting != evidence.vanilla:
                apart = _jackknife(prompts, groups, lambda key, own=own, q=quantity.id: own[key][q] - vanilla[key][q])
                cells[0] = of_interval(apart, count)
                if away:  # a share of what may be 0, or has either sign as unbiased estimates do, means nothing
                    cells[1] = _jackknife(
                        prompts, groups, lambda key, own=own, q=quantity.id: own[key][q] / vanilla[key][q] - 1
                    )
            title = f"{quantity.title} {'↑' if quantity.higher_is_better else '↓'}"
            rows.append([title, evidence.label(setting), value, *cells])
    shown = len(rows)
    for metric in metrics:
        for setting in settings:
            found = None if setting == evidence.vanilla else change(evidence, metric, setting)
            estimates = [mean(evidence, metric, setting), found and found.estimate, None]
            rows.append([heading(evidence, metric), evidence.label(setting), *estimates])
    final = adjusted([row[3] for row in rows])  # pyright: ignore[reportArgumentType]
    for row, new in zip(rows, final, strict=True):
        row[3] = new
    told = _told(rows[:shown])
    lacking = _unreferenced(evidence)
    references = "; ".join(evidence.references[name].told for name in dict.fromkeys(name for name, _ in comparisons))
    columns = (
        Column("metric"), Column("setting"), Column("value"), Column("change", sign=True, mark=True),
        Column("relative", ".1%", sign=True),
    )  # fmt: skip
    return ResultTable(
        "table-8", "Distributions at scale", columns, tuple(map(tuple, rows)), told,
        f"{len(prompts):,} images of each setting, of the same prompts and seeds, against {references}. Set metrics "
        f"with 95% intervals of the jackknife over {count} groups of prompts, about a value whose bias depends on the "
        "number of images; changes are jackknifed as differences. Relative: as a share of vanilla's, where its own "
        "interval lies above 0. Fidelity: means and changes over prompts with "
        "bootstrap intervals.",
        (
            family_note(final, "changes of this table"), *gap_notes(evidence, settings), prompts_note(evidence),
            *([f"No real images to compare with: {', '.join(lacking)}."] if lacking else []),
        ),
    )  # fmt: skip


def _wanted(evidence: Evidence, given: Sequence[str | SetMetric] | None) -> tuple[list[SetMetric], list[Quantity]]:
    """The metrics to compute, and which of their quantities to show."""
    if given is None:
        given = _given(evidence)
        given = [name for name in given if name not in _unreferenced(evidence)] or given
    names = [each for each in given if isinstance(each, str)]
    several = [each for each in given if isinstance(each, SetMetric)]
    shown = [quantity for metric in several for quantity in metric.quantities]
    for metric in find(names):
        if not isinstance(metric, SetMetric):
            raise ValueError(f"table-8: {metric.quantities[0].id} is no metric of sets")
        several.append(metric)
        shown += [quantity for quantity in metric.quantities if {quantity.id, quantity.short} & set(names)]
    if not several:
        raise MissingError("metrics of sets", metrics="sets")
    if lacking := {metric.extractor: metric for metric in several if metric.extractor not in evidence.references}:
        name = next(iter(lacking))
        raise MissingError(
            f"features of real images by {' and '.join(map(str, lacking))} to compare with: symskew metrics reference "
            f"FOLDER --features {str(name).partition('/')[0]} --out FILE, then symskew study reference RUN FILE"
        )
    return several, shown


def _given(evidence: Evidence) -> list[str]:
    return list(evidence.metrics.loc[evidence.metrics["kind"] == "set", "metric"])


def _unreferenced(evidence: Evidence) -> list[str]:
    """The study's metrics of sets that it has no real images for."""
    return [name for name in _given(evidence) if find([name])[0].extractor not in evidence.references]


def _subsets(prompts: np.ndarray, groups: int) -> list[np.ndarray]:
    """The subsets that the jackknife asks for."""
    found: list[np.ndarray] = []
    jackknife(lambda kept: found.append(kept) or 0.0, prompts, groups=groups)
    return found


def _scores(
    comparisons: Sequence[tuple[str, Comparison]], evidence: Evidence, rows: np.ndarray, subsets: Sequence[np.ndarray]
) -> Scores:
    found: Scores = {kept.tobytes(): {} for kept in subsets}
    seen: dict[str, Features] = {}
    for extractor, comparison in comparisons:
        if extractor not in seen:
            seen = {extractor: evidence.embedded(rows, extractor)}  # one at a time: they may be large
        for kept, values in zip(subsets, comparison.scores(seen[extractor], subsets), strict=True):
            found[kept.tobytes()].update(values)
    return found


def _jackknife(prompts: np.ndarray, groups: int, value: Callable[[bytes], float]) -> Estimate:
    return jackknife(lambda kept: value(kept.tobytes()), prompts, groups=groups)


def _told(rows: Sequence[Sequence[Cell]]) -> str:
    """The largest of the relative changes whose difference is clear after Holm's correction."""
    changes = [row for row in rows if isinstance(row[3], Estimate)]
    if not changes:
        return "No set metric could be held against vanilla."
    clear = [row for row in changes if isinstance(row[3], Estimate) and row[3].p is not None and row[3].p < 0.05]
    told = f"{len(clear)} of {len(changes)} changes of set metrics differ from 0 after Holm's correction"
    relative = [(cell, f"{row[0]} with {row[1]}") for row in clear if isinstance(cell := row[4], Estimate)]
    if not relative:
        return f"{told}."
    largest, where = max(relative, key=lambda each: abs(each[0].value))
    return f"{told}; the largest relative one is {Column('', '.1%', sign=True).text(largest)}: {where}."
