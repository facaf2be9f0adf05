"""Table 1: do the measures of stability go with the fidelity of a sample, and with the diversity of its prompt?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from symskew.protocols.choices import MEASURED, diversity_metrics, fidelity_metrics, heading
from symskew.protocols.compare import adjusted, family_note, gap_notes, prompts_note, states_note
from symskew.protocols.contract import MEASURES, ROLES, STAGES
from symskew.protocols.evidence import Evidence, Reading
from symskew.protocols.needs import MissingError
from symskew.protocols.ranks import Estimates, rank_correlations, rank_correlations_within
from symskew.protocols.registry import protocol
from symskew.protocols.scopes import each_set, in_each
from symskew.protocols.table import Cell, Column, ResultTable
from symskew.statistics import Estimate

PLACES = (*STAGES, "all")


@protocol("table-1", "rank correlation of the measures with each metric, by stage")
def table_1(
    evidence: Evidence,
    *,
    metrics: Iterable[str] | None = None,
    diversity: Iterable[str] | None = None,
    branch: str = "both",
    draws: int = 500,
) -> list[ResultTable]:
    """Spearman's ρ over all vanilla samples (the paper's Table 1), and within prompts, where difficulty is out.

    Args:
        evidence: with diagnosed vanilla samples.
        metrics: of samples; the main ones by default.
        diversity: metrics of diversity, against the measures' means over a prompt's eval samples; all by default.
        branch: "conditional", "unconditional" or "both", the mean of what there is.
        draws: of the bootstrap.

    Raises:
        MissingError: no vanilla sample was diagnosed.
    """
    if branch not in ("conditional", "unconditional", "both"):
        raise ValueError(f"table-1: branch must be conditional, unconditional or both, got {branch!r}")
    chosen, pairs = fidelity_metrics(evidence, metrics), diversity_metrics(evidence, diversity)
    return in_each(each_set(evidence), lambda some, _: _tables(some, chosen, pairs, branch, draws))


def _tables(
    evidence: Evidence, chosen: Sequence[str], pairs: Sequence[str], branch: str, draws: int
) -> list[ResultTable]:
    readings = [Reading(measure, stage, branch) for measure in MEASURES for stage in PLACES]
    arm = evidence.arm(evidence.vanilla, None)
    measured = np.stack([_turned(evidence, reading)[arm.rows] for reading in readings])
    there = ~np.isnan(measured).any(0)
    if len(np.unique(arm.prompts[there])) < 3:
        raise MissingError(
            "diagnosed vanilla samples of at least 3 prompts, in the stages down, mid and up",
            roles=["eval"],
            diagnosed=["vanilla"],
        )
    over, within = {}, {}
    alike: dict[bytes, list[str]] = {}  # measures are ranked once for all metrics of the same samples
    for metric in chosen:
        alike.setdefault((there & ~np.isnan(evidence.values(metric)[arm.rows])).tobytes(), []).append(metric)
    for mask, some in alike.items():
        scored = np.frombuffer(mask, bool)
        prompts = arm.prompts[scored]
        x, y = measured[:, scored], np.stack([evidence.values(metric)[arm.rows[scored]] for metric in some])
        for found, tables in (
            (over, rank_correlations(x, y, prompts, draws=draws)),
            (within, rank_correlations_within(x, y, prompts)),
        ):
            for place, metric in enumerate(some):
                found[metric] = [[row[place]] for row in tables]
    over, within = ({metric: found[metric] for metric in chosen} for found in (over, within))
    for metric in pairs:
        over[metric] = _of_prompts(evidence, metric, readings, draws)
    notes = [*gap_notes(evidence, [evidence.vanilla], ROLES), *states_note(evidence), prompts_note(evidence)]
    samples = f"{int(there.sum())} vanilla samples of {len(np.unique(arm.prompts[there]))} prompts"
    how = (
        f" The measures are means over layers of a stage (all: mean of the three stages), over steps, and over the "
        f"branch {branch}; −energy is the energy with its sign turned. 95% intervals are of the cluster bootstrap over "
        "prompts."
    )
    return [
        _table(
            "table-1", "Stability against fidelity and diversity, over all samples", evidence, over,
            f"Spearman's rank correlation over {samples}, as in the paper's Table 1: easy and hard prompts are part of "
            f"it. Rows of diversity: prompts' mean measures against their diversity over seeds.{how}", notes,
        ),
        _table(
            "table-1-within", "Stability against fidelity, within prompts", evidence, within,
            f"Mean over prompts of Spearman's rank correlation between the seeds of a prompt, {samples}: the prompt's "
            f"difficulty is out of it, so this is what choosing among seeds can rest on.{how}", notes,
        ),
    ]  # fmt: skip


def _turned(evidence: Evidence, reading: Reading) -> np.ndarray:
    values = evidence.values(reading)
    return -values if reading.measure == "energy" else values


def _of_prompts(evidence: Evidence, metric: str, readings: Sequence[Reading], draws: int) -> Estimates:
    """The correlations of prompts' mean measures with their diversity."""
    found = evidence.diversity(metric, evidence.vanilla)
    means = []
    for reading in readings:
        by_prompt = evidence.by_prompt(reading, evidence.vanilla)
        sign = -1 if reading.measure == "energy" else 1
        means.append({name: sign * values.mean() for name, values in by_prompt.items() if name in found})
    names = [name for name in means[0] if all(name in each for each in means)]
    x = np.array([[each[name] for name in names] for each in means])
    return rank_correlations(x, np.array([[found[name] for name in names]]), np.arange(len(names)), draws=draws)


def _table(
    name: str, title: str, evidence: Evidence, found: dict[str, Estimates], caption: str, notes: list[str]
) -> ResultTable:
    flat = adjusted([row[0] for rows in found.values() for row in rows])
    rows: list[tuple[Cell, ...]] = []
    best: tuple[Estimate, str] | None = None
    for i, metric in enumerate(found):
        for j, measure in enumerate(MEASURES):
            first = (i * len(MEASURES) + j) * len(PLACES)
            cells = flat[first : first + len(PLACES)]
            rows.append((heading(evidence, metric), MEASURED[measure], *cells))
            for place, cell in zip(PLACES, cells, strict=True):
                if cell is not None and (best is None or abs(cell.value) > abs(best[0].value)):
                    where = "all stages" if place == "all" else f"stage {place}"
                    best = (cell, f"{MEASURED[measure]} ({where}) with {evidence.title(metric)}")
    tested = [cell for cell in flat if cell is not None]
    clear = sum(cell.p is not None and cell.p < 0.05 for cell in tested)
    summary = f"{clear} of {len(tested)} correlations differ from 0 after Holm's correction."
    if best:
        summary += f" The largest is {best[0].text('.2f', sign=True)}: {best[1]}."
    columns = (Column("metric"), Column("measure"), *(Column(p, ".2f", True, True) for p in PLACES))
    return ResultTable(
        name, title, columns, tuple(rows), summary, caption, (family_note(flat, "correlations of this table"), *notes)
    )
