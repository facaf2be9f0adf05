"""Read what was typed: seeds, files of prompts, sizes, and the control."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def parse_seeds(text: str) -> list[int]:
    """Seeds as typed: numbers and ranges, the ends included; ValueError for anything else.

    >>> parse_seeds("0-3,10")
    [0, 1, 2, 3, 10]
    """
    from symskew.study.sources import read_seeds

    return list(read_seeds("--seeds", text))


def gather_prompts(given: list[str], file: Path | None, instead: str = "") -> list[str]:
    """The prompts typed and those of a file, one a line; empty lines and lines that begin with # are passed over.

    Args:
        given: what was typed.
        file: of more.
        instead: what else could be given, for the message if there is none.

    Raises:
        ValueError: there is none, or the file cannot be read.
    """
    prompts = [prompt.strip() for prompt in given]
    if not all(prompts):
        raise ValueError("a prompt is empty")
    if file is not None:
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"--prompts: {file} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from error
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise ValueError(f"--prompts: there is no prompt in {file}")
        prompts += found
    if not prompts:
        ways = ["a prompt", "--prompts FILE", *([instead] if instead else [])]
        raise ValueError(f"nothing to generate: give {', '.join(ways[:-1])}{',' * (len(ways) > 2)} or {ways[-1]}")
    return list(dict.fromkeys(prompts))


def parse_size(text: str | None) -> tuple[int, int] | None:
    """A size as typed: `512` or `640x512` (width, height).

    >>> parse_size("640x512")
    (640, 512)
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match:
        raise ValueError(f"--size takes a number or WIDTHxHEIGHT, got {text!r}")
    return int(match[1]), int(match[2] or match[1])


def parse_control(alpha: str | None, beta: str | None, **given: Any) -> dict[str, Any]:
    """What was typed of a control, with α and β as `Circulation` takes them.

    Raises:
        ValueError: neither a number nor anything else that they may be.

    >>> parse_control("2..1", None, norm="none")
    {'alpha': Ramp(2.0, 1.0), 'beta': None, 'norm': 'none'}
    """
    from symskew.ramp import parse

    values: dict[str, Any] = {}
    for name, text in (("alpha", alpha), ("beta", beta)):
        try:
            values[name] = None if text is None else parse(text)
        except ValueError as error:
            raise ValueError(f"--{name}: {error}") from error
    return values | given


def parse_arguments(given: list[str] | None) -> dict[str, Any]:
    """More arguments of a pipeline as typed; ValueError for what is no NAME=VALUE.

    >>> parse_arguments(["max_sequence_length=77", "eta=0.5", "clean_caption=true"])
    {'max_sequence_length': 77, 'eta': 0.5, 'clean_caption': True}
    """
    found = {}
    for each in given or []:
        name, sign, text = each.partition("=")
        if not (sign and name):
            raise ValueError(f"--argument takes NAME=VALUE, got {each!r}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found[name] = value
    return found


def parse_features(text: str) -> int | None:
    """A number of features as typed; None for `all`.

    >>> parse_features("64")
    64
    """
    if text != "all" and not text.isdecimal():
        raise ValueError(f"--features takes a number or all, got {text!r}")
    return None if text == "all" else int(text)


def parse_layers(given: list[str] | None) -> Any:
    """The layer patterns of one or several `--layers`: a string, or a tuple of them."""
    return None if not given else given[0] if len(given) == 1 else tuple(given)


def choose_control(given: dict[str, Any], fallback: dict[str, Any] | None, *, compare: bool) -> dict[str, Any]:
    """The control's settings by name (of `Circulation`, and layers, start, stop); empty for vanilla.

    Args:
        given: what was typed; None for what was not.
        fallback: the model's own control, taken by `compare` when nothing was typed.

    Raises:
        ValueError: options that would do nothing, or a comparison without anything to compare.
    """
    typed = {name: value for name, value in given.items() if value is not None}
    if not typed:
        if compare and not fallback:
            raise ValueError("--compare needs a control to compare with, and this model has none of its own: "
                             "give --alpha, and --beta")  # fmt: skip
        return dict(fallback or {}) if compare else {}
    if typed.get("norm") == "none":
        typed["norm"] = None
    if "alpha" not in typed and "sym" not in typed:
        names = ", ".join(f"--{name}" for name in typed)
        raise ValueError(f"{names} without --alpha changes nothing: give --alpha, where 1 is vanilla")
    return typed
