"""Table 2: are the samples with the highest alignment better than those with the lowest?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from symskew.protocols.choices import diversity_metrics, fidelity_metrics, heading
from symskew.protocols.compare import adjusted, contrast, family_note, gap_notes, prompts_note, states_note, subset_mean
from symskew.protocols.evidence import Evidence, Reading
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocol
from symskew.protocols.scopes import each_set, in_each
from symskew.protocols.table import Column, ResultTable
from symskew.statistics import Estimate
from symskew.statistics.arms import levels, ordered

FAIR, SAME = "prompts, by other seeds", "images, by themselves"
"""How strata are chosen: fair, and the paper's way."""


class _Order(NamedTuple):
    """What is put in order: some scores, whose places and prompts are known, by something else."""

    values: np.ndarray
    prompts: np.ndarray
    by: np.ndarray


@protocol("table-2", "fidelity of the samples with the highest and the lowest alignment")
def table_2(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    measure: str = "alignment",
    stage: str = "all",
    branch: str = "both",
    share: float = 0.2,
) -> list[ResultTable]:
    """Means of the top and bottom share of vanilla samples by a measure (the paper's Table 2), chosen in two ways.

    Images by themselves: the paper's way; an image's alignment and score are of the same image. Prompts by other
    seeds: prompts are put in order by their mean alignment on the selection seeds, and scored on the evaluation seeds.

    Args:
        evidence: with diagnosed vanilla samples.
        metrics: of samples; the main ones by default.
        measure: to choose by.
        stage: of it.
        branch: of it.
        share: in each stratum.

    Raises:
        MissingError: too few vanilla samples were diagnosed.
    """
    if not 0 < share <= 0.5:
        raise ValueError(f"table-2: share must be above 0 and at most 0.5, got {share!r}")
    reading, chosen = Reading(measure, stage, branch), fidelity_metrics(evidence, metrics)
    return in_each(each_set(evidence), lambda some, _: [_table(some, reading, chosen, share)])


def _table(evidence: Evidence, reading: Reading, metrics: Sequence[str], share: float) -> ResultTable:
    vanilla = evidence.vanilla
    measured = int((~np.isnan(evidence.values(reading)[evidence.arm(vanilla, None).rows])).sum())
    if measured * share < 2:
        raise MissingError("diagnosed vanilla samples", roles=["select", "eval"], diagnosed=["vanilla"])
    ranked = {name: values.mean() for name, values in evidence.by_prompt(reading, vanilla, "select").items()}
    found: dict[tuple[str, str], list[Estimate | None]] = {}
    for metric in (reading, *metrics):
        for way, order in (
            (FAIR, _by_prompts(evidence, metric, ranked)),
            (SAME, _by_images(evidence, metric, reading)),
        ):
            if len(np.unique(order.by)) * share >= 2:
                found[heading(evidence, metric), way] = _ends(order, share)
    for metric in diversity_metrics(evidence):
        spread = {name: value for name, value in evidence.diversity(metric, vanilla).items() if name in ranked}
        if len(spread) * share >= 2:
            order = _Order(
                np.array(list(spread.values())), np.arange(len(spread)), np.array([ranked[name] for name in spread])
            )
            found[heading(evidence, metric), FAIR] = _ends(order, share)
    # That the measure differs between its own strata is no finding.
    own = heading(evidence, reading)
    final = adjusted([None if name == own else parts[-1] for (name, _), parts in found.items()])
    rows = [
        (name, way, *parts[:-1], parts[-1] if name == own else tested)
        for ((name, way), parts), tested in zip(found.items(), final, strict=True)
    ]
    columns = (
        Column("metric"), Column("chosen"), Column("all"), Column(f"highest {share:.0%}"),
        Column(f"lowest {share:.0%}"), Column("highest − lowest", sign=True, mark=True),
    )  # fmt: skip
    told = [f"{row[0]} {columns[-1].text(row[-1])} ({row[1]})" for row in rows if row[0] != own][:2]
    notes = [family_note(final, "differences, but for those of what was chosen by")]
    if not ranked:
        notes.append(f"“{FAIR}” is not there: no vanilla sample with a selection seed was diagnosed.")
    notes += [*gap_notes(evidence, [vanilla], ("select", "eval")), *states_note(evidence), prompts_note(evidence)]
    return ResultTable(
        "table-2", f"Fidelity by {own}", columns, tuple(rows), f"Highest minus lowest {own}: {'; '.join(told)}.",
        f"Vanilla samples in strata of {own} (stage {reading.stage}, branch {reading.branch}; {measured} samples). "
        f"“{SAME}”: the paper's Table 2. “{FAIR}”: prompts in order of their mean on the selection seeds, scored on "
        "the evaluation seeds. Means over samples with 95% intervals of the bootstrap over prompts.", tuple(notes),
    )  # fmt: skip


def _by_images(evidence: Evidence, metric: str | Reading, reading: Reading) -> _Order:
    arm = evidence.arm(evidence.vanilla, None)
    values, by = evidence.values(metric)[arm.rows], evidence.values(reading)[arm.rows]
    there = ~(np.isnan(values) | np.isnan(by))
    return _Order(values[there], arm.prompts[there], by[there])


def _by_prompts(evidence: Evidence, metric: str | Reading, ranked: dict[str, float]) -> _Order:
    found = {name: values for name, values in evidence.by_prompt(metric, evidence.vanilla).items() if name in ranked}
    sizes = [len(values) for values in found.values()]
    values = np.concatenate(list(found.values())) if found else np.empty(0)
    by = np.repeat([ranked[name] for name in found], sizes)
    return _Order(values, np.repeat(np.arange(len(found)), sizes), by)


def _ends(order: _Order, share: float) -> list[Estimate | None]:
    """The means of all, of the highest and of the lowest share, and the difference of the last two.

    Samples that are alike in what they are ordered by and of the same prompt go together.
    """
    units, codes = np.unique(np.stack([levels(order.by), order.prompts]), axis=1, return_inverse=True)
    places, count = ordered(units[0], 0), max(1, round(share * units.shape[1]))
    high, low = (np.isin(codes.ravel(), part) for part in (places[-count:], places[:count]))
    values, prompts = order.values, order.prompts
    means = [subset_mean(values, prompts, part) for part in (np.ones(len(values), bool), high, low)]
    return [*means, contrast(values, prompts, high, low)]
