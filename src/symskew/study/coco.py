"""Captions of COCO as prompts: one of each image, chosen by hashes, so that the n-th never changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

REMEDY = (
    "it is captions_val2014.json, of annotations_trainval2014.zip from cocodataset.org; point to it with --captions "
    "FILE or SYMSKEW_CAPTIONS"
)


class NoCaptionsError(ValueError):
    """The file of captions is not there."""


def choose_captions(path: Path, count: int, *, skip: int = 0, seed: int = 0) -> tuple[list[str], str]:
    """Captions of different images, and the SHA-256 of the file they are from.

    Images are put in order by a hash of the seed and their id, and so are the captions of an image, of which the first
    is taken; a caption that came before is passed over. So the choice depends on nothing but the file and the seed, two
    ranges of it have no caption in common, and the first thousand of ten thousand are those of a thousand.

    Args:
        path: of COCO's annotations of captions, `{"annotations": [{"image_id": …, "id": …, "caption": …}, …]}`.
        count: how many.
        skip: how many to leave out before, for another set of prompts.
        seed: of the order.

    Raises:
        NoCaptionsError: the file cannot be read; says where it is from.
        ValueError: it is no file of captions, or has too few.
    """
    for name, value, least in (("count", count, 1), ("skip", skip, 0), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NoCaptionsError(f"COCO's captions {path} cannot be read: {error.strerror or error}; {REMEDY}") from error
    different = dict.fromkeys(_captions(path, data, seed))
    texts = list(islice(different, skip, skip + count))
    if len(texts) < count:
        raise ValueError(
            f"{path} has {len(different)} images with different captions, and {skip + count} were asked for"
        )
    return texts, hashlib.sha256(data).hexdigest()


def _captions(path: Path, data: bytes, seed: int) -> Iterator[str]:
    """A caption of each image, in the order of their hashes."""
    best: dict[int, tuple[bytes, str]] = {}
    for row in _annotations(path, data):
        image, key, caption = (
            row.get(name) if isinstance(row, dict) else None for name in ("image_id", "id", "caption")
        )
        if not (isinstance(image, int) and isinstance(key, int) and isinstance(caption, str)):
            raise ValueError(
                f"{path} is no file of COCO's captions: an annotation has no image_id, id and caption, but "
                f"{_short(row)}; files of instances and keypoints have none"
            )
        if text := " ".join(caption.split()):
            candidate = _hash(seed, image, key), text
            best[image] = min(best.get(image, candidate), candidate)
    for image in sorted(best, key=lambda each: _hash(seed, each)):
        yield best[image][1]


def _annotations(path: Path, data: bytes) -> list[Any]:
    try:
        found = json.loads(data)["annotations"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no file of COCO's captions: it is no JSON with annotations") from error
    if not isinstance(found, list):
        raise ValueError(f"{path} is no file of COCO's captions: its annotations are no list")
    return found


def _hash(seed: int, *parts: object) -> bytes:
    return hashlib.sha256(":".join(map(str, (seed, *parts))).encode()).digest()


def _short(row: object) -> str:
    text = repr(sorted(row) if isinstance(row, dict) else row)
    return text if len(text) < 100 else f"{text[:100]}…"
