"""What a study needs and this machine has not: captions, weights, packages, room on the disk."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from symskew import metrics
from symskew.files import read_json
from symskew.models import ModelFiles, find_model
from symskew.study.definition import Study
from symskew.study.scorers import check_prompts, metric_names, missing_weights
from symskew.study.skeleton import PUBLISHED

GIGA = 1e9


def find_quietly(name: str) -> tuple[ModelFiles | None, str]:
    """A model's files as far as they are on this disk, and why they cannot be loaded; nothing is downloaded.

    Raises:
        ValueError: there can be no such model, here or elsewhere.
    """
    published = PUBLISHED.get(name)
    try:
        files = find_model(name, download=False)
    except ValueError as error:
        if published is None and "/" not in name:
            raise
        return None, _remedy(name, str(error))
    absent = _absent(files.folder)
    return files, _remedy(name, f"{name} has no weights for {', '.join(absent)} on this disk") if absent else ""


def missing(study: Study, model: str, where: Path, size: float) -> list[str]:
    """What is missing, a sentence each; empty where the study can be run.

    Args:
        study: planned; prompts may be standing in.
        model: why the model cannot be loaded, from `find_quietly`.
        where: the study's folder, which need not be there.
        size: of its results, in bytes.

    Raises:
        ValueError: a metric that there is not, or that cannot score a prompt.
    """
    check_prompts(study)
    found = list(dict.fromkeys(some.lacking for some in study.prompts.values() if some.lacking))
    found += [model] if model else []
    found += missing_weights(study)
    sources = any(metrics.sources(metric) for metric in metrics.find(metric_names(study)))
    for extra in ["study", *(["metrics"] if sources else [])]:
        if absent := [name for name in _packages(extra) if not _is_installed(name)]:
            found.append(f'the packages {", ".join(absent)} are not installed: pip install "symskew[{extra}]"')
    there = next(each for each in (where.absolute(), *where.absolute().parents) if each.exists())
    if (free := shutil.disk_usage(there).free) < size:
        found.append(
            f"{where} has {free / GIGA:.1f} GB of room, and the study needs about {size / GIGA:.1f} GB; put it on a "
            "larger disk with --out"
        )
    return found


def _remedy(name: str, why: str) -> str:
    published = PUBLISHED.get(name)
    if published is None:
        return f"{why}; get it by: hf download {name}, or run without --offline" if "/" in name else why
    accept = " after accepting its licence on that page" if published.gated else ""
    return (
        f"{name} is not on this disk; a run downloads it from https://huggingface.co/{name}{accept} "
        f"({published.size / GIGA:.0f} GB, {published.licence}), or: hf download {name}"
    )


def _absent(folder: Path) -> list[str]:
    """The parts of a pipeline that are to be loaded and have no weights: a download that was not finished."""
    index = read_json(folder / "model_index.json")
    parts = [name for name, of in index.items() if isinstance(of, list) and len(of) == 2 and of[0] is not None]
    return [
        name
        for name in parts
        if (folder / name / "config.json").is_file() and not list((folder / name).glob("*.safetensors"))
    ]


def _packages(extra: str) -> Iterator[str]:
    for requirement in importlib.metadata.requires("symskew") or []:
        match = re.match(rf"([\w.-]+).*extra\s*==\s*['\"]{extra}['\"]", requirement)
        if match:
            yield match[1]


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
