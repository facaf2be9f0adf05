"""What is true of control and diagnosis on one model class, found by running a tiny instance of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from symskew import Circulation, control, diagnose
from symskew.layers import Layer, find_layers
from symskew.seam import Tap
from symskew.session import Session
from zoo.entry import Entry
from zoo.places import check_places
from zoo.reference import MEASURES, STRONG, algorithm_2, distance, measured, run, same
from zoo.witness import Seen, watching


@dataclass(frozen=True)
class Found:
    """What was found to be true of a class."""

    layers: tuple[str, ...]
    """Patterns of the layers that are controlled."""
    aside: tuple[str, ...]
    """Those that are only when spelled out."""
    refused: tuple[str, ...]
    """Those that cannot be."""
    order: str
    """Where text and image are in one sequence, which comes first."""
    grid: str
    """What the tokens of the image fold to: "h×w", "f×h×w"; empty where that cannot be known."""
    states: str
    """"input" where the features that the projections saw are known at every layer, "values" where at none."""


def verify(entry: Entry) -> Found:
    """Hold control and diagnosis on a tiny instance to a reference that knows nothing of symskew.

    Raises:
        AssertionError: what is not as it should be.
    """
    model, inputs = entry.tiny()
    plain = run(model, inputs)
    with watching(model) as seen:
        assert same(run(model, inputs), plain), "the model gives another result when it is run again"
    seen = [each for each in seen if pattern(each.modules[0]) not in entry.besides]
    layers = find_layers(model)
    refused = [layer for layer in layers if entry.refused.keys() & {layer.name, pattern(layer.name)}]
    attending = check_census(layers, refused, seen)
    spatial, aside = ([layer for layer in attending if layer.aside is which] for which in (False, True))
    assert spatial or refused, "nothing is left to control, and it is not said why"
    check_refusals(entry, model, inputs, refused)
    for some in filter(None, (spatial, aside)):
        check_control(model, inputs, plain, some)
        check_diagnosis(model, inputs, plain, some, seen)
    if spatial and not refused:
        check_default(model, inputs, spatial)
    states = check_inputs(model, inputs, spatial) if spatial else ""
    order, grid = check_places(entry, model, inputs, spatial) if spatial else ("", "")
    names = [patterns([layer.name for layer in some]) for some in (spatial, aside, refused)]
    return Found(names[0], names[1], names[2], order, grid, states)


def pattern(name: str) -> str:
    """A layer's name with its numbers left open."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)


def patterns(names: Sequence[str]) -> tuple[str, ...]:
    """The patterns of some layers, each once."""
    return tuple(dict.fromkeys(map(pattern, names)))


def check_census(layers: list[Layer], refused: list[Layer], seen: list[Seen]) -> list[Layer]:
    """Every self-attention that torch sees is in a layer that was found; which of the layers attend to themselves."""
    names, exempt = {layer.name for layer in layers}, {layer.name for layer in refused}
    for each in seen:
        if each.square:
            place = each.within(names)
            assert place, f"{each.kind} in {each.modules[0]} is in no layer that was found"
            assert each.kind == "attention" or place in exempt, f"{each.kind} in {place} is none of torch's attention"
    kinds = {which: {each.within(names) for each in seen if each.square is which and each.kind == "attention"}
             for which in (True, False)}  # fmt: skip
    idle = {layer.name for layer in layers if not layer.aside} - kinds[True] - kinds[False] - exempt
    assert not idle, f"found as layers, but attention was never seen there: {patterns(sorted(idle))}"
    attending = [layer for layer in layers if layer.name in kinds[True] and layer not in refused]
    for layer in attending:
        calls = [each for each in seen if each.within(names) == layer.name and each.kind == "attention"]
        shapes = [tuple(each.arguments[side].shape[-2] for side in ("query", "key")) for each in calls]
        alone = all(each.arguments["query"].shape[0] == 1 for each in calls)  # sample by sample
        assert alone or len(calls) == 1, f"{layer.name} attends {len(calls)} times in one forward: {shapes}"
    return attending


def check_control(model: nn.Module, inputs: dict[str, Any], plain: list[Tensor], some: list[Layer]) -> None:
    """Controlled output is that of the dense reference, no control is none, bit for bit, and leaving restores."""
    names = [layer.name for layer in some]
    keys = [vars(module).keys() - {"training"} for module in model.modules()]
    with control(model, Circulation(), layers=names):
        assert same(run(model, inputs), plain), "alpha = 1 is not bit-exact"
    with control(model, STRONG, layers=names) as handle:
        controlled = run(model, inputs)
    assert [row.layer for row in handle.summary()] == names
    assert all(row.calls == 1 for row in handle.summary()), handle.summary()
    with watching(model, algorithm_2(set(names), STRONG)):
        wanted = run(model, inputs)
    effect, error = distance(controlled, plain), distance(controlled, wanted)
    assert effect > 1e-6, f"control changed the output by {effect:g} only"
    # A model's own float32, or what it casts to that on the way, rounds both.
    bound = 1e-4 if next(model.parameters()).dtype == torch.double else 2e-3
    assert error < bound * effect, f"control is off the dense reference by {error / effect:g} of its effect"
    assert same(run(model, inputs), plain), "leaving does not restore"
    assert keys == [vars(module).keys() - {"training"} for module in model.modules()], "something was left behind"


def check_default(model: nn.Module, inputs: dict[str, Any], spatial: list[Layer]) -> None:
    """Control that is not told which layers picks exactly these."""
    names = [layer.name for layer in spatial]
    with control(model, STRONG, layers=names):
        chosen = run(model, inputs)
    with control(model, STRONG) as handle:
        assert same(run(model, inputs), chosen)
    assert [row.layer for row in handle.summary() if row.calls] == names


def check_diagnosis(
    model: nn.Module, inputs: dict[str, Any], plain: list[Tensor], some: list[Layer], seen: list[Seen]
) -> None:
    """What is measured is what dense matrices give, and nothing is changed by it."""
    names = [layer.name for layer in some]
    with diagnose(model, layers=names, states="value", features=None, heads=True) as record:
        assert same(run(model, inputs), plain), "diagnosis changes the output"
    readings = {record.layers[reading.layer].name: reading.numbers for reading in record._readings()}
    assert readings.keys() == set(names)
    for name in names:
        wanted = torch.cat([measured(each) for each in seen if each.square and each.within({name})])
        got = readings[name][0, ..., : len(MEASURES)]
        torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


class Witness(Tap):
    """Keeps what the seam makes of a call."""

    def attend(self, call: Any, inner: Any) -> Tensor:
        self.v = call.v
        try:
            self.x = call.x()
        except ValueError:
            self.x = None
        return inner()


PROJECTIONS = ("to_v", "add_v_proj", "v_proj", "value", "v", "to_v_t", "to_value")
FUSED = ("qkv", "to_qkv", "to_qkv_mlp_proj", "img_attn_qkv", "txt_attn_qkv")


def check_inputs(model: nn.Module, inputs: dict[str, Any], some: list[Layer]) -> str:
    """The input features that are known are what the projections saw, in the order of the attention's tokens."""
    taps = [Witness(layer) for layer in some]
    with Session(model, taps):
        run(model, inputs)
    known = [tap for tap in taps if tap.x is not None]
    for tap in known:
        ways = list(made_values(tap))
        assert ways, f"{tap.layer.name}: its input is known, but which module makes its values is not"
        off = torch.stack([(way - tap.v).abs().amax((1, 3)) for way in ways]).amin(0)
        assert off.max() < 1e-5, f"{tap.layer.name}: its values are not made of its input"
    return "input" if len(known) == len(taps) else "input at some" if known else "values"


def made_values(tap: Witness) -> Iterator[Tensor]:
    """What each module of a layer that makes values makes of its input, in the shape of its values."""
    heads, width = tap.v.shape[1], tap.v.shape[-1]
    for name in (*PROJECTIONS, *FUSED):
        module = getattr(tap.layer.module, name, None)
        if not isinstance(module, nn.Linear) or tap.x is None or module.in_features != tap.x.shape[-1]:
            continue
        made = module(tap.x)
        if name in FUSED:  # queries, keys, values, and more
            made = made[..., 2 * heads * width : 3 * heads * width]
        made = made.unflatten(-1, (-1, width)).transpose(1, 2)
        yield made.repeat_interleave(heads // made.shape[1], 1)


def check_refusals(entry: Entry, model: nn.Module, inputs: dict[str, Any], refused: list[Layer]) -> None:
    """Each layer that cannot be controlled is an error that names it, and says why."""
    for layer in refused:
        reason = entry.refused.get(layer.name) or entry.refused[pattern(layer.name)]
        for attempt in (control(model, STRONG, layers=[layer.name]), diagnose(model, layers=[layer.name])):
            with pytest.raises((ValueError, RuntimeError), match=re.escape(reason)) as caught, attempt:
                run(model, inputs)
            assert layer.name in str(caught.value)
