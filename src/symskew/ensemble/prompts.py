"""Captions: from objects to words and back, and the prompts a model is tested on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

from symskew.ensemble.vocabulary import COLOUR_NAMES, DIGIT_WORDS, MAX_OBJECTS, ColouredDigit

__all__ = [
    "PHRASINGS",
    "Prompt",
    "caption",
    "draw_objects",
    "has_held_out_pair",
    "held_out_pairs",
    "make_prompts",
    "parse_caption",
]

PHRASINGS: tuple[str, ...] = ("list", "bare", "picture", "chain")
"""How a caption may be put: `a red three, a blue seven and a green one`; `red three, blue seven, green one`;
`a picture of a red three, …`; `a red three and a blue seven and a green one`."""

_HELD_OUT_PER_COLOUR_PAIR = 5  # of the 10 × 10 digit pairs: five per cent


class Prompt(NamedTuple):
    """A prompt and the set of objects it asks for; `held_out` says that a pair of them never met in training."""

    text: str
    objects: frozenset[ColouredDigit]
    held_out: bool


@cache
def held_out_pairs() -> frozenset[frozenset[ColouredDigit]]:
    """The pairs of objects that never occur together in training: 75 of the 1,500, five for each pair of colours.

    Fixed for good (seed 0): a trained model is only as meaningful as the list it was trained without.
    """
    rng = np.random.default_rng(0)
    pairs = set()
    for first, second in combinations(COLOUR_NAMES, 2):
        for cell in rng.choice(100, size=_HELD_OUT_PER_COLOUR_PAIR, replace=False):
            left, right = divmod(int(cell), 10)
            pairs.add(frozenset({ColouredDigit(first, left), ColouredDigit(second, right)}))
    return frozenset(pairs)


def has_held_out_pair(objects: Iterable[ColouredDigit]) -> bool:
    """Whether any two of the objects never occurred together in training."""
    return any(frozenset(pair) in held_out_pairs() for pair in combinations(objects, 2))


def draw_objects(rng: np.random.Generator, count: int, *, held_out: bool | None = False) -> tuple[ColouredDigit, ...]:
    """`count` objects in different colours, in random order.

    `held_out=False` draws only combinations that training may show, `True` only combinations with a held-out pair,
    `None` both as they come. `ValueError` where `count` is outside 1 to 4, or is 1 and a held-out pair is asked for.
    """
    if not 1 <= count <= MAX_OBJECTS:
        raise ValueError(f"draw_objects: count must be 1 to {MAX_OBJECTS}, got {count}")
    if held_out and count == 1:
        raise ValueError("draw_objects: one object holds no pair; held_out=True needs a count of 2 or more")
    while True:
        colours = rng.permutation(len(COLOUR_NAMES))[:count]
        digits = rng.integers(10, size=count)
        objects = tuple(ColouredDigit(COLOUR_NAMES[c], int(d)) for c, d in zip(colours, digits, strict=True))
        if held_out is None or has_held_out_pair(objects) == held_out:
            return objects


def caption(objects: Sequence[ColouredDigit], phrasing: str = "list") -> str:
    """The objects in words, in the order given (which says nothing about where they are in the image).

    >>> caption([ColouredDigit("red", 3), ColouredDigit("blue", 7), ColouredDigit("green", 1)])
    'a red three, a blue seven and a green one'
    """
    if not objects:
        raise ValueError("caption: there are no objects to name")
    if phrasing not in PHRASINGS:
        raise ValueError(f"caption: phrasing must be one of {', '.join(PHRASINGS)}, got {phrasing!r}")
    if phrasing == "bare":
        return ", ".join(map(str, objects))
    named = [f"a {item}" for item in objects]
    if phrasing == "chain":
        return " and ".join(named)
    start = "a picture of " if phrasing == "picture" else ""
    return start + " and ".join([", ".join(named[:-1]), named[-1]] if named[1:] else named)


def parse_caption(text: str) -> frozenset[ColouredDigit]:
    """The set of objects a caption asks for.

    Reads every colour word followed by a digit word; articles, commas and `and` are passed over.

    >>> sorted(map(str, parse_caption("a picture of a red three and a blue seven")))
    ['blue seven', 'red three']

    Raises:
        ValueError: no object in the text, a colour or digit without its partner, a word outside the language, a colour
            named twice, or more than four objects.
    """
    objects: list[ColouredDigit] = []
    colour: str | None = None
    for word in re.findall(r"[^\s,.]+", text.lower()):
        if word in COLOUR_NAMES and colour is None:
            colour = word
        elif word in DIGIT_WORDS and colour is not None:
            objects.append(ColouredDigit(colour, DIGIT_WORDS.index(word)))
            colour = None
        elif colour is not None or word not in {"a", "and", "picture", "of"}:
            raise ValueError(
                f"parse_caption: cannot read {word!r} in {text!r}; expected objects such as 'a red three and a blue "
                f"seven', in the colours {', '.join(COLOUR_NAMES)}"
            )
    if colour is not None or not objects:
        raise ValueError(f"parse_caption: {text!r} names {'no digit after ' + colour if colour else 'no object'}")
    colours = [item.colour for item in objects]
    if len(set(colours)) < len(colours) or len(objects) > MAX_OBJECTS:
        raise ValueError(
            f"parse_caption: expected at most {MAX_OBJECTS} objects and no colour twice, "
            f"got {', '.join(map(str, objects))}"
        )
    return frozenset(objects)


def make_prompts(
    count: int, *, seed: int = 0, objects: Sequence[int] = (1, 2, 3, 4), held_out: bool | None = False
) -> list[Prompt]:
    """`count` prompts balanced over the numbers of `objects`, in all phrasings, the same for the same arguments.

    `held_out` as in `draw_objects`. The n-th prompt does not depend on `count`.

    >>> [prompt.text for prompt in make_prompts(2, seed=1)]
    ['a blue nine', 'a yellow five and a blue one']
    """
    if count < 0 or not objects:
        raise ValueError(f"make_prompts: needs count ≥ 0 and numbers of objects, got {count} and {tuple(objects)}")
    prompts = []
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        drawn = draw_objects(rng, objects[index % len(objects)], held_out=held_out)
        text = caption(drawn, PHRASINGS[rng.integers(len(PHRASINGS))])
        prompts.append(Prompt(text, frozenset(drawn), has_held_out_pair(drawn)))
    return prompts
