"""Which tokens are the image's and where they are, found out by changing the image while nothing mixes its tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from symskew import diagnose
from symskew.layers import Layer
from zoo.entry import Entry
from zoo.reference import agreement, nothing, run, visible
from zoo.witness import Seen, watching


def check_places(entry: Entry, model: nn.Module, inputs: dict[str, Any], some: list[Layer]) -> tuple[str, str]:
    """Every map is of exactly the image's tokens, in their places; which of text and image comes first, and the grid.

    Both are empty where the places cannot be known, which has to be an error that says so.
    """
    names = [layer.name for layer in some]
    how: dict[str, Any] = {"layers": names, "states": "value", "features": None, "maps": True}
    if entry.unknown:
        with pytest.raises(ValueError, match="cannot be known"), diagnose(model, **how):
            run(model, inputs)
        return "", ""
    with diagnose(model, **how) as record:
        run(model, inputs)
    readings = {record.layers[reading.layer].name: reading for reading in record._readings()}
    before = _values(model, inputs, names)

    def change(place: tuple[int, ...] | None) -> dict[str, Tensor]:
        after = _values(model, entry.changed(inputs, place), names)
        return {name: (after[name] - before[name]).abs().sum((0, 1, 3)) for name in names}

    everything, parts = change(None), entry.regions(inputs)
    changes = {place: change(place) for place in _steps(parts)}
    with watching(model) as seen:
        run(model, inputs)
    orders, compared = set(), 0
    for name in names:
        grid, moved = readings[name].grid, everything[name]
        assert grid is not None
        image = moved > 1e-9 * moved.max()
        first, tokens = int(image.nonzero()[0].item()), math.prod(grid)
        here = slice(first, first + tokens)
        # A decoder has what it decodes beside it, which is of the image too.
        assert image[here].all(), f"{name}: {grid} tokens beginning with {first} are not all the image's"
        assert image.sum() in (tokens, 2 * tokens), f"{name}: {image.sum()} tokens of the image, folded to {grid}"
        if len(image) > tokens:
            orders.add("image first" if first == 0 else "text first")
        for place, what in changes.items():
            compared += _check_place(entry, what[name][here], grid, place, parts, name)
        _check_map(readings[name], next(each for each in seen if each.square and each.within({name})), here)
    assert compared, "the places of no layer were clear enough to be compared"
    dimensions = max(len(reading.grid or ()) for reading in readings.values())
    return ", ".join(sorted(orders)), "×".join("fhw"[-dimensions:])


def _values(model: nn.Module, inputs: dict[str, Any], names: list[str]) -> dict[str, Tensor]:
    """The values of each layer, where no token has learned of another."""
    with watching(model, nothing) as seen:
        run(model, inputs)
    calls = {each.within(set(names)): each for each in reversed(seen) if each.square}
    return {name: calls[name].arguments["value"] for name in names}


def _steps(parts: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Places that tell every order of folding from every other: one step along each axis, and the last."""
    axes = [axis for axis, size in enumerate(parts) if size > 1]
    return [*(tuple(int(i == axis) for i in range(len(parts))) for axis in axes), tuple(n - 1 for n in parts)]


def _check_place(
    entry: Entry, moved: Tensor, grid: tuple[int, ...], place: tuple[int, ...], parts: tuple[int, ...], name: str
) -> bool:
    """What was changed in one region of the image is there on the grid; False where convolutions have blurred it."""
    parts, place = parts[-len(grid) :], place[-len(grid) :]
    padding = (1,) * (3 - len(grid))
    size: Any = (*padding, *parts)
    regions = nn.functional.adaptive_avg_pool3d(moved.view(1, *padding, *grid), size).view(parts)
    if not (entry.patch or entry.grid) and regions.max() < 1.5 * regions.mean():
        return False
    largest = tuple(int(i) for i in torch.unravel_index(regions.argmax(), parts))
    assert largest == place, f"{name}: a change at {place} of {parts} is seen at {largest} of {grid}"
    return True


def _check_map(reading: Any, each: Seen, image: slice) -> None:
    if not visible(each).all():  # maps of padded calls are held to the truth where padding is removed
        return
    wanted = agreement(each)[:, image]
    torch.testing.assert_close(reading.maps[0, : len(wanted), 0].double(), wanted, atol=1e-5, rtol=1e-4)
