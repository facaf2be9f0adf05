"""Spoil scenes the way generators do, so that the judge learns to say `several` and `unreadable`, not to guess."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int8, UInt8

from symskew.ensemble.data import ABSENT, draw_glyph
from symskew.ensemble.judge import ABSENT_CLASS, SEVERAL_CLASS, UNREADABLE_CLASS
from symskew.ensemble.mnist import Digits
from symskew.ensemble.vocabulary import COLOUR_NAMES, COLOURS, IMAGE_SIZE

__all__ = ["SPOILS", "classes_of", "ink_of", "spoil"]

_RGB = np.array([COLOURS[name] for name in COLOUR_NAMES], np.float32)

SPOILS = ("double", "fuse", "cut", "scramble", "recolour", "fleck")
"""What `spoil` can do: a second digit in the same colour; another digit written over one; a good part missing; pieces
out of place; one digit in two colours; and a fleck of ink too small to count, which changes no class."""

_UNHARMED = {"cut": (1,), "scramble": (0, 1, 8)}  # half a one is a one; a zero or eight survives being turned over


def classes_of(labels: Int8[np.ndarray, "count 6"]) -> np.ndarray:
    """The judge's classes of unspoilt scenes."""
    return np.where(labels == ABSENT, ABSENT_CLASS, labels).astype(np.int64)


def ink_of(image: UInt8[np.ndarray, "64 64 3"], colour: int, present: np.ndarray) -> Bool[np.ndarray, "64 64"]:
    """The pixels of a colour: bright ones whose hue is nearer to it than to any other colour that is present."""
    pixels = image.astype(np.float32)
    brightness = pixels.max(2)
    hue = pixels / np.maximum(brightness, 1)[..., None]
    palette = _RGB[present] / _RGB[present].max(1, keepdims=True)
    nearest = np.square(hue[..., None, :] - palette).sum(-1).argmin(-1)
    return (present[nearest] == colour) & (brightness > 40)


def spoil(
    rng: np.random.Generator, image: UInt8[np.ndarray, "64 64 3"], classes: np.ndarray, digits: Digits, how: str
) -> tuple[UInt8[np.ndarray, "64 64 3"], np.ndarray]:
    """The scene spoilt in one of the `SPOILS` at one of its objects, and its classes afterwards."""
    image, classes = image.copy(), classes.copy()
    present = np.flatnonzero(classes < ABSENT_CLASS)
    colour = int(rng.choice(present))
    ink = ink_of(image, colour, present)
    rows, columns = np.nonzero(ink)
    if len(rows) < 20 or classes[colour] in _UNHARMED.get(how, ()):
        return image, classes
    if how == "fleck":
        free = np.flatnonzero(classes == ABSENT_CLASS)
        _stamp(image, rng.random((2, 2)) * 0.6 + 0.2, _RGB[rng.choice(free)], *rng.integers(IMAGE_SIZE - 2, size=2))
        return image, classes
    if how in ("double", "fuse"):
        number = int(rng.integers(len(digits.labels)))
        glyph = draw_glyph(digits.images[number], int(rng.integers(18, 29)))
        centre = (rows.mean(), columns.mean())
        places = [
            (int(rng.integers(IMAGE_SIZE - glyph.shape[0] + 1)), int(rng.integers(IMAGE_SIZE - glyph.shape[1] + 1)))
            for _ in range(12)
        ]
        distances = [
            np.hypot(t + glyph.shape[0] / 2 - centre[0], x + glyph.shape[1] / 2 - centre[1]) for t, x in places
        ]
        if how == "double":
            top, left = places[int(np.argmax(distances))]
        else:
            low, high = 0, IMAGE_SIZE - np.array(glyph.shape)
            jitter = rng.integers(-6, 7, size=2)
            top, left = np.clip(np.array(centre) - np.array(glyph.shape) / 2 + jitter, low, high).astype(int)
        _stamp(image, glyph, _RGB[colour], top, left)
        classes[colour] = SEVERAL_CLASS if how == "double" else UNREADABLE_CLASS
        return image, classes
    half = _half(rng, rows, columns)
    if how == "cut":
        image[rows[half], columns[half]] = 0
    elif how == "recolour":
        free = np.flatnonzero(classes == ABSENT_CLASS)
        other = int(rng.choice(free))
        brightness = image[rows[half], columns[half]].max(1, keepdims=True).astype(np.float32) / 255
        image[rows[half], columns[half]] = np.rint(_RGB[other] * brightness).astype(np.uint8)
        classes[other] = UNREADABLE_CLASS
    else:
        _scramble(rng, image, rows, columns)
    classes[colour] = UNREADABLE_CLASS
    return image, classes


def _half(rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> Bool[np.ndarray, " ink"]:
    """About half of the ink (40 to 60%): what lies on one side of a line in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    return along > np.quantile(along, rng.uniform(0.4, 0.6))


def _scramble(rng: np.random.Generator, image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), bool)
    mask[rows, columns] = True
    own = np.where(mask[..., None], image, 0)[top:bottom, left:right]
    image[rows, columns] = 0
    middle, centre = own.shape[0] // 2, max(1, own.shape[1] // 2)
    halves = [own[:middle], own[middle:]] if own.shape[0] > own.shape[1] else [own[:, :centre], own[:, centre:]]
    turned = [half[:, ::-1] if rng.random() < 0.5 else half[::-1] for half in halves]
    if rng.random() < 0.5:
        turned = turned[::-1]
    mixed = np.concatenate(turned, 0 if own.shape[0] > own.shape[1] else 1)
    window = image[top:bottom, left:right]
    np.maximum(window, mixed[: window.shape[0], : window.shape[1]], out=window)


def _stamp(image: np.ndarray, glyph: np.ndarray, rgb: np.ndarray, top: int, left: int) -> None:
    window = image[top : top + glyph.shape[0], left : left + glyph.shape[1]]
    window[:] = np.rint(window + glyph[..., None] * (rgb - window)).astype(np.uint8)
