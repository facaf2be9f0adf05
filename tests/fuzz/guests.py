"""Every model class of diffusers as a family: tiny ones of the zoo, for the sequences that run for an hour."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import dense
from fuzz.shadow import Family, Seen, Shadow, arguments, is_closed
from symskew import Circulation
from symskew.layers import find_layers
from zoo import table
from zoo.classes import model_classes
from zoo.entry import ENTRIES, Entry
from zoo.reference import run, visible
from zoo.verify import check_census, pattern
from zoo.witness import Seen as Attention
from zoo.witness import watching

assert table  # enters the classes


@dataclass(frozen=True)
class Guest(Family):
    """A tiny model of the zoo, with the arguments that come with it, which mean something to it alone."""

    given: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def layers(self, model: nn.Module) -> list[str]:
        """Those where torch sees one attention of the tokens with themselves, and that are not refused."""
        return list(self.names)

    def inputs(self, model: Any, seed: int, time: float) -> dict[str, Any]:
        """Always the same."""
        return copy.deepcopy(self.given)

    @torch.no_grad()
    def forward(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """All that the model gives."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # diffusers deprecates what it still uses
            warnings.filterwarnings("ignore", "In CPU autocast")  # and asks for what a CPU does not have
            return torch.cat([out.flatten().double() for out in run(model, inputs)])

    def shadow(self, model: Any) -> Shadow:
        """One that is run in dense equations by what torch sees."""
        return _Watched(model, self)


class _Watched(Shadow):
    """A shadow whose layers may attend sample by sample, under masks, and to others in between."""

    def dense(self, inputs: dict[str, Any], settings: dict[str, Circulation]) -> Tensor:
        """What it gives with the equations in the place of torch's attention: of each layer by its settings."""
        self.seen, parts = {}, {}

        def answer(each: Attention) -> Tensor | None:
            name = each.within(set(self.family.layers(self.model)))
            if name is None or not each.square:
                return None
            q, k, v = (each.arguments[side] for side in ("query", "key", "value"))
            how: dict[str, Any] = {"mask": each.mask, "scale": each.arguments.get("scale")}
            there = visible(each)
            wide = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
            plain = out = dense.algorithm2(q, k, v, **how)
            if acts := name in settings and not is_closed(settings[name]):
                shown = (part.double() * there[:, None, :, None] for part in (q, wide))
                out = dense.algorithm2(q, k, v, eta=dense.symmetry(*shown), **how, **arguments(settings[name], v))
            parts.setdefault(name, []).append((q.double(), wide.double(), plain, out, there))
            return out.to(q.dtype) if acts else None

        with watching(self.model, answer):
            found = self.family.forward(self.model, inputs)
        for name, some in parts.items():
            # Sample by sample there may be more tokens or fewer, where padding is left out.
            most = max(there.shape[1] for *_, there in some)
            even = [[_filled(part, most, 2) for part in four] + [_filled(there, most, 1)] for *four, there in some]
            q, k, plain, out, there = map(torch.cat, zip(*even, strict=True))
            self.seen[name] = Seen(q, k, plain, out, name in settings, there)
        return found


def _filled(part: Tensor, most: int, dim: int) -> Tensor:
    """Zeros after the tokens, up to so many."""
    rest = list(part.shape)
    rest[dim] = most - rest[dim]
    return torch.cat([part, part.new_zeros(rest)], dim)


@functools.cache
def guest(name: str, number: int) -> Guest | None:
    """A class of the zoo, one of its variants, as a family; None where there is nothing to control."""
    entry = ENTRIES[name][number]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is deprecated, which is no matter of this
        model, inputs = entry.tiny()
        with watching(model) as seen:
            run(model, inputs)
    seen = [each for each in seen if pattern(each.modules[0]) not in entry.besides]
    layers = find_layers(model)
    refused = [layer for layer in layers if entry.refused.keys() & {layer.name, pattern(layer.name)}]
    names = tuple(layer.name for layer in check_census(layers, refused, seen))
    return Guest(name, _maker(entry, model), "", bare=True, given=inputs, names=names) if names else None


def _maker(entry: Entry, model: nn.Module) -> Callable[[], Any]:
    return lambda: copy.deepcopy(model)


def guests(first: int, count: int) -> dict[str, Guest]:
    """So many classes, counted round, that have something to control."""
    cases = [(name, number) for name in model_classes() for number in range(len(ENTRIES.get(name, ())))]
    found: dict[str, Guest] = {}
    while len(found) < count:
        name, number = cases[first % len(cases)]
        if some := guest(name, number):
            found[f"{name} {number}"] = some
        first += 1
    return found
