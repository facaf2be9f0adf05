"""What attention becomes in a weak pass: identity, blurred queries, another circulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from symskew.algebra import accurate, share_heads
from symskew.circulate import Circulation, circulate
from symskew.grid import Grid, locate
from symskew.layers import Layer
from symskew.retrieval import vanilla
from symskew.seam import Call

Perturbation = Callable[[Call, Layer, list[Grid]], Tensor]
"""(call, its layer, the grids of the forward) → the perturbed attention, (batch, heads, tokens, value_dim)."""


def identity(call: Call, layer: Layer, grids: list[Grid]) -> Tensor:
    """Every token retrieves itself alone: the perturbation of perturbed attention guidance."""
    if call.streams[1]:
        raise ValueError(
            f"symskew: {layer.name} attends to text and image together, where identity attention is not defined; "
            "choose layers of the image alone with layers=."
        )
    return share_heads(call.v, call.q.shape[1])


@dataclass(frozen=True)
class Blur:
    """Queries blurred over the image by a Gaussian of width sigma, in tokens; inf: replaced by their mean (Hong 2024).

    The kernel has ⌈6 sigma⌉ taps, made odd, but no more than fit the grid's shorter side, and reflects at the borders:
    as the published code has it. Text tokens beside the image keep their queries.
    """

    sigma: float = math.inf

    def __call__(self, call: Call, layer: Layer, grids: list[Grid]) -> Tensor:
        """Attention of the blurred queries; ValueError where the layer's tokens are in no known place."""
        place, grid = locate(layer, call.q.shape[2], call.streams, grids)
        q = call.q.clone()
        q[:, :, place] = blurred(call.q[:, :, place], grid, self.sigma)
        return vanilla(q, call.k, call.v, call.mask, call.scale, call.causal)


@dataclass(frozen=True)
class Circulating:
    """Attention with its circulation changed; numbers for alpha and beta, since rows are those of one branch.

    Raises:
        ValueError: a circulation that cannot make a weak branch.
    """

    circulation: Circulation

    def __post_init__(self) -> None:
        circulation = self.circulation
        if not isinstance(circulation, Circulation):
            raise ValueError(f"symskew: for a weak branch, expected a Circulation, got {type(circulation).__name__}.")
        if any(isinstance(value, Tensor) for value in (circulation.alpha, circulation.beta)):
            raise ValueError("symskew: alpha and beta of a weak branch must be numbers, the same for every image.")
        if circulation.is_identity or circulation.beta == 0:
            raise ValueError("symskew: this circulation changes nothing, so there is nothing to guide away from.")
        if circulation.gate is not None:
            raise ValueError("symskew: a gate would leave some images without a weak branch; leave it out.")
        if circulation.branch is not None:
            raise ValueError(
                f"symskew: branch={circulation.branch!r} means nothing to a weak branch, which is one of its own and "
                "alone in its pass; leave branch out."
            )
        circulation.check_resolved()

    def __call__(self, call: Call, layer: Layer, grids: list[Grid]) -> Tensor:
        """The circulated attention."""
        circulation, tokens = self.circulation, call.q.shape[2]
        x = call.x() if circulation.needs_x else None
        image = locate(layer, tokens, call.streams, grids)[0] if circulation.tokens == "image" else None
        return circulate(
            call.q, call.k, call.v, circulation, x=x, mask=call.mask, scale=call.scale, causal=call.causal, image=image
        )


def blurred(queries: Tensor, grid: Grid, sigma: float) -> Tensor:
    """Queries (…, tokens, head_dim) on a grid (height, width), blurred as by `Blur`."""
    if math.isinf(sigma):
        return queries.mean(-2, keepdim=True).expand_as(queries)
    if len(grid) != 2:
        raise ValueError(f"symskew: queries are blurred over (height, width), got a grid {grid}; use sigma=inf.")
    size = math.ceil(6 * sigma)
    size += 1 - size % 2
    size = min(size, min(grid) - (min(grid) % 2 - 1))
    rows, columns = (_blur_matrix(side, size, sigma).to(queries.device) for side in grid)
    image = accurate(queries).unflatten(-2, grid)
    rows, columns = rows.to(image.dtype), columns.to(image.dtype)
    return torch.einsum("yi,xj,...ijd->...yxd", rows, columns, image).flatten(-3, -2).to(queries.dtype)


def _blur_matrix(side: int, size: int, sigma: float) -> Tensor:
    """(side, side), each row a Gaussian about its own place, of `size` taps, reflected at both ends."""
    taps = torch.exp(-0.5 * (torch.arange(size, dtype=torch.float64) - size // 2).div(sigma).square())
    unit = torch.eye(side, dtype=torch.float64)[:, None]
    padded = F.pad(unit, (size // 2, size // 2), mode="reflect")
    return F.conv1d(padded, (taps / taps.sum()).view(1, 1, -1))[:, 0].mT
