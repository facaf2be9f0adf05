"""MNIST's handwritten digits: found on this machine, or fetched once into the user's cache."""

from __future__ import annotations

import gzip
import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

__all__ = ["Digits", "cache_folder", "load_mnist", "read_idx"]

_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
# Of the unpacked bytes: mirrors compress them differently.
_SHA256 = {
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"


class Digits(NamedTuple):
    """Handwritten digits: grey images (255 is ink) and what they show."""

    images: UInt8[np.ndarray, "count 28 28"]
    labels: UInt8[np.ndarray, " count"]


def cache_folder() -> Path:
    """The user's cache for Ensemble (`$XDG_CACHE_HOME/symskew/ensemble`, by default under `~/.cache`); not created."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "symskew" / "ensemble"


def read_idx(path: Path) -> UInt8[np.ndarray, ...]:
    """The array of bytes in one gzipped IDX file; `ValueError` where the file is not one."""
    data = gzip.decompress(path.read_bytes())
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError(f"read_idx: expected an IDX file of unsigned bytes, {path} starts with {data[:4]!r}")
    shape = [int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def load_mnist(split: str = "train", folder: str | Path | None = None) -> Digits:
    """MNIST's `train` (60,000) or `test` (10,000) digits.

    Looked for in `folder`, or else in `$SYMSKEW_MNIST` and the user's cache; fetched into the cache (10 MB, checksums
    verified) where none of these has them. Only making new images and training need this: the shipped models do not.

    Raises:
        ValueError: `split` is neither.
        FileNotFoundError: the files are in no folder and cannot be fetched; names the ways out.
    """
    if split not in _FILES:
        raise ValueError(f"load_mnist: split must be 'train' or 'test', got {split!r}")
    names = _FILES[split]
    given = folder or os.environ.get("SYMSKEW_MNIST")
    places = [Path(given)] if given else []
    if folder is None:
        places.append(cache_folder() / "mnist")
    for place in places:
        if all((place / name).is_file() for name in names):
            return Digits(*(read_idx(place / name) for name in names))
    if folder is None:
        try:
            return Digits(*(read_idx(_fetch(name)) for name in names))
        except (OSError, urllib.error.URLError) as error:
            reason = f"and could not be fetched ({error})"
    else:
        reason = "of the given folder"
    raise FileNotFoundError(
        f"load_mnist: {names[0]} and {names[1]} are not in {', '.join(map(str, places))} {reason}; "
        "put MNIST's four .gz files into a folder and name it by --mnist or the variable SYMSKEW_MNIST"
    )


def _fetch(name: str) -> Path:
    target = cache_folder() / "mnist" / name
    if target.is_file():
        return target
    with urllib.request.urlopen(_MIRROR + name, timeout=30) as answer:
        data = answer.read()
    if hashlib.sha256(gzip.decompress(data)).hexdigest() != _SHA256[name]:
        raise OSError(f"{name} arrived damaged: its checksum differs from MNIST's")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(target)
    return target
