"""The things Ensemble's images are made of: six colours, ten digits, and the object that joins one of each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["COLOURS", "COLOUR_NAMES", "DIGIT_WORDS", "IMAGE_SIZE", "MAX_OBJECTS", "ColouredDigit"]

IMAGE_SIZE = 64
"""Height and width of an image in pixels."""

MAX_OBJECTS = 4
"""The most objects one image holds."""

# Sixty degrees of hue apart, so that an anti-aliased (darker) stroke still names its colour. Slightly softened corners
# of the RGB cube: a fully saturated blue is hard to see on black.
COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (255, 50, 50),
        "yellow": (255, 225, 40),
        "green": (40, 215, 60),
        "cyan": (50, 225, 235),
        "blue": (70, 95, 255),
        "magenta": (245, 70, 230),
    }
)
"""Colour name to 8-bit RGB."""

COLOUR_NAMES: tuple[str, ...] = tuple(COLOURS)
"""The colours in the order of every label array's columns."""

DIGIT_WORDS: tuple[str, ...] = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Digit to word."""


class ColouredDigit(NamedTuple):
    """One object of an image: a digit in a colour; prints as the caption says it (`red three`)."""

    colour: str
    digit: int

    def __str__(self) -> str:
        return f"{self.colour} {DIGIT_WORDS[self.digit]}"
