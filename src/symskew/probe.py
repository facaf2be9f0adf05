"""The tap that measures a layer's retrieval, and leaves it as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from symskew.algebra import hidden_tokens, share_heads, symmetry_index
from symskew.circulate import circulated
from symskew.grid import Grid, locate
from symskew.layers import PROJECTIONS, Layer
from symskew.reading import STATES
from symskew.retrieval import retrieve
from symskew.seam import Call
from symskew.stability import stability
from symskew.vigilance import Sentry

AT_ONCE = 1 << 23
"""Numbers of retrieved states in memory at once: as many heads (or else samples) as that makes, and at least one."""


class Lens(NamedTuple):
    """What to look at, and how closely."""

    features: int | None
    """How many features to measure, a random subset; None for all."""
    states: str | None
    """Which of `STATES`; None for input features where they are known, values elsewhere."""
    maps: bool
    seed: int


class Seen(NamedTuple):
    """What one call gave, on its device; as in a record's `Reading`."""

    states: int
    given: int
    numbers: Tensor
    maps: Tensor | None
    grid: Grid | None

    def followed(self, other: Seen) -> Seen:
        """With further rows of the batch."""
        maps = None if self.maps is None or other.maps is None else torch.cat([self.maps, other.maps], 1)
        return self._replace(numbers=torch.cat([self.numbers, other.numbers], 1), maps=maps)


class Probe(Sentry):
    """Measures the attention of one layer, controlled or not, and hands on exactly what it was given."""

    rank = 1

    def __init__(self, layer: Layer, lens: Lens) -> None:
        super().__init__(layer)
        self.lens = lens
        self.grids: list[Grid] = []
        """Those of the forward that runs, where maps are wanted."""
        self.latest: Seen | None = None
        # Drawn now, since compiled code cannot draw.
        self._subsets = {width: self._draw(width) for width in _widths(layer)}

    def attend(self, call: Call, inner: Callable[[], Tensor]) -> Tensor:
        """The attention as it is without this tap."""
        out = inner()
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() >= 0:
            return out  # checkpointing: a backward runs the layer once more
        self.acted = True
        with torch.no_grad():
            seen = self._look(call, out)
        self.latest = seen if self.latest is None or not call.first else self.latest.followed(seen)
        return out

    def collect(self) -> None:
        """Take stock, and let go of what was measured."""
        super().collect()
        self.latest = None

    def _look(self, call: Call, out: Tensor) -> Seen:
        x = self._input(call)
        q, k, v = call.q, share_heads(call.k, call.q.shape[1]), share_heads(call.v, call.q.shape[1])
        mask = None if call.mask is None else call.mask[(None,) * (4 - call.mask.ndim)]
        vanilla, made = out, call.circulated
        if made is not None and x is None:
            vanilla = call.vanilla() if made.vanilla is None else made.vanilla
        width = (out if x is None else x).shape[-1]
        group = max(1, AT_ONCE // (q.shape[0] * q.shape[2] * width))
        found = []
        for heads in (slice(first, first + group) for first in range(0, q.shape[1], group)):
            part = Part(q[:, heads], k[:, heads], v[:, heads], None if mask is None else _of(mask, heads))
            if x is not None:
                states = self._retrieve(call, part, heads, x)
            else:
                states = [self._columns(each[:, heads]) for each in ([vanilla, out] if made is not None else [out])]
            found.append([_measure(part, each, self.lens.maps) for each in states])
        numbers = torch.stack([torch.cat([each[0] for each in some], 1) for some in zip(*found, strict=True)])
        numbers = torch.cat([numbers, _settings(call, numbers)], -1)
        maps, grid = None, None
        if self.lens.maps:
            place, grid = locate(self.layer, q.shape[2], call.streams, self.grids)
            sums = [torch.stack([each[1] for each in some]).sum(0) for some in zip(*found, strict=True)]
            maps = torch.stack(sums)[..., place] / q.shape[1]
            if len(grid) == 1 and (hidden := hidden_tokens(mask)) is not None:
                maps = maps.masked_fill(hidden.all(1).mT, torch.nan)
        return Seen(STATES.index("value" if x is None else "input"), call.given, numbers, maps, grid)

    def _retrieve(self, call: Call, part: Part, heads: slice, x: Tensor) -> list[Tensor]:
        """Retrieved input features of some heads: vanilla, and controlled if there is a control."""
        found, made = [], call.circulated
        for rows, circulation in call.pieces():
            q, k, v, columns = (each[rows] for each in (part.q, part.k, part.v, x[:, None]))
            mask = part.mask if part.mask is None or part.mask.shape[0] == 1 else part.mask[rows]
            if made is None or circulation is None:
                plain = retrieve(q, k, columns, mask, call.scale, call.causal)
                found.append((plain, plain))
                continue
            alpha, beta = (each if each.shape[0] == 1 else each[rows] for each in (made.alpha, made.beta))
            both = circulated(
                q, k, v, circulation, x=call.x()[rows] if circulation.needs_x else None, mask=mask, scale=call.scale,
                causal=call.causal, image=call.image if circulation.tokens == "image" else None, carry=columns,
                acting=(_of(alpha, heads), _of(beta, heads), None if made.open is None else made.open[rows]),
            )  # fmt: skip
            plain, other = both.carried or (None, None)
            found.append((plain, plain if other is None else other))
        vanilla, controlled = (each[0] if len(each) == 1 else torch.cat(each) for each in zip(*found, strict=True))
        return [vanilla] if made is None else [vanilla, controlled]

    def _input(self, call: Call) -> Tensor | None:
        """The input features to measure, (batch, tokens, features); None for values."""
        if self.lens.states == "value":
            return None
        try:
            return self._columns(call.x())
        except ValueError:
            if self.lens.states == "input":
                raise
            return None

    def _columns(self, states: Tensor) -> Tensor:
        width = states.shape[-1]
        if self.lens.features is None or self.lens.features >= width:
            return states
        if width not in self._subsets:
            self._subsets[width] = self._draw(width)
        if self._subsets[width].device != states.device:
            self._subsets[width] = self._subsets[width].to(states.device)
        return states.index_select(-1, self._subsets[width])

    def _draw(self, width: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.lens.seed)
        return torch.randperm(width, generator=generator)[: self.lens.features].sort().values


class Part(NamedTuple):
    """Some heads of a call."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None


def _measure(part: Part, states: Tensor, maps: bool) -> tuple[Tensor, Tensor | None]:
    """(batch, heads, 5), the first of `MEASURES`; and (batch, 2, tokens), `MAPS` summed over the heads."""
    found = stability(part.q, part.k, states, mask=part.mask, maps="mean" if maps else False)
    eta = symmetry_index(part.q, part.k, mask=part.mask)
    ratio = ((1 - eta) / (1 + eta).clamp_min(torch.finfo(eta.dtype).tiny)).sqrt()
    means = [measure.mean(-1) for measure in (found.energy, found.instability, found.alignment)]
    both = None
    if found.agreement_map is not None and found.conflict_map is not None:
        both = torch.stack([found.agreement_map.sum(1), found.conflict_map.sum(1)], 1)
    return torch.stack([*means, eta, ratio], -1), both


def _settings(call: Call, numbers: Tensor) -> Tensor:
    """The alpha and beta that acted, (retrievals, batch, heads, 2)."""
    out = numbers.new_ones(*numbers.shape[:-1], 2)
    if call.circulated is not None:
        out[-1, ..., 0], out[-1, ..., 1] = call.circulated.alpha, call.circulated.beta
    return out


def _of(tensor: Tensor, heads: slice) -> Tensor:
    """Some heads, dimension 1, of a tensor that may have one for all."""
    return tensor if tensor.shape[1] == 1 else tensor[:, heads]


def _widths(layer: Layer) -> set[int]:
    """The numbers of features that the states of a layer may have, as far as its projections tell."""
    widths = set()
    for names in PROJECTIONS:
        for name in names[:3]:
            projection = getattr(layer.module, name, None)
            inputs, outputs = (getattr(projection, f"{side}_features", None) for side in ("in", "out"))
            widths |= {inputs} - {None}
            if outputs and layer.heads:
                widths.add(outputs // layer.heads)
    return {width for width in widths if isinstance(width, int)}
