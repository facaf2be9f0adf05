"""Metrics of images, of their diversity, and of sets of them, from features that are extracted once.

>>> from symskew import metrics
>>> [metric.kind for metric in metrics.find(["ensemble/all-right", "ensemble/vendi"])]
['sample', 'pair']
>>> eye = metrics.extractor("ensemble-judge/fp32@1")
>>> features = eye.extract(images)  # doctest: +SKIP
>>> metrics.find(["ensemble/log-likelihood"])[0].score(features, prompts)  # doctest: +SKIP
"""

from symskew.metrics.kinds import (
    Comparison,
    Extractor,
    Features,
    Metric,
    Pair,
    PairMetric,
    Quantity,
    SampleMetric,
    SetMetric,
)
from symskew.metrics.registry import defaults, describe, digests, every_source, extractor, find, sources
from symskew.metrics.weights import Site, Source

__all__ = [
    "Comparison",
    "Extractor",
    "Features",
    "Metric",
    "Pair",
    "PairMetric",
    "Quantity",
    "SampleMetric",
    "SetMetric",
    "Site",
    "Source",
    "defaults",
    "describe",
    "digests",
    "every_source",
    "extractor",
    "find",
    "sources",
]
