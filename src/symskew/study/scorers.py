"""What a study is judged by: its metrics, whether they can score its prompts, and the weights they are made with."""

from __future__ import annotations

import json
from collections.abc import Mapping

from symskew import metrics
from symskew.files import read_json
from symskew.metrics import Site, Source
from symskew.metrics.weights import lacking
from symskew.study.definition import Study
from symskew.study.store import Store


def metric_names(study: Study) -> list[str]:
    """The names of a study's metrics: its own, or all that fit its model."""
    return metrics.defaults(study.model) if study.metrics is None else list(study.metrics)


def check_prompts(study: Study) -> None:
    """That every metric can score the images of every prompt; prompts that are not on this machine are passed over.

    Raises:
        ValueError: one cannot; names the metrics of the study that can.
    """
    found = metrics.find(metric_names(study))
    for name, text in {(run.prompts, text): None for run in study.runs
                       for text in study.prompts[run.prompts].texts[: run.limit]}:  # fmt: skip
        if study.prompts[name].lacking:
            continue
        reasons, able = [], []
        for metric in found:
            try:
                metric.check(text)
                if metric.kind != "set":  # what real images to compare with is for a table to say
                    able.append(metric.quantities[0].id)
            except ValueError as error:
                reasons.append(str(error))
        if reasons:
            others = f" (of this study's, those take any prompt: {', '.join(able)})" if able else ""
            raise ValueError(f"prompts: {name}: {reasons[0]}; change the prompt, or name other metrics{others}")


def published(study: Study) -> list[Source]:
    """The published weights that the study's metrics need."""
    found = metrics.find(metric_names(study))
    return list(dict.fromkeys(source for metric in found for source in metrics.sources(metric)))


def missing_weights(study: Study) -> list[str]:
    """A sentence for each of the published weights that the study's metrics need and that a run would not find.

    Raises:
        ValueError: an unknown metric, or a place for weights that there are not.
    """
    known = metrics.every_source()
    for name in study.weights:
        if name not in known:
            raise ValueError(f"weights: there is no {name!r}; there are {', '.join(known)}")
    site = Site.of(study.weights)
    return [why for source in published(study) if (why := lacking(source, site))]


def keep_digests(store: Store, digests: Mapping[str, str]) -> None:
    """Write down which weights a study is scored with, so that it is scored with no others.

    Raises:
        ValueError: it was scored with others.
    """
    _check_digests(store, digests)
    for name, digest in digests.items():
        store.claim_text(json.dumps({"sha256": digest}) + "\n", "weights", f"{name}.json")
    _check_digests(store, digests)  # of two runs that begin together, one is first


def _check_digests(store: Store, digests: Mapping[str, str]) -> None:
    there = digests_in(store)
    for name, digest in digests.items():
        if there.get(name, digest) != digest:
            raise ValueError(
                f"{name}: these weights (SHA-256 {digest[:12]}…) are not those that {store.folder} was scored with "
                f"({there[name][:12]}…); use the same, or a new folder"
            )


def digests_in(store: Store) -> dict[str, str]:
    """The SHA-256 of the published weights that a study was scored with, by name."""
    return {path.stem: str(read_json(path)["sha256"]) for path in (store.folder / "weights").glob("[!.]*.json")}
