"""Real images as features in a file: what sets of generated images are compared with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from symskew.files import replacing
from symskew.metrics.kinds import Features
from symskew.metrics.networks import FeatureNetwork

__all__ = ["FORMATS", "RealImages", "arrays_in", "digest", "look", "pictures_in", "read", "save"]

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""By the ends of names, whatever the case."""
_TOGETHER = 32


@dataclass(frozen=True)
class RealImages:
    """What an extractor found in real images.

    Attributes:
        features: its arrays, a row for each image.
        metadata: `count`, `extractor` and `weights` (SHA-256); of a folder also its name, `resize`, and `images`: the
            SHA-256 of all names and files.
    """

    features: Features
    metadata: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """A hash of the features, which every score against them is told with."""
        return digest(self.features)

    @property
    def told(self) -> str:
        """What numbers depend on, for the caption of a table."""
        resize = self.metadata.get("resize")
        made = f"{self.metadata['extractor']}{f', images resized to {resize}' if resize else ''}"
        return f"{len(next(iter(self.features.values()))):,} real images, by {made}, reference {self.digest}"


def digest(features: Features) -> str:
    """Twelve hexadecimal digits that stand for arrays and their names."""
    found = hashlib.sha256()
    for name in sorted(features):
        found.update(name.encode() + np.ascontiguousarray(features[name]).tobytes())
    return found.hexdigest()[:12]


def pictures_in(folder: Path, limit: int | None = None) -> list[Path]:
    """The images in a folder and the folders in it, in an order that their names decide.

    Args:
        folder: with PNG, JPEG or WebP files; others are left alone.
        limit: as many only: of the names' hashes the smallest, which is as good as a draw, and the same everywhere.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has no image, or fewer than asked for.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"reference: there is no folder {folder}")
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.suffix.lower() in FORMATS}
    if len(names) < max(1, limit or 0):
        raise ValueError(
            f"reference: {folder} has {len(names)} images ({', '.join(FORMATS)}), and {limit or 'some'} were asked for"
        )
    chosen = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:limit]
    return [names[name] for name in sorted(chosen)]


def look(
    folder: Path, eye: FeatureNetwork, *, limit: int | None = None, tell: Callable[[int], None] = lambda _: None
) -> RealImages:
    """Extract the features of a folder of real images.

    Args:
        folder: see `pictures_in`.
        eye: extracts them.
        limit: see `pictures_in`.
        tell: is told how many images were added.

    Raises:
        ValueError: an image that cannot be read, naming it.
    """
    weights, files, parts, names = eye.weights, pictures_in(folder, limit), [], hashlib.sha256()
    for start in range(0, len(files), _TOGETHER):
        images = []
        for path in files[start : start + _TOGETHER]:
            names.update(path.relative_to(folder).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
            images.append(_opened(path))
        parts.append(eye.extract(images))
        tell(len(images))
    features = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    metadata = {
        "count": len(files), "folder": folder.resolve().name, "images": names.hexdigest(), "extractor": eye.id,
        "weights": weights, "resize": eye.resize,
    }  # fmt: skip
    return RealImages(features, metadata)


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=[FORMATS[path.suffix.lower()]]) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"reference: {path} cannot be read as an image: {error}") from error


def save(real: RealImages, path: Path, **more: np.ndarray) -> None:
    """Write features, and further arrays, as one safetensors file, whole or not at all."""
    content = to_bytes({**real.features, **more}, {"symskew": json.dumps(real.metadata)})
    with replacing(path) as partial:
        partial.write_bytes(content)


def read(path: Path) -> RealImages:
    """What `save` wrote of a folder.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: it is not a reference.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"reference: there is no file {path}; make one by: symskew metrics reference FOLDER --features NAME --out "
            "FILE"
        )
    features, metadata = arrays_in(path)
    plain = all(isinstance(metadata.get(name), str) for name in ("extractor", "weights", "resize"))
    if set(features) != {"features"} or features["features"].ndim != 2 or not plain:
        raise ValueError(f"reference: {path} is not a reference made of a folder of images")
    return RealImages(features, metadata)


def arrays_in(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a file, and what is said about them; ValueError if it is not a reference."""
    try:
        with safe_open(path, "np") as opened:
            metadata = json.loads((opened.metadata() or {})["symskew"])
            names = opened.keys()
            arrays = {name: opened.get_tensor(name) for name in names}
        for name in ("count", "extractor", "weights"):
            metadata[name]
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"reference: {path} is not a reference ({error})") from error
    return arrays, metadata
