"""What must come of control and diagnosis: the equations written out, in the place of torch's attention.

The whole pipeline runs once with dense attention, whatever it is combined with. Plain hooks say which module is
running; nothing here comes from symskew but the settings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dense
from combinations.case import ACTS, MEASURES, REFUSED, Case, Live
from symskew import Circulation, control, diagnose

STRONG = Circulation(1.3, 3)


class Attention(NamedTuple):
    """One self-attention: in which forward of the denoiser, of which layer, and the symmetry of each row."""

    forward: int
    layer: str
    symmetry: Tensor


@contextmanager
def replaced(model: nn.Module, pattern: str, settings: Any) -> Iterator[list[Attention]]:
    """Dense attention in the layers of this pattern, by Algorithm 2 with these settings; None: seen, and left alone."""
    torchs, running, seen = F.scaled_dot_product_attention, [], []
    forwards = [-1]

    def attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        # The first that is square: an IP-Adapter attends to its tokens after that.
        if not running or running[-1] is None or query.shape[2] != key.shape[2]:
            return torchs(query, key, value, attn_mask, *args, **kwargs)
        layer, running[-1] = running[-1], None
        seen.append(Attention(forwards[0], layer, dense.symmetry(query.double(), key.double()).mean(1)))
        if settings is None:
            return torchs(query, key, value, attn_mask, *args, **kwargs)
        out = dense.algorithm2(
            query, key, value, alpha=settings.alpha, beta=settings.beta, mask=attn_mask, scale=kwargs.get("scale")
        )
        return out.to(query.dtype)

    def begin(*_: Any) -> None:
        forwards[0] += 1

    names = [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]
    hooks = [model.register_forward_pre_hook(begin)]
    for name in names:
        module = model.get_submodule(name)
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: running.append(name)))
        hooks.append(module.register_forward_hook(lambda *_: running.pop() and None))
    F.scaled_dot_product_attention = attend
    try:
        yield seen
    finally:
        F.scaled_dot_product_attention = torchs
        for hook in hooks:
            hook.remove()


def check(live: Live, case: Case) -> None:
    """Controlled images are those of the equations; diagnosed ones stay as they are, and so do those after both."""
    run = live.reference or live.run
    with replaced(live.denoiser, live.layers, None) as seen:
        plain = run()
    if case.control != REFUSED:
        with replaced(live.denoiser, live.layers, STRONG):
            wanted = run()
        with control(live.pipe, STRONG) as handle:
            got = live.run()
        effect = (wanted - plain).norm()
        assert effect > 1e-3 * plain.norm()
        assert (got - wanted).norm() <= live.tolerance * effect
        assert live.backend in ("", *{row.backend for row in handle.summary()})
        calls = {row.layer: row.calls for row in handle.summary()}
        assert calls == dict.fromkeys(calls, 0) | Counter(attention.layer for attention in seen)
        assert (case.control == ACTS) == _whole(live, seen)
    if case.diagnosis != REFUSED:
        with diagnose(live.pipe) as record:
            got = live.run()
        check_record(live, record, seen)
        assert (case.diagnosis == MEASURES) == _whole(live, seen)
        if live.reference is None:
            assert torch.equal(got, plain)
    for refused, attach in (
        (case.control, lambda: control(live.pipe, STRONG)),
        (case.diagnosis, lambda: diagnose(live.pipe)),
    ):
        if refused == REFUSED:
            with pytest.raises((RuntimeError, ValueError, TypeError), match=case.refusal), attach():
                live.run()
            assert torch.equal(live.run(), plain)


def check_record(live: Live, record: Any, seen: list[Attention]) -> None:
    """Every row of the table is of its layer, step, branch and sample: its symmetry is that of the equations."""
    table = record.to_pandas()
    places = zip(table.generation, table.layer, table.step, table.branch, table["sample"], strict=True)
    found = dict(zip(places, table.symmetry, strict=True))
    assert len(found) == len(table)
    wanted = {}
    for attention in seen:
        generation, step, branches = live.when(attention.forward)
        if len(attention.symmetry) < live.samples * len(branches):
            branches = tuple(name for name in branches if name != live.spared)
        rows = [(branch, sample) for branch in branches for sample in range(live.samples)]
        for (branch, sample), value in zip(rows, attention.symmetry.tolist(), strict=True):
            wanted[generation, attention.layer, step, branch, sample] = value
    assert found.keys() == wanted.keys()
    assert max(abs(found[place] - value) for place, value in wanted.items()) < live.tolerance


def _whole(live: Live, seen: list[Attention]) -> bool:
    """Whether every layer attended in every forward, for all who were to be generated."""
    if live.spared == "unconditional" and any(
        len(a.symmetry) < live.samples * len(live.when(a.forward)[2]) for a in seen
    ):
        return False
    layers = {attention.layer for attention in seen}
    # A pass that guidance leads away from may well lack a layer.
    forwards = range(len(live.plan) * live.generations)
    whole = {n for n in forwards if live.when(n)[2] != ("perturbed",)}
    return len({(a.forward, a.layer) for a in seen if a.forward in whole}) == len(layers) * len(whole)
