"""The data maker: images of one to four coloured handwritten digits, placed freely, and what they show."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int8, UInt8
from PIL import Image

from symskew.ensemble.mnist import Digits
from symskew.ensemble.prompts import PHRASINGS, caption, draw_objects
from symskew.ensemble.vocabulary import COLOUR_NAMES, COLOURS, IMAGE_SIZE, MAX_OBJECTS, ColouredDigit

__all__ = [
    "ABSENT",
    "HEIGHTS",
    "Scenes",
    "draw_caption",
    "draw_glyph",
    "draw_scene",
    "label",
    "make_scenes",
    "objects_of",
]

ABSENT = -1
"""A colour that the image does not have, in a label array."""

HEIGHTS = (20, 28)
"""The least and greatest height of a digit in pixels (the longer side, for the few that are wider than high)."""

CHUNK = 500
"""Images per unit of work; part of the seeding, so changing it changes every data set."""

_RGB = np.array([COLOURS[name] for name in COLOUR_NAMES], np.float32)
_TOLERATED_OVERLAP = 0.02  # of the ink of a digit that is being placed


class Scenes(NamedTuple):
    """A stack of images and what they show."""

    images: UInt8[np.ndarray, "count 64 64 3"]
    labels: Int8[np.ndarray, "count 6"]  # per colour: ABSENT or the digit


def label(objects: frozenset[ColouredDigit] | tuple[ColouredDigit, ...]) -> Int8[np.ndarray, " 6"]:
    """The objects as one row of a label array."""
    row = np.full(len(COLOUR_NAMES), ABSENT, np.int8)
    for item in objects:
        row[COLOUR_NAMES.index(item.colour)] = item.digit
    return row


def objects_of(row: Int[np.ndarray, " 6"]) -> tuple[ColouredDigit, ...]:
    """The objects of one row of a label array, in the order of the colours."""
    return tuple(ColouredDigit(COLOUR_NAMES[c], int(d)) for c, d in enumerate(row) if d != ABSENT)


def draw_caption(rng: np.random.Generator, row: Int[np.ndarray, " 6"]) -> str:
    """A caption of one row of a label array, in random order and phrasing."""
    objects = objects_of(row)
    order = rng.permutation(len(objects))
    return caption([objects[i] for i in order], PHRASINGS[rng.integers(len(PHRASINGS))])


def draw_scene(
    rng: np.random.Generator, objects: tuple[ColouredDigit, ...], digits: Digits, index: list[np.ndarray]
) -> UInt8[np.ndarray, "64 64 3"]:
    """One image of the given objects: random handwriting from `digits`, sizes and places.

    `index` lists, for each digit, where it is in `digits` (`digit_index`). Objects may touch, but not cover each other.
    """
    glyphs = [
        draw_glyph(digits.images[rng.choice(index[item.digit])], int(rng.integers(HEIGHTS[0], HEIGHTS[1] + 1)))
        for item in objects
    ]
    places = _place(rng, glyphs)
    canvas = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
    for item, glyph, (top, left) in zip(objects, glyphs, places, strict=True):
        window = canvas[top : top + glyph.shape[0], left : left + glyph.shape[1]]
        window += glyph[..., None] * (_RGB[COLOUR_NAMES.index(item.colour)] - window)
    return np.rint(canvas).astype(np.uint8)


def digit_index(digits: Digits) -> list[np.ndarray]:
    """For each of the ten digits, its positions in `digits`."""
    return [np.flatnonzero(digits.labels == digit) for digit in range(10)]


def make_scenes(
    count: int, digits: Digits, *, seed: int = 0, held_out: bool | None = False, workers: int = 1
) -> Scenes:
    """`count` images with one to four objects each; the same for the same seed, whatever the number of workers.

    `held_out=False` (training) leaves out every combination with a held-out pair; see `prompts.held_out_pairs`.
    """
    parts = list(iterate_scenes(count, digits, seed=seed, held_out=held_out, workers=workers))
    if not parts:
        return Scenes(np.zeros((0, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8), np.zeros((0, len(COLOUR_NAMES)), np.int8))
    return Scenes(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))


def iterate_scenes(
    count: int, digits: Digits, *, seed: int = 0, held_out: bool | None = False, workers: int = 1
) -> Iterator[Scenes]:
    """The images of `make_scenes` in chunks of 500, so that a large set is never in memory at once."""
    sizes = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
    jobs = [(size, seed, chunk, held_out) for chunk, size in enumerate(sizes)]
    if workers <= 1:
        index = digit_index(digits)
        for job in jobs:
            yield _chunk(job, digits, index)
        return
    # Spawned, because forking a process in which torch has already started its threads may hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start, initargs=(digits,)) as pool:
        yield from pool.map(_work, jobs)


_shared: dict[str, object] = {}


def _start(digits: Digits) -> None:
    _shared.update(digits=digits, index=digit_index(digits))


def _work(job: tuple[int, int, int, bool | None]) -> Scenes:
    return _chunk(job, _shared["digits"], _shared["index"])  # pyright: ignore[reportArgumentType]


def _chunk(job: tuple[int, int, int, bool | None], digits: Digits, index: list[np.ndarray]) -> Scenes:
    size, seed, chunk, held_out = job
    rng = np.random.default_rng((seed, chunk))
    images = np.empty((size, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    labels = np.empty((size, len(COLOUR_NAMES)), np.int8)
    for row in range(size):
        objects = draw_objects(rng, int(rng.integers(1, MAX_OBJECTS + 1)), held_out=held_out)
        images[row], labels[row] = draw_scene(rng, objects, digits, index), label(objects)
    return Scenes(images, labels)


def draw_glyph(image: UInt8[np.ndarray, "28 28"], height: int) -> Float[np.ndarray, "height width"]:
    """The digit cut to its ink and enlarged to `height` (its longer side), as coverage 0 to 1."""
    rows, columns = np.flatnonzero(image.max(1) > 32), np.flatnonzero(image.max(0) > 32)
    cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = height / max(cut.shape)
    size = (max(3, round(cut.shape[1] * scale)), max(3, round(cut.shape[0] * scale)))
    resized = Image.fromarray(cut).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized, np.float32) / 255


def _place(rng: np.random.Generator, glyphs: list[np.ndarray]) -> list[tuple[int, int]]:
    """Top left corners at which the glyphs hardly overlap: drawn freely, large ones first, best of 10 layouts."""
    best: tuple[float, list[tuple[int, int]]] = (np.inf, [])
    for _ in range(10):
        ink = np.zeros((IMAGE_SIZE, IMAGE_SIZE), bool)
        places, worst = {}, 0.0
        for i in sorted(range(len(glyphs)), key=lambda i: -glyphs[i].size):
            mask = glyphs[i] > 0.2
            height, width = mask.shape
            chosen = (np.inf, 0, 0)
            for _ in range(20):
                top, left = int(rng.integers(IMAGE_SIZE - height + 1)), int(rng.integers(IMAGE_SIZE - width + 1))
                overlap = np.count_nonzero(ink[top : top + height, left : left + width] & mask) / mask.sum()
                chosen = min(chosen, (overlap, top, left))
                if overlap <= _TOLERATED_OVERLAP:
                    break
            overlap, top, left = chosen
            places[i], worst = (top, left), max(worst, overlap)
            ink[top : top + height, left : left + width] |= mask
        layout = [places[i] for i in range(len(glyphs))]
        if worst <= _TOLERATED_OVERLAP:
            return layout
        best = min(best, (worst, layout))
    return best[1]
