"""Where the prompts and seeds of a study come from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from symskew.study.coco import REMEDY, NoCaptionsError, choose_captions

MOST_SEEDS = 1_000_000


@dataclass(frozen=True)
class PromptSet:
    """Prompts that are used together, in order, none twice.

    Attributes:
        name: of the set.
        texts: the prompts.
        source: the file they were chosen from, its SHA-256, and how; None for those that were written or drawn.
        lacking: why these only stand in for prompts that are not here; empty for real ones.
    """

    name: str
    texts: tuple[str, ...]
    source: Mapping[str, Any] | None = field(default=None, compare=False)
    lacking: str = ""

    def ids(self) -> list[tuple[str, str]]:
        """The id and the text of each."""
        return [(prompt_id(text), text) for text in self.texts]


def prompt_id(text: str) -> str:
    """A prompt's name: a hash of its text, 16 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_prompts(
    name: str, written: Any, folder: Path, captions: Path | None = None, *, stand_in: bool = False
) -> PromptSet:
    """A set of prompts: a list, a file with one a line, captions of COCO, or as many of Ensemble's as are asked for.

    Args:
        name: of the set.
        written: `[…]`, `{file: prompts.txt, limit: 100}`, `{coco: {count: 1000, skip: 0, seed: 0}}`, to which `file`
            and `sha256` may be added, or `{ensemble: {count: 100, seed: 0, objects: [2, 3]}}`.
        folder: where a file that is named is looked for; it cannot lie outside.
        captions: COCO's file of captions, where none is named.
        stand_in: whether to go on without that file, with made-up captions.

    Raises:
        ValueError: naming the set and what is wrong.
    """
    source, lacking = None, ""
    try:
        if isinstance(written, list):
            texts = [str(each).strip() for each in written]
        elif isinstance(written, Mapping) and set(written) <= {"file", "limit"} and "file" in written:
            texts = _from_file(folder, str(written["file"]), written.get("limit"))
        elif isinstance(written, Mapping) and set(written) == {"ensemble"}:
            texts = _from_ensemble(**_plain(written["ensemble"]))
        elif isinstance(written, Mapping) and set(written) == {"coco"}:
            chosen = _plain(written["coco"])
            try:
                texts, source = _from_coco(folder, captions, **chosen)
            except NoCaptionsError as error:
                if not stand_in:
                    raise
                texts, lacking = [f"caption {place} of {name}" for place in range(chosen["count"])], str(error)
        else:
            raise ValueError(
                "expected a list of prompts, {file: NAME}, {coco: {count: N}} or {ensemble: {count: N}}, "
                f"got {shown(written)}"
            )
        if not texts or not all(texts):
            raise ValueError("a prompt is empty" if texts else "there is no prompt")
    except (ValueError, TypeError) as error:
        raise ValueError(f"prompts: {name}: {error}") from error
    return PromptSet(name, tuple(dict.fromkeys(texts)), source, lacking)


def _plain(written: Any) -> dict[str, Any]:
    if not isinstance(written, Mapping):
        raise ValueError(f"expected {{count: N}}, got {shown(written)}")
    return dict(written)


def _inside(folder: Path, file: str) -> Path:
    """A file of the study's folder."""
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"the file {file} lies outside of the study's folder; put it there")
    return path


def _from_file(folder: Path, file: str, limit: int | None) -> list[str]:
    path = _inside(folder, file)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return [line for line in lines if line and not line.startswith("#")][:limit]


def _from_coco(
    folder: Path,
    captions: Path | None,
    count: int,
    skip: int = 0,
    seed: int = 0,
    file: str | None = None,
    sha256: str | None = None,
) -> tuple[list[str], dict[str, Any]]:
    path = captions if file is None else _inside(folder, str(file))
    if path is None:
        raise NoCaptionsError(f"COCO's captions are needed; {REMEDY}")
    texts, found = choose_captions(path, count, skip=skip, seed=seed)
    if sha256 not in (None, found):
        raise ValueError(f"{path} is not the file that the study is about: its SHA-256 is {found}, not {sha256}")
    return texts, {"coco": {"file": path.name, "sha256": found, "count": count, "skip": skip, "seed": seed}}


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
    """Seeds: a number, a range "0-7" or "0-3,10", or a list of numbers; each once.

    Args:
        what: they are, for messages.
        written: at most a million of them.

    Raises:
        ValueError: anything else.

    >>> read_seeds("seeds", "0-2,7")
    (0, 1, 2, 7)
    """
    seeds: dict[int, None] = {}
    for part in written if isinstance(written, list) else str(written).split(","):
        # A number of thousands of digits takes long to read, and no generator has such a seed.
        match = None if isinstance(part, bool) else re.fullmatch(r"\s*(\d{1,19})\s*(?:-\s*(\d{1,19})\s*)?", str(part))
        if not match or (isinstance(written, list) and match[2]):
            raise ValueError(f"{what}: expected numbers and ranges such as 0-7 or 1,5,9, got {shown(written)}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{what}: a range runs from the smaller to the larger, got {str(part).strip()!r}")
        if last - first >= MOST_SEEDS - len(seeds):
            raise ValueError(f"{what}: there can be at most {MOST_SEEDS} seeds, got {shown(written)}")
        seeds |= dict.fromkeys(range(first, last + 1))
    return tuple(seeds)


def shown(written: object, most: int = 100) -> str:
    """A value for a message, cut short: whoever wrote it may have written a lot."""
    text = repr(written)
    return text if len(text) <= most else f"{text[:most]}…"
