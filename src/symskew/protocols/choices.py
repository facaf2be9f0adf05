"""What a table is about where it is not told: which metrics, and which settings in which order."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from symskew.protocols.evidence import Evidence, Reading
from symskew.protocols.needs import MissingError
from symskew.ramp import spell

MAIN = ("ensemble/log-likelihood", "ensemble/all-right", "ensemble/objects-right", "ensemble/realism")
"""The metrics shown by default, where there are such; the first is the one that decides."""
MEASURED = {"energy": "−energy", "instability": "instability", "alignment": "alignment", "symmetry": "symmetry η"}
"""What measures are called: the energy with its sign turned, so that more is more stable."""
MOST = 4
"""How many metrics are shown by default where none of these is there."""


def fidelity_metrics(evidence: Evidence, metrics: Iterable[str] | None = None) -> list[str]:
    """The metrics of samples that are asked for, or the main ones.

    Raises:
        ValueError: one that no sample was scored by.
        MissingError: there is none at all.
    """
    there = evidence.sample_metrics
    if not there:
        raise MissingError("scores of the samples", metrics="samples")
    if metrics is None:
        return [name for name in MAIN if name in there] or there[:MOST]
    return _known(metrics, there, "metric of samples")


def diversity_metrics(evidence: Evidence, metrics: Iterable[str] | None = None) -> list[str]:
    """The metrics of diversity that are asked for, or all there are; ValueError for an unknown one."""
    return evidence.pair_metrics if metrics is None else _known(metrics, evidence.pair_metrics, "metric of diversity")


def heading(evidence: Evidence, metric: str | Reading) -> str:
    """What a metric or a measure is called in a table; an arrow says which way is better."""
    if isinstance(metric, Reading):
        return MEASURED[metric.measure] + ("" if metric.stage == "all" else f", {metric.stage}")
    return f"{evidence.title(metric)} {'↑' if evidence.sign(metric) > 0 else '↓'}"


def deciding(evidence: Evidence, metric: str | None = None) -> str:
    """The metric of samples that a choice is made by."""
    return fidelity_metrics(evidence, None if metric is None else [metric])[0]


def settings_of(evidence: Evidence, families: str | Sequence[str]) -> list[str]:
    """The settings of families, by id.

    Raises:
        MissingError: there is none.
    """
    names = [families] if isinstance(families, str) else list(families)
    found = evidence.family(*names)
    if not found:
        there = ", ".join(dict.fromkeys(evidence.frame["family"]))
        raise MissingError(f"settings of the family {' or '.join(names)}; the study has {there}", settings=names)
    return found


def strength(evidence: Evidence, setting: str) -> float:
    """β · |α − 1|, how far a circulation goes; NaN for what is none, 0 for vanilla."""
    if setting == evidence.vanilla:
        return 0.0
    known = knobs(evidence, setting)
    return known[1] * abs(known[0] - 1) if known else math.nan


def knobs(evidence: Evidence, setting: str) -> tuple[float, float] | None:
    """α and β of a circulation, or of its null; None for what circulates nothing."""
    row = evidence.setting(setting)
    if _missing(row["alpha"], row["beta"]) or float(row["alpha"]) == 1 or "sym" in control(evidence, setting):
        return None
    return float(row["alpha"]), float(row["beta"])


def schedule(evidence: Evidence, setting: str) -> tuple[str, str] | None:
    """α and β as they are written, where one of them changes along the way, of a circulation or its null."""
    given = _given(evidence, setting)
    values = [given.get(name, 1.0) for name in ("alpha", "beta")]
    numbers = all(isinstance(value, int | float) for value in values)
    return None if numbers else (spell(values[0]), spell(values[1]))


def left_out(evidence: Evidence, settings: Iterable[str], where: str = "Left out") -> list[str]:
    """A note on those of some settings that have no place among others by α and β; none where all have."""
    known = {evidence.label(each): found for each in settings if (found := schedule(evidence, each))}
    told = ", ".join(f"{label} (α {alpha}, β {beta})" for label, (alpha, beta) in known.items())
    return [f"{where}, since α or β changes along the way and is no single number: {told}."] if told else []


def control(evidence: Evidence, setting: str) -> dict[str, Any]:
    """All that a setting says of its control but α and β, without what is a default: alike for a null and its like."""
    given = _given(evidence, setting)
    defaults = {"layers": None, "start": 0.0, "stop": 1.0}
    own = {name: value for name, value in given.items() if name not in defaults or defaults[name] != value}
    return {name: value for name, value in own.items() if name not in ("name", "seed", "strength", "alpha", "beta")}


def _given(evidence: Evidence, setting: str) -> dict[str, Any]:
    """What a setting says of its baseline, or else of its circulation and where that acts."""
    known = json.loads(evidence.setting(setting)["json"] or "{}")
    where = {name: known[name] for name in ("layers", "start", "stop") if name in known}
    return known.get("baseline") or {**known.get("circulation", {}), **where}


def _missing(*values: object) -> bool:
    return any(value is None or math.isnan(float(value)) for value in values)  # pyright: ignore[reportArgumentType]


def _known(metrics: Iterable[str], there: Sequence[str], what: str) -> list[str]:
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in names:
        if name not in there:
            raise ValueError(f"symskew: no {what} is called {name!r}; there are {', '.join(there) or 'none'}")
    return names
