"""The real images that the sets of a study are compared with: files of features in its folder, one for an extractor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from symskew import metrics
from symskew.study.scorers import digests_in, metric_names
from symskew.study.scoring import slug

if TYPE_CHECKING:
    from symskew.metrics.real import RealImages
    from symskew.study.frames import Results

FOLDER = "references"


def keep_reference(results: Results, file: Path) -> RealImages:
    """Copy a file that `symskew metrics reference` made into the folder of a study.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none; no metric of the study is of its features; it was made with other weights than the study
            is scored with; or the study is compared with other real images already.
    """
    from symskew.metrics.real import read, save

    real = read(file)
    extractor = str(real.metadata["extractor"])
    used = {metric.extractor for metric in metrics.find(metric_names(results.study)) if metric.kind == "set"}
    if extractor not in used:
        raise ValueError(
            f"{file} holds features of {extractor}, which no metric of sets of this study is computed from; these are "
            f"of {', '.join(sorted(filter(None, used))) or 'none: add some under metrics'}"
        )
    _check(results, real)
    there = references_in(results).get(extractor)
    if there and there.digest != real.digest:
        raise ValueError(
            f"{results.store.folder} is compared with other real images already (reference {there.digest}, and this is "
            f"{real.digest}); delete {_path(results, extractor)} first, and no number will be the same"
        )
    path = _path(results, extractor)
    path.parent.mkdir(exist_ok=True)
    save(real, path)
    return real


def references_in(results: Results) -> dict[str, RealImages]:
    """By extractor.

    Raises:
        ValueError: a file is damaged, or was made with other weights than the study is scored with.
    """
    from symskew.metrics.real import read

    files = sorted((results.store.folder / FOLDER).glob("[!.]*.safetensors"))
    found = {real.metadata["extractor"]: real for real in map(read, files)}
    for real in found.values():
        _check(results, real)
    return found


def _path(results: Results, extractor: str) -> Path:
    return results.store.folder / FOLDER / f"{slug(extractor)}.safetensors"


def _check(results: Results, real: RealImages) -> None:
    """Refuse features that were made with other weights than those of the study's images."""
    known = digests_in(results.store)
    for source in metrics.extractor(real.metadata["extractor"]).sources:
        if known.get(source.name, real.metadata["weights"]) != real.metadata["weights"]:
            raise ValueError(
                f"the reference {real.digest} was made with other weights of {source.name} (SHA-256 "
                f"{real.metadata['weights'][:12]}…) than the images of {results.store.folder} were looked at with "
                f"({known[source.name][:12]}…), so that distances would mean nothing; make it anew with the same"
            )
