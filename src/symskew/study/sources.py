"""Where the prompts and seeds of a study come from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_SEEDS = 1_000_000


@dataclass(frozen=True)
class PromptSet:
    """Prompts that are used together, in order, none twice."""

    name: str
    texts: tuple[str, ...]

    def ids(self) -> list[tuple[str, str]]:
        """The id and the text of each."""
        return [(prompt_id(text), text) for text in self.texts]


def prompt_id(text: str) -> str:
    """A prompt's name: a hash of its text, 16 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_prompts(name: str, written: Any, folder: Path) -> PromptSet:
    """A set of prompts: a list, a file with one a line, or as many of Ensemble's as are asked for.

    Args:
        name: of the set.
        written: `[…]`, `{file: prompts.txt, limit: 100}` or `{ensemble: {count: 100, seed: 0, objects: [2, 3]}}`.
        folder: where a file is looked for; it cannot lie outside.

    Raises:
        ValueError: naming the set and what is wrong.
    """
    try:
        if isinstance(written, list):
            texts = [str(each).strip() for each in written]
        elif isinstance(written, Mapping) and set(written) <= {"file", "limit"} and "file" in written:
            texts = _from_file(folder, str(written["file"]), written.get("limit"))
        elif isinstance(written, Mapping) and set(written) == {"ensemble"}:
            texts = _from_ensemble(**dict(written["ensemble"]))
        else:
            raise ValueError(
                f"expected a list of prompts, {{file: NAME}} or {{ensemble: {{count: N}}}}, got {written!r}"
            )
        if not texts or not all(texts):
            raise ValueError("a prompt is empty" if texts else "there is no prompt")
    except (ValueError, TypeError) as error:
        raise ValueError(f"prompts: {name}: {error}") from error
    return PromptSet(name, tuple(dict.fromkeys(texts)))


def _from_file(folder: Path, file: str, limit: int | None) -> list[str]:
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"the file {file} lies outside of the study's folder; put it there")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return [line for line in lines if line and not line.startswith("#")][:limit]


def _from_ensemble(
    count: int, seed: int = 0, objects: tuple[int, ...] = (1, 2, 3, 4), held_out: bool | None = False
) -> list[str]:
    from symskew.ensemble.prompts import make_prompts

    # The n-th prompt does not depend on the count, and a few come twice: more are drawn until there are enough.
    texts: dict[str, None] = {}
    for drawn in (count, 2 * count, 8 * count):
        texts = dict.fromkeys(p.text for p in make_prompts(drawn, seed=seed, objects=tuple(objects), held_out=held_out))
        if len(texts) >= count:
            return list(texts)[:count]
    raise ValueError(f"there are only {len(texts)} different prompts of this kind, {count} were asked for")


def read_seeds(what: str, written: Any) -> tuple[int, ...]:
    """Seeds: a number, a range "0-7" or "0-3,10", or a list of numbers.

    >>> read_seeds("seeds", "0-2,7")
    (0, 1, 2, 7)
    """
    if isinstance(written, list) and all(isinstance(each, int) and each >= 0 for each in written):
        return tuple(dict.fromkeys(written))
    seeds: dict[int, None] = {}
    for part in str(written).split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if not match or not 0 <= int(match[2] or match[1]) - int(match[1]) < MOST_SEEDS:
            raise ValueError(f"{what}: expected numbers and ranges such as 0-7 or 1,5,9, got {written!r}")
        seeds |= dict.fromkeys(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(seeds)
