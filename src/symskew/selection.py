"""Choose layers: by stage, by name, by depth."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from symskew.layers import ASIDE, PROJECTIONS, STAGES, Layer, find_denoisers, find_layers

Selector = str | tuple[float, float] | Sequence["str | tuple[float, float]"] | None


def choose_layers(target: object, selector: Selector = None) -> list[tuple[nn.Module, list[Layer]]]:
    """The chosen layers of a pipeline or module, denoiser by denoiser; those without any are left out.

    Raises:
        TypeError, ValueError: as `find_denoisers` and `select_layers`.
    """
    denoisers = find_denoisers(target)
    prefixes = {name: f"{name}." if len(denoisers) > 1 else "" for name in denoisers}
    found = [(root, find_layers(root, prefixes[name])) for name, root in denoisers.items()]
    chosen = {id(layer) for layer in select_layers([layer for _, some in found for layer in some], selector)}
    picked = [(root, [layer for layer in some if id(layer) in chosen]) for root, some in found]
    return [(root, some) for root, some in picked if some]


def select_layers(layers: Sequence[Layer], selector: Selector = None) -> list[Layer]:
    """The layers that any part of `selector` picks, in the order of the model.

    A part is a stage (`"down"`, `"mid"`, `"up"`), a range of depth (`"0.2-0.6"` or `(0.2, 0.6)`, the upper end left
    out), a regular expression on the whole name (`"re:.*blocks.[01].*"`) or a glob (`"up_blocks.1.*"`). Parts come in
    a list or separated by commas; `None` picks all. Temporal layers and others that are `aside` need a pattern that
    spells them out (`"*motion_modules*"`).

    Raises:
        ValueError: if a part picks nothing, or there is nothing to pick from.
    """
    if not layers:
        raise ValueError(
            "symskew: the model has no self-attention layer that could be found: a module with projections named "
            f"{', '.join('/'.join(names) for names in PROJECTIONS[:4])}, with an attention processor, or with an "
            "attention function of transformers. Give the pipeline's denoiser or the model itself; "
            "torch.nn.MultiheadAttention keeps its projections to itself and cannot be controlled."
        )
    chosen: set[int] = set()
    for part in _parts(selector):
        picked = {id(layer) for layer in layers if _picks(part, layer)}
        if not picked:
            raise ValueError(_nothing(part, layers))
        chosen |= picked
    return [layer for layer in layers if id(layer) in chosen]


def _parts(selector: Selector) -> Iterable[Any]:
    if selector is None:
        return [(0.0, 1.0)]
    if isinstance(selector, str):
        # A regular expression may hold commas of its own.
        return [selector] if selector.startswith("re:") else [p.strip() for p in selector.split(",") if p.strip()]
    if not isinstance(selector, Sequence) or (
        len(selector) == 2 and all(isinstance(e, (int, float)) for e in selector)
    ):
        return [selector]
    parts = [part for item in selector for part in (_parts(item) if isinstance(item, str) else [item])]
    if not parts:
        raise ValueError("symskew: layers= is empty; give a pattern, or None for all self-attention layers.")
    return parts


def _picks(part: Any, layer: Layer) -> bool:
    if isinstance(part, str) and (match := re.fullmatch(r"(\d*\.?\d+)\s*-\s*(\d*\.?\d+)", part)):
        part = (float(match[1]), float(match[2]))
    if isinstance(part, str):
        if layer.aside and not any(mark in part and mark in layer.name for mark in ASIDE):
            return False
        if part in STAGES:
            return layer.stage == part
        if part.startswith("re:"):
            try:
                return re.fullmatch(part[3:], layer.name) is not None
            except re.error as error:
                raise ValueError(f"symskew: layers={part!r} is no regular expression: {error}.") from error
        return fnmatch.fnmatchcase(layer.name, part)
    try:
        low, high = (float(end) for end in part)
    except (TypeError, ValueError):
        raise ValueError(f"symskew: layers= takes patterns and (low, high) ranges of depth, got {part!r}.") from None
    return not layer.aside and low <= layer.depth < high


def _nothing(part: Any, layers: Sequence[Layer]) -> str:
    names = [layer.name for layer in layers]
    head = f"symskew: layers={part!r} picks none of the {len(layers)} self-attention layers"
    if not isinstance(part, str):
        return f"{head}, whose depths run from {layers[0].depth:.2f} to {layers[-1].depth:.2f}."
    if any(name.startswith(f"{part.rstrip('.*')}.") for name in names):
        return f"{head}; did you mean '{part.rstrip('.*')}.*'?"
    if (core := part.strip("*")) and any(core in name for name in names):
        return f"{head}; did you mean '*{core}*'?"
    near = difflib.get_close_matches(part, names, n=3, cutoff=0.5) or [names[0], names[len(names) // 2], names[-1]]
    return f"{head}; it takes a stage (down, mid, up), a glob, re:… or a range of depth, and there are {_listed(near)}."


def _listed(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:-1]) + " and " * (len(unique) > 1) + unique[-1]
