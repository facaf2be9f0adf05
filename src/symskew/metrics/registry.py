"""Metrics and extractors by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from symskew import ensemble
from symskew.metrics.kinds import Extractor, Metric, sha256
from symskew.metrics.weights import Site, Source, locate

__all__ = ["defaults", "describe", "digests", "every_source", "extractor", "find", "sources"]

HERE = Site()
"""The CPU, and weights where they are by default."""


@cache
def _extractors(site: Site) -> dict[str, Extractor]:
    """All extractors by id, one of each per process: they hold their weights once these are needed."""
    from symskew.metrics import imagereward, judging, perceptual, spaces, towers

    eyes: list[Extractor] = [judging.EnsembleJudge(), perceptual.AlexNetLayers(site), *towers.towers(site)]
    eyes += [imagereward.BlipTokens(dtype, site) for dtype in towers.DTYPES]
    eyes += spaces.networks(site)
    return {eye.id: eye for eye in eyes}


@cache
def _metrics(site: Site) -> dict[str, Metric]:
    """All metrics by the ids of what they report."""
    from symskew.metrics import (
        aesthetic,
        alignment,
        correctness,
        diversity,
        frechet,
        imagereward,
        kernel,
        neighbours,
        networks,
        perceptual,
        realism,
        spaces,
        towers,
        vendi,
    )

    rooms = (correctness, realism, diversity, vendi, perceptual, frechet, kernel, neighbours)
    metrics: list[Metric] = [metric for room in rooms for metric in room.METRICS]
    eyes = _extractors(site).values()
    two = [eye for eye in eyes if isinstance(eye, towers.Towers)]
    metrics += alignment.alignments(two)
    metrics += [aesthetic.Aesthetic(eye, site) for eye in two if eye.sources == (towers.CLIP_L,)]
    metrics += [imagereward.ImageReward(eye) for eye in eyes if isinstance(eye, imagereward.BlipTokens)]
    metrics += spaces.spaces([eye for eye in eyes if isinstance(eye, networks.FeatureNetwork)])
    return {quantity.id: metric for metric in metrics for quantity in metric.quantities}


@cache
def _names(site: Site) -> dict[str, Metric]:
    """All metrics by ids and short names."""
    by_id = _metrics(site)
    return by_id | {q.short: metric for metric in by_id.values() for q in metric.quantities if q.short}


def find(names: Iterable[str], site: Site = HERE) -> list[Metric]:
    """The metrics that report these quantities, by id or short name, each once, in this order.

    Raises:
        ValueError: an unknown name; tells the nearest.
    """
    found: dict[int, Metric] = {}
    for name in names:
        metric = _look_up(name, _names(site), "metric")
        found[id(metric)] = metric
    return list(found.values())


def defaults(model: str) -> list[str]:
    """The names of the metrics that a model is judged by: for a shipped model, all that need no further weights.

    Empty for any other model, because what an image must show is known for the prompts of Ensemble alone.
    """
    if model not in ensemble.MODELS:
        return []
    return [name for name in _metrics(HERE) if name.startswith("ensemble/")]


def extractor(name: str, site: Site = HERE) -> Extractor:
    """The extractor of this id, one per process and site.

    Raises:
        ValueError: an unknown id; tells the nearest.
    """
    return _look_up(name, _extractors(site), "extractor")


def every_source() -> dict[str, Source]:
    """All published weights by name."""
    every = [source for metric in _metrics(HERE).values() for source in sources(metric)]
    return {source.name: source for source in every}


def digests(metrics: Iterable[Metric], site: Site) -> dict[str, str]:
    """The SHA-256 of the published weights that metrics are computed with, by name."""
    needed = dict.fromkeys(source for metric in metrics for source in sources(metric, site))
    return {source.name: sha256(locate(source, site)) for source in needed}


def sources(metric: Metric, site: Site = HERE) -> tuple[Source, ...]:
    """The published weights that a metric needs: its extractor's, and its own."""
    own = extractor(metric.extractor, site).sources if metric.extractor else ()
    return (*own, *metric.sources)


def describe(names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """A row per quantity that these metrics report (None: all there are).

    `metric` (its id), `title`, `kind`, `higher_is_better`, `unit`, `extractor`, `version`, `dtype` and `weights`: the
    SHA-256 of the weights that come with symskew. Of published ones, each of gigabytes, it is None: a study keeps the
    digests of those that it has used.
    """
    rows = []
    for metric in find(_metrics(HERE) if names is None else names):
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
                    "weights": eye.weights if eye and not eye.sources else None,
                }
            )
    return rows


def _look_up(name: str, there: dict[str, Any], what: str) -> Any:
    if name in there:
        return there[name]
    near = difflib.get_close_matches(name, there, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(there)}"
    raise ValueError(f"metrics: there is no {what} called {name!r}; {hint}")
