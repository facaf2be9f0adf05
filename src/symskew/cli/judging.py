"""What the judge makes of the images of an Ensemble model."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from symskew.models import ModelFiles


@dataclass(frozen=True)
class Opinion:
    """What was read in an image, whether it is exactly what was asked for (None: cannot be told), and what is wrong."""

    read: str
    right: bool | None
    wrong: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """As plain values."""
        return {"read": self.read, "right": self.right, "wrong": list(self.wrong)}


class Jury:
    """Ensemble's judge, with the prompts in view.

    Raises:
        ValueError: the judge's weights are damaged.
    """

    def __init__(self) -> None:
        from symskew.ensemble import Judge

        try:
            self.judge = Judge.load()
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error

    def opinion(self, image: Any, prompt: str) -> Opinion:
        """Read a 64×64 image; hold it against the prompt where that is a caption of Ensemble's."""
        from symskew.ensemble import compare, parse_caption

        reading = self.judge.read([image])[0]
        try:
            verdict = compare(reading, parse_caption(prompt))
        except ValueError:
            return Opinion(str(reading), None)
        return Opinion(str(reading), verdict.all_right, tuple(_in_words(failure) for failure in verdict.failures))


def make_jury(files: ModelFiles, size: tuple[int, int] | None) -> Jury | None:
    """The jury for an Ensemble model's images of the usual size; None for others."""
    return Jury() if files.judged and size in (None, (64, 64)) else None


def _in_words(failure: Any) -> str:
    if failure.wanted is None:
        return f"extra {failure.seen}"
    if failure.kind == "missing":
        return f"no {failure.wanted}"
    if failure.kind in ("doubled", "unreadable"):
        return f"{failure.wanted} {failure.kind}"
    colour, digit = str(failure.wanted).split()
    return f"{failure.seen}, not {digit if failure.seen.startswith(f'{colour} ') else failure.wanted}"


def doubts(prompt: str) -> str | None:
    """Why an Ensemble model cannot know what a prompt means, or None."""
    from symskew.ensemble import COLOURS, DIGIT_WORDS, parse_caption

    known = {*COLOURS, *DIGIT_WORDS, "a", "and", "picture", "of"}
    unknown = list(dict.fromkeys(word for word in re.findall(r"[^\s,.]+", prompt.lower()) if word not in known))
    if unknown:
        return (
            f"this model does not know {', '.join(map(repr, unknown))}: it draws digits (zero to nine) in "
            f"{', '.join(COLOURS)}, as in 'a red three and a blue seven'"
        )
    try:
        parse_caption(prompt)
    except ValueError as error:
        return str(error).removeprefix("parse_caption: ")
    return None


def summarize(vanilla: Sequence[bool | None], controlled: Sequence[bool | None]) -> str:
    """One sentence on how many were entirely right, and what that is worth; the two lists are of the same requests.

    >>> summarize([True, False, False, True], [True, True, False, True])
    'entirely right: vanilla 2/4, controlled 3/4 (1 mended, 0 spoilt); 4 pairs are far too few to mean anything'
    >>> summarize([True, False], [])
    'entirely right: 1/2'
    """
    if not controlled:
        known = [right for right in vanilla if right is not None]
        return f"entirely right: {sum(known)}/{len(known)}" if known else ""
    pairs = [(a, b) for a, b in zip(vanilla, controlled, strict=True) if a is not None and b is not None]
    if not pairs:
        return ""
    n = len(pairs)
    mended, spoilt = sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs)
    counts = f"entirely right: vanilla {sum(a for a, _ in pairs)}/{n}, controlled {sum(b for _, b in pairs)}/{n}"
    chance = sign_test(mended, spoilt)
    if n < 100:
        worth = f"{n} pairs are far too few to mean anything"
    elif chance > 0.05:
        worth = f"chance alone does as much (sign test p = {chance:.2g})"
    else:
        worth = f"more than chance would do (sign test p = {chance:.2g})"
    return f"{counts} ({mended} mended, {spoilt} spoilt); {worth}"


def sign_test(mended: int, spoilt: int) -> float:
    """The two-sided probability of a split at least this uneven if mending and spoiling were equally likely.

    >>> sign_test(5, 0), sign_test(3, 3)
    (0.0625, 1.0)
    """
    n = mended + spoilt
    tail = sum(math.comb(n, i) for i in range(min(mended, spoilt) + 1)) / 2**n
    return min(1.0, 2 * tail)
