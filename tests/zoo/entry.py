"""What it takes to build a tiny instance of a model class, and to run it once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zoo.classes import load

Make = Callable[[], tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Entry:
    """A model class, and how to make a tiny one."""

    name: str
    variant: str
    """What tells this instance from others of its class, in words; empty for the usual one."""
    make: Make
    """() → the configuration, or a way to build the model, and the arguments of one forward."""
    image: str = "hidden_states"
    """The argument that holds the image."""
    axes: str = "bchw"
    """What its dimensions are: b(atch), c(hannels), and the places f(rames), h(eight), w(idth), or t(okens) of them."""
    patch: tuple[int, ...] = ()
    """Size of one token in each of the places; () for a UNet, which has convolutions instead."""
    grid: tuple[int, ...] = ()
    """The grid of the image's tokens, where they come packed."""
    before: int = 0
    """How many tokens of others come packed before them."""
    unknown: str = ""
    """Why the places of the tokens in the image cannot be known, if so."""
    dtype: torch.dtype = torch.double
    """Of the model; some cannot run in float64."""
    refused: dict[str, str] = field(default_factory=dict)
    """Layers that cannot be controlled, by their pattern, with the reason that the error has to give."""
    besides: dict[str, str] = field(default_factory=dict)
    """Attention that is no layer, by the pattern of its module, and what it is."""
    note: str = ""
    """What a user has to know, for the table."""

    def tiny(self) -> tuple[nn.Module, dict[str, Any]]:
        """The model, every parameter random, and the arguments of one forward."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config, inputs = self.make()
            torch.manual_seed(1)
            model: Any = config() if callable(config) else load(self.name)(**config)
            model = (model.double() if self.dtype == torch.double else model).eval()
            for name, parameter in model.named_parameters():
                if not parameter.is_floating_point():
                    continue
                # Zeros and ones would hide layers behind closed gates, and a forgotten or doubled norm.
                if parameter.numel() > 1 and parameter.unique().numel() == 1:
                    low, high = (0.7, 1.3) if parameter.flatten()[0] == 1 else (-0.3, 0.3)
                    nn.init.uniform_(parameter, low, high)
                elif "norm" in name and parameter.ndim == 1 and name.endswith("weight"):
                    nn.init.uniform_(parameter, 0.7, 1.3)
        return model, cast(inputs, self.dtype)

    def regions(self, inputs: dict[str, Any]) -> tuple[int, ...]:
        """Into how many parts each dimension of the image is cut: patches, or halves where convolutions blur them."""
        if self.grid:
            return self.grid
        shape = self.image_of(inputs).shape
        sizes = [n for axis, n in zip(self.axes, shape, strict=True) if axis in "fhw"]
        return tuple(n // p for n, p in zip(sizes, self.patch, strict=True)) if self.patch else (2,) * len(sizes)

    def image_of(self, inputs: dict[str, Any]) -> Tensor:
        """The image among the arguments of a forward: the first, where there is a list of them."""
        image = inputs[self.image]
        while not isinstance(image, Tensor):
            image = image[0]
        return image

    def changed(self, inputs: dict[str, Any], place: tuple[int, ...] | None) -> dict[str, Any]:
        """The same arguments with another image, or an image that is another in one region."""
        image = self.image_of(inputs)
        other, index = image.clone(), [slice(None)] * image.ndim
        if place is not None and "t" in self.axes:
            flat = self.before + _flat(place, self.grid)
            index[self.axes.index("t")] = slice(flat, flat + 1)
        elif place is not None:
            axes = [self.axes.index(axis) for axis in "fhw" if axis in self.axes]
            for axis, at, parts in zip(axes, place, self.regions(inputs), strict=True):
                size = image.shape[axis]
                index[axis] = slice(at * size // parts, (at + 1) * size // parts)
        part = other[tuple(index)]
        noise = torch.randn(part.shape, generator=torch.Generator().manual_seed(2))
        other[tuple(index)] = part + 0.1 * noise if part.is_floating_point() else (part + 1) % 2
        return _replaced(inputs, image, other)


def _flat(place: tuple[int, ...], grid: tuple[int, ...]) -> int:
    index = 0
    for at, size in zip(place, grid, strict=True):
        index = index * size + at
    return index


def _replaced(value: Any, old: Tensor, new: Tensor) -> Any:
    if isinstance(value, Tensor) and value.shape == old.shape and torch.equal(value, old):
        return new
    if isinstance(value, dict):
        return {name: _replaced(part, old, new) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(part, old, new) for part in value)
    return value


def cast(value: Any, dtype: torch.dtype) -> Any:
    """The same arguments in another dtype."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: cast(part, dtype) for name, part in value.items()}
    return type(value)(cast(part, dtype) for part in value) if isinstance(value, (list, tuple)) else value


ENTRIES: dict[str, list[Entry]] = {}
"""By class; filled as the families' modules are imported, so take it from `zoo.table`, which imports them all."""


def model(name: str, variant: str = "", **facts: Any) -> Callable[[Make], Make]:
    """Enter a class: the function that is decorated gives its configuration and the arguments of one forward."""

    def enter(make: Make) -> Make:
        ENTRIES.setdefault(name, []).append(Entry(name, variant, make, **facts))
        return make

    return enter
