"""What the charts show, as plain values: means of settings, correlations with measures, changes by quantile.

A number with its interval is `[value, low, high, prompts]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from symskew.protocols import compare
from symskew.protocols.contract import BRANCHES, MEASURES, STAGES
from symskew.protocols.evidence import Evidence, Reading
from symskew.report.samples import vanilla_of
from symskew.statistics import Change, Estimate, quantile_curve, rank_correlation

DRAWS, FEW = 1_000, 300
"""Of the bootstrap, for quantiles and for correlations: there are thousands of intervals, which are read by eye."""
BINS = 5


def settings_by_metric(evidence: Evidence) -> dict[str, Any]:
    """The mean of every setting and metric on evaluation seeds, and its change against vanilla, as tables have them.

    Returns:
        `{prompts: {setting_id: {metric: {"value": …, "change": …}}}}`; no change of vanilla against itself.
    """
    found = {name: cells for name in evidence.prompt_sets if (cells := _settings(evidence.on(name)))}
    return _widest_first(evidence, found)


def correlations(evidence: Evidence) -> dict[str, Any]:
    """Spearman's ρ of every measure with every score over vanilla samples, and with diversity over prompts.

    Returns:
        `{branch: {stage: {measure: {metric: …}}}}`, without what is constant, or of too few prompts.
    """
    vanilla = vanilla_of(evidence)
    found: dict[str, Any] = {}
    for branch in BRANCHES if vanilla else ():
        for stage in STAGES:
            lines = {measure: _line(evidence, Reading(measure, stage, branch), str(vanilla)) for measure in MEASURES}
            if lines := {measure: line for measure, line in lines.items() if line}:
                found.setdefault(branch, {})[stage] = lines
    return found


def quantiles(evidence: Evidence) -> dict[str, Any]:
    """The change in each quantile of the prompts by their vanilla score, with that of the placebo.

    Returns:
        `{prompts: {metric: {setting_id: [{"low", "high", "fair", "fair_placebo", "naive", "naive_placebo"}, …]}}}`,
        where seeds were drawn for selection and for the placebo, and there are prompts enough for bins.
    """
    vanilla = vanilla_of(evidence)
    found: dict[str, Any] = {}
    for name in evidence.prompt_sets if vanilla else ():
        some = evidence.on(name)
        for metric in some.sample_metrics:
            if curves := dict(_curves(some, metric, str(vanilla))):
                found.setdefault(name, {})[metric] = curves
    return _widest_first(evidence, found)


def _widest_first(evidence: Evidence, found: dict[str, Any]) -> dict[str, Any]:
    """By how many settings were run on a set, then by its prompts: the first one is shown unless asked otherwise."""
    frame = evidence.frame.groupby("prompts")
    width = {name: (part["setting_id"].nunique(), part["prompt_id"].nunique()) for name, part in frame}
    return dict(sorted(found.items(), key=lambda item: width[item[0]], reverse=True))


def _settings(evidence: Evidence) -> dict[str, Any]:
    vanilla = vanilla_of(evidence)
    found: dict[str, Any] = {}
    for setting in evidence.settings["setting_id"]:
        cells: dict[str, Any] = {}
        for metrics, value, change in (
            (evidence.sample_metrics, compare.mean, compare.change),
            (evidence.pair_metrics, compare.spread, compare.spread_change),
        ):
            for metric in metrics:
                against: Change | None = change(evidence, metric, setting) if vanilla not in (None, setting) else None
                both = {"value": value(evidence, metric, setting), "change": against and against.estimate}
                if both := {name: _short(estimate) for name, estimate in both.items() if estimate}:
                    cells[metric] = both
        if cells:
            found[setting] = cells
    return found


def _line(evidence: Evidence, reading: Reading, vanilla: str) -> dict[str, list[float]]:
    arm = evidence.arm(vanilla, None)
    measured = evidence.values(reading)[arm.rows]
    if np.isnan(measured).all():
        return {}
    line = {
        metric: _correlation(measured, evidence.values(metric)[arm.rows], arm.prompts)
        for metric in evidence.sample_metrics
    }
    per_prompt = {prompt: own.mean() for prompt, own in evidence.by_prompt(reading, vanilla).items()}
    for metric in evidence.pair_metrics:
        spread = evidence.diversity(metric, vanilla)
        both = [prompt for prompt in per_prompt if prompt in spread]
        own, its = (np.array([side[prompt] for prompt in both], dtype=float) for side in (per_prompt, spread))
        line[metric] = _correlation(own, its, np.arange(len(both)))
    return {metric: cell for metric, cell in line.items() if cell}


def _correlation(x: np.ndarray, y: np.ndarray, prompts: np.ndarray) -> list[float] | None:
    there = ~(np.isnan(x) | np.isnan(y))
    x, y, prompts = x[there], y[there], prompts[there]
    if len(np.unique(prompts)) < 3 or x.min() == x.max() or y.min() == y.max():
        return None
    return _short(rank_correlation(x, y, prompts, draws=FEW))


def _curves(evidence: Evidence, metric: str, vanilla: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    select, placebo = (evidence.by_prompt(metric, vanilla, role) for role in ("select", "placebo"))
    for setting in evidence.settings["setting_id"]:
        if setting == vanilla or not (select and placebo):
            continue
        pair = evidence.paired(metric, setting)
        arms = [evidence.grouped(values, pair.prompts) for values in (pair.baseline, pair.treated)]
        prompts = [prompt for prompt in arms[0] if prompt in select and prompt in placebo]
        if len(prompts) >= 2 * BINS:
            chosen: Any = ({prompt: arm[prompt] for prompt in prompts} for arm in (select, *arms, placebo))
            bins = quantile_curve(*chosen, bins=BINS, draws=DRAWS)
            yield setting, [_plain(vars(one)) for one in bins]


def _plain(parts: dict[str, Any]) -> dict[str, Any]:
    return {name: _short(part) if isinstance(part, Estimate) else part for name, part in parts.items()}


def _short(estimate: Estimate) -> list[float]:
    # Six digits: a page has thousands of these.
    return [*(float(f"{part:.6g}") for part in (estimate.value, estimate.low, estimate.high)), estimate.n]
