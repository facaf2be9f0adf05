"""Metrics and extractors by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from symskew import ensemble
from symskew.metrics.kinds import Extractor, Metric

__all__ = ["defaults", "describe", "extractor", "find"]


@cache
def _metrics() -> dict[str, Metric]:
    """All metrics by the ids of what they report."""
    from symskew.metrics import correctness, diversity, frechet, kernel, neighbours, perceptual, realism, vendi

    rooms = (correctness, realism, diversity, vendi, perceptual, frechet, kernel, neighbours)
    return {quantity.id: metric for room in rooms for metric in room.METRICS for quantity in metric.quantities}


@cache
def _extractors() -> dict[str, Callable[[], Extractor]]:
    from symskew.metrics import judging, perceptual

    return {room.ID: room.EXTRACTOR for room in (judging, perceptual)}


def find(names: Iterable[str]) -> list[Metric]:
    """The metrics that report these quantities, each once, in this order.

    Raises:
        ValueError: an unknown name; tells the nearest.
    """
    found: dict[int, Metric] = {}
    for name in names:
        metric = _look_up(name, _metrics(), "metric")
        found[id(metric)] = metric
    return list(found.values())


def defaults(model: str) -> list[str]:
    """The names of the metrics that a model is judged by: for a shipped model, all that need no further weights.

    Empty for any other model, because what an image must show is known for the prompts of Ensemble alone.
    """
    if model not in ensemble.MODELS:
        return []
    return [name for name in _metrics() if name.startswith("ensemble/")]


@cache
def extractor(name: str) -> Extractor:
    """The extractor of this id, one per process.

    Raises:
        ValueError: an unknown id; tells the nearest.
    """
    return _look_up(name, _extractors(), "extractor")()


def describe(names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """A row per quantity that these metrics report (None: all there are).

    `metric` (its id), `title`, `kind`, `higher_is_better`, `unit`, `extractor`, `version`, `dtype` and `weights`: the
    SHA-256 of the weights in use, None where a metric needs none or they are not on this machine.
    """
    rows = []
    for metric in find(_metrics() if names is None else names):
        eye = extractor(metric.extractor) if metric.extractor else None
        for quantity in metric.quantities:
            rows.append(
                {
                    "metric": quantity.id,
                    "title": quantity.title,
                    "kind": metric.kind,
                    "higher_is_better": quantity.higher_is_better,
                    "unit": quantity.unit,
                    "extractor": metric.extractor,
                    "version": quantity.version,
                    "dtype": eye.dtype if eye else None,
                    "weights": _weights(eye) if eye else None,
                }
            )
    return rows


def _weights(eye: Extractor) -> str | None:
    try:
        return eye.weights
    except (FileNotFoundError, ImportError):
        return None


def _look_up(name: str, there: dict[str, Any], what: str) -> Any:
    if name in there:
        return there[name]
    near = difflib.get_close_matches(name, there, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(there)}"
    raise ValueError(f"metrics: there is no {what} called {name!r}; {hint}")
