"""Weights of published models: named by a hub id or a path, checked, never a program, and never fetched unasked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from symskew.metrics.kinds import sha256
from symskew.models import first_line
from symskew.offline import is_offline

__all__ = ["FOLDER", "Site", "Source", "fetch", "is_there", "lacking", "load_strictly", "locate", "published", "read"]

FOLDER = "SYMSKEW_WEIGHTS"
"""The environment variable that names a folder of weights: those called `hps` are in `$SYMSKEW_WEIGHTS/hps`."""
_HUB_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Site:
    """Where metrics are computed, and where the weights are that they need; plain values, so that it can be sent.

    Attributes:
        device: as torch names it.
        weights: (name, place) of sources: a file, a folder, or a hub id (`owner/name` or `owner/name@revision`), which
            is then downloaded. What is not named is looked for in `$SYMSKEW_WEIGHTS`, in the hub's cache and in that of
            torch, and is not downloaded. Offline, nothing is.
    """

    device: str = "cpu"
    weights: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, weights: Mapping[str, str | Path], *, device: str = "cpu") -> Site:
        """A site whose weights are given as a mapping."""
        return cls(device, tuple(sorted((name, str(place)) for name, place in weights.items())))


@dataclass(frozen=True)
class Source:
    """Weights that somebody has published.

    Attributes:
        name: as a study names them (`weights: {hps: PLACE}`).
        files: the file of weights, under any of these names.
        size: of it in bytes, about.
        licence: as its authors state it.
        repo: on the Hugging Face hub; empty where it is elsewhere.
        url: of the file, where it is not on the hub.
        beside: further files that are needed in the same folder.
        optional: files that are used where they are there.
        digests: what the SHA-256 of a file begins with, or is; only where that is known for certain.
    """

    name: str
    files: tuple[str, ...]
    size: int
    licence: str
    repo: str = ""
    url: str = ""
    beside: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def page(self) -> str:
        """Where it is published."""
        return self.url or f"https://huggingface.co/{self.repo}"

    @property
    def remedy(self) -> str:
        """What to do to have it, in a clause."""
        size = f"{self.size / 1e9:.1f} GB" if self.size > 1e8 else f"{self.size / 1e6:.1f} MB"
        get = (
            f"hf download {self.repo} {' '.join([self.files[0], *self.beside])}"
            if self.repo
            else f"curl -L --create-dirs -o {_torch_cache() / self.files[0]} {self.url}"
        )
        return (
            f"get it by: {get} ({size}, licence {self.licence}); or put {' and '.join([self.files[0], *self.beside])} "
            f"into a folder {self.name} of the folder that ${FOLDER} names; or name a file, a folder or a hub id under "
            f"weights: {{{self.name}: PLACE}}"
        )


def locate(source: Source, site: Site) -> Path:
    """The file of weights; what is needed beside it is in the same folder.

    A place that the site names is taken as it is. Found elsewhere, a file must be the published one where its SHA-256
    is known: by `Source.digests`, or by the hub's cache, which names large files after it.

    Raises:
        FileNotFoundError: it is not there, or not whole; says how to get it.
        ValueError: it is there and is another file than the published one.
    """
    path, given = _find(source, site, only_local=is_offline())
    return path if given else published(source, path)


def is_there(source: Source, site: Site) -> bool:
    """Whether the weights are on this machine, whole or not; nothing is downloaded, and no large file is read."""
    try:
        _find(source, site, only_local=True)
    except FileNotFoundError:
        return False
    return True


def lacking(source: Source, site: Site) -> str:
    """Why a run would not find the weights; empty where it would, or would download them, as it was asked to."""
    given = dict(site.weights).get(source.name, "")
    if _HUB_ID.fullmatch(given) and not is_offline():
        return ""
    try:
        _find(source, site, only_local=True)
    except FileNotFoundError as error:
        return str(error)
    return ""


def fetch(source: Source, site: Site) -> None:
    """Download the weights now, if the site names a hub id for them and they are not on this machine yet.

    Raises:
        FileNotFoundError: they are not to be had; says how to get them.
    """
    _find(source, site, only_local=is_offline())


def _find(source: Source, site: Site, *, only_local: bool) -> tuple[Path, bool]:
    """The file, and whether it was named as a path."""
    given = dict(site.weights).get(source.name)
    if given is not None:
        path = Path(given).expanduser()
        if path.exists():
            return _checked(source, path), True
        if _HUB_ID.fullmatch(given):
            return _from_hub(source, given, only_local=only_local), False
        raise FileNotFoundError(f"{source.name}: {path} is not there; {source.remedy}")
    for place in _places(source):
        if place.exists():
            return _checked(source, place), False
    raise FileNotFoundError(f"{source.name}: the weights are not on this machine; {source.remedy}")


def _places(source: Source) -> Iterator[Path]:
    if folder := os.environ.get(FOLDER):
        yield Path(folder).expanduser() / source.name
    if source.repo:
        from huggingface_hub import try_to_load_from_cache

        for name in source.files:
            if isinstance(found := try_to_load_from_cache(source.repo, name), str):
                yield Path(found)
    else:
        yield from (_torch_cache() / name for name in source.files)


def _torch_cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _from_hub(source: Source, given: str, *, only_local: bool) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    match = _HUB_ID.fullmatch(given)
    assert match
    repo, revision = match.groups()

    def get(name: str) -> Path:
        return Path(hf_hub_download(repo, name, revision=revision, local_files_only=only_local))

    try:
        for name in source.optional:
            try:
                get(name)
            except EntryNotFoundError:  # also what an offline cache says of a file that it does not have
                continue
        for name in source.beside:
            get(name)
        for name in source.files:
            try:
                return get(name)
            except EntryNotFoundError:
                if name == source.files[-1]:
                    raise
    except Exception as error:  # network, permission, no such repository: each has a class of its own
        where = "is not in the hub's cache" if only_local else "could not be had from the hub"
        raise FileNotFoundError(f"{source.name}: {given} {where}: {first_line(error)}; {source.remedy}") from error
    raise AssertionError(source)


def _checked(source: Source, place: Path) -> Path:
    """The file at a place that is there; with all that is needed beside it."""
    found = [place] if place.is_file() else [place / name for name in source.files if (place / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{source.name}: {place} has no {' or '.join(source.files)}; {source.remedy}")
    if missing := [name for name in source.beside if not found[0].with_name(name).is_file()]:
        raise FileNotFoundError(
            f"{source.name}: {found[0]} is there, and {' and '.join(missing)} not beside it; {source.remedy}"
        )
    return found[0]


def published(source: Source, path: Path) -> Path:
    """The file itself, if it is the published one or that is not known.

    Raises:
        ValueError: it is another.
    """
    blob = path.resolve().name  # of the hub's cache
    name = path.name if path.name in source.files else source.files[0]  # a place may have been named that is a file
    known = source.digests.get(name) or (blob if _DIGEST.fullmatch(blob) else "")
    if known and not (came := sha256(path)).startswith(known):
        raise ValueError(
            f"{source.name}: {path} is not the published file: its SHA-256 is {came[: len(known)]}, not {known} "
            f"({path.stat().st_size:,} bytes, published are about {source.size:,}); delete it, then {source.remedy}"
        )
    return path


def read(path: Path, source: Source) -> dict[str, Any]:
    """What a file of weights holds, on the CPU: safetensors, or what `torch.load` reads without running anything.

    Raises:
        ValueError: the file is cut off, is none of weights, or would have to run code to be loaded.
    """
    with path.open("rb") as file:
        start = file.read(64)
    problem = ""
    if start.startswith(b"version https://git-lfs"):
        problem = "is the pointer that stands for the weights in a git repository, not the weights"
    elif start.lstrip()[:1] == b"<":
        problem = "is a web page, not weights"
    else:
        try:
            return _read(path)
        except Exception as error:  # what a broken file makes its readers raise is of many classes
            unsafe = "weights_only" in str(error).lower()
            problem = (
                "holds more than tensors, and loading that could run code; it is refused"
                if unsafe
                else f"cannot be read as weights ({first_line(error)}): it is cut off or another kind of file"
            )
    raise ValueError(
        f"{source.name}: {path} ({path.stat().st_size:,} bytes, published are about {source.size:,}) {problem}; "
        f"{source.remedy}"
    )


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, Mapping):
        raise ValueError(f"it holds a {type(found).__name__}")
    return dict(found)


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: Source, path: Path) -> None:
    """Fill a module with a state that has just its tensors, in its shapes.

    Raises:
        ValueError: it has not; names the first that differs.
    """
    wanted = module.state_dict()
    problems = [f"there is no {name}" for name in wanted if name not in state]
    problems += [f"{name} is unknown" for name in state if name not in wanted]
    for name in wanted.keys() & state.keys():
        if not isinstance(state[name], Tensor):
            problems.append(f"{name} is no tensor")
        elif state[name].shape != wanted[name].shape:
            problems.append(f"{name} is {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}")
    if problems:
        raise ValueError(
            f"{source.name}: {path} holds other weights than {type(module).__name__} needs: {problems[0]} (and "
            f"{len(problems) - 1} more such); {source.remedy}"
        )
    module.load_state_dict(state, assign=True)
