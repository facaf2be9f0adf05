"""The support table: what is known of every model class of the installed diffusers, as lines of Markdown."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from zoo import audio, controlnets, images, images_packed, proteins, unets, videos, videos_wan
from zoo.classes import model_classes
from zoo.entry import ENTRIES, Entry
from zoo.others import reason
from zoo.verify import Found, verify

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
FAMILIES = {
    "Images": (images, images_packed),
    "Video": (videos, videos_wan),
    "UNets and U-ViTs": (unets,),
    "Sound and other sequences": (audio, proteins),
    "ControlNets": (controlnets,),
}
VERIFIED = "| class | layers | text and image | map | states | besides |\n|---|---|---|---|---|---|"
REFUSED = "| class | layers | reason |\n|---|---|---|"
ELSEWHERE = "| class | what it is |\n|---|---|"


@dataclass(frozen=True)
class Line:
    """One class in the table, and in which part of it."""

    part: str
    text: str


def cases() -> list[str]:
    """Every class of the installed diffusers, and variants of some, by the words that begin its line."""
    return [case for name in model_classes() for case in [_title(e) for e in ENTRIES.get(name, ())] or [f"`{name}`"]]


def line(case: str) -> Line:
    """The line of a case, found by running it.

    Raises:
        AssertionError: what is not true of the class, or that nobody has said how to build it.
    """
    name = case.split("`")[1]
    if (why := reason(name)) is not None:
        return Line("No denoisers", f"| {case} | {why} |")
    assert name in ENTRIES, (
        f"diffusers has a class {name} ({model_classes()[name]}) that is not in the table: enter a tiny one into the "
        "file of its family in tests/zoo, or say in tests/zoo/others.py why it is none to control; then `make support`."
    )
    entry = next(entry for entry in ENTRIES[name] if _title(entry) == case)
    found = verify(entry)
    if not found.layers:
        why = "; ".join(dict.fromkeys(entry.refused.values())) + (f": {entry.note}" if entry.note else "")
        return Line("Refused", f"| {case} | {_code(found.refused)} | {why} |")
    family = next(title for title, modules in FAMILIES.items() if _module(entry) in {m.__name__ for m in modules})
    cells = [case, _code(found.layers), found.order or "–", found.grid or "–", found.states, _besides(entry, found)]
    return Line(family, f"| {' | '.join(cells)} |")


def _title(entry: Entry) -> str:
    return f"`{entry.name}`{', ' if entry.variant else ''}{entry.variant}"


def _module(entry: Entry) -> str:
    return entry.make.__module__


def _code(patterns: tuple[str, ...]) -> str:
    return ", ".join(f"`{pattern}`" for pattern in patterns)


def _besides(entry: Entry, found: Found) -> str:
    parts = [f"aside: {_code(found.aside)}"] if found.aside else []
    parts += [f"refused: `{name}` ({why})" for name, why in entry.refused.items()]
    parts += [f"`{name}`: {why}" for name, why in entry.besides.items()]
    parts += [f"no map: {entry.unknown}"] if entry.unknown else []
    return "; ".join([*parts, *([entry.note] if entry.note else [])]) or "–"


def render(lines: list[Line]) -> str:
    """The whole section."""
    heads = dict.fromkeys(FAMILIES, VERIFIED) | {"Refused": REFUSED, "No denoisers": ELSEWHERE}
    parts = []
    for part, head in heads.items():
        texts = sorted(each.text for each in lines if each.part == part)
        if texts:
            parts.append(f"### {part}: {len(texts)}\n\n{head}\n" + "\n".join(texts))
    return "\n\n".join([versions(), *parts])


def versions() -> str:
    """What the table was made with."""
    import diffusers
    import torch

    return f"Made with diffusers {diffusers.__version__} and torch {torch.__version__.split('+')[0]}."


@functools.cache
def documented() -> tuple[str, dict[str, str]]:
    """What the page says: its versions, and the line of each class."""
    text = PAGE.read_text(encoding="utf-8")
    text = text[text.index("<!-- support: begin -->") : text.index("<!-- support: end -->")]
    made = re.search(r"^Made with .*$", text, re.MULTILINE)
    assert made, "the page does not say what its table was made with: `make support`"
    return made[0], {each[1]: each[0] for each in re.finditer(r"^\| (`\w+`[^|]*) \|.*$", text, re.MULTILINE)}
