"""The image files of the folder: each image as it is, a small one where it is large, and maps to lay over it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from symskew.report.script import entry, packed

TINY = 256
"""Pixels of the longer side: images up to this are enlarged by whole pixels; smoothing would show what is not there."""
SMALL, THUMB = 384, 320
"""Pixels of the longer side: an image up to the first is its own thumbnail, others get one of the second."""
TOGETHER = 64
"""Maps of so many samples are one file: maps are small, and thousands of files are not."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Picture(NamedTuple):
    """What the folder has of a sample."""

    width: int
    height: int
    thumb: bool
    mapped: bool

    @property
    def tiny(self) -> bool:
        """Whether it is enlarged by whole pixels."""
        return max(self.width, self.height) <= TINY


def check_names(ids: Iterable[str]) -> None:
    """Refuse ids that could not be the names of files: ValueError."""
    for name in ids:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"write_report: sample_id names files, and must be of letters, digits, _ and -, got {name!r}"
            )


def write_pictures(
    folder: Path,
    ids: Iterable[str],
    images: Callable[[str], bytes],
    maps: Callable[[str], Mapping[str, Any]] | None,
) -> tuple[list[Picture], list[str]]:
    """Write the files of each sample; what was written, and the stages that there are maps of.

    Raises:
        ValueError: naming the sample whose image is no PNG, or whose map is not (height, width) of shares.
    """
    names, written, stages = list(ids), [], {}
    for first in range(0, len(names), TOGETHER):
        pack: dict[str, Any] = {}
        for name in names[first : first + TOGETHER]:
            width, height, thumb = _write_image(folder, name, images(name))
            if found := {str(stage): _plain(name, map) for stage, map in (maps(name) if maps else {}).items()}:
                pack[name] = found
            stages |= dict.fromkeys(found)
            written.append(Picture(width, height, thumb, bool(found)))
        if pack:
            number = first // TOGETHER
            _path(folder, "maps", f"{number}.js").write_text(entry("maps", number, pack), encoding="utf-8")
    return written, list(stages)


def _write_image(folder: Path, name: str, data: bytes) -> tuple[int, int, bool]:
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
    except UnidentifiedImageError as error:
        raise ValueError(f"write_report: the image of {name} must be PNG, got {data[:8]!r}…") from error
    with image:
        size = image.size
        _path(folder, "images", f"{name}.png").write_bytes(data)
        if thumb := max(size) > SMALL:
            small = image.convert("RGB")
            small.thumbnail((THUMB, THUMB), reducing_gap=2)
            small.save(_path(folder, "thumbs", f"{name}.jpg"), quality=85)
    return *size, thumb


def _path(folder: Path, *parts: str) -> Path:
    path = folder.joinpath(*parts)
    path.parent.mkdir(exist_ok=True)
    return path


def _plain(name: str, map: Any) -> dict[str, Any]:
    values = np.asarray(map, dtype=float)
    if values.ndim != 2 or not values.size or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            f"write_report: a map of {name} must be (height, width), of shares from 0 to 1, got shape {values.shape}"
            + (f" with values from {values.min():g} to {values.max():g}" if values.size else "")
        )
    # As many levels as the colours that they are shown in have.
    return {"height": values.shape[0], "width": values.shape[1], "values": packed((255 * values).round(), "u1")}
