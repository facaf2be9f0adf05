"""What should come out of a tiny model: whole matrices in float64, put in the place of torch's attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

import dense
from symskew import Circulation
from symskew.algebra import hidden_tokens
from zoo.witness import Answer, Seen

STRONG = Circulation(1.4, 3)
MEASURES = ("energy", "instability", "alignment", "symmetry")


@torch.no_grad()
def run(model: nn.Module, inputs: dict[str, Any]) -> list[Tensor]:
    """All tensors that one forward gives."""
    torch.manual_seed(0)
    return list(_tensors(model(**inputs)))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def same(some: list[Tensor], others: list[Tensor]) -> bool:
    """Whether two results are the same bit for bit."""
    return len(some) == len(others) > 0 and all(map(torch.equal, some, others))


def distance(some: list[Tensor], others: list[Tensor]) -> float:
    """The largest difference of two results."""
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(some, others, strict=True) if a.numel())


def algorithm_2(names: set[str], settings: Circulation) -> Answer:
    """Algorithm 2 for every self-attention within the modules of these names."""

    def answer(each: Seen) -> Tensor | None:
        if not each.square or not each.within(names):
            return None
        q, k, v = (each.arguments[name] for name in ("query", "key", "value"))
        how: dict[str, Any] = {"alpha": settings.alpha, "beta": settings.beta, "norm": settings.norm}
        return dense.algorithm2(q, k, v, mask=each.mask, scale=each.arguments.get("scale"), **how).to(q.dtype)

    return answer


def nothing(each: Seen) -> Tensor:
    """Zeros in the place of an attention, so that no token learns of another."""
    q, v = each.arguments["query"], each.arguments["value"]
    return q.new_zeros(*q.shape[:-1], v.shape[-1])


def retrieved(each: Seen) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and retrieved values in float64, as many heads of each."""
    q, k, v = (each.arguments[name].double() for name in ("query", "key", "value"))
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    scale = each.arguments.get("scale")
    return q, k, dense.probabilities(q, k, 1, 1, q.shape[-1] ** -0.5 if scale is None else scale, each.mask) @ v


def visible(each: Seen) -> Tensor:
    """(batch, tokens): whether any query sees the token."""
    q, mask = each.arguments["query"], each.mask
    hidden = None if mask is None else hidden_tokens(mask[(None,) * (4 - mask.ndim)])
    seen = torch.ones(q.shape[0], 1, q.shape[2], 1) if hidden is None else (~hidden).expand(q.shape[0], -1, -1, -1)
    return seen[:, 0, :, 0].bool()


def measured(each: Seen) -> Tensor:
    """`MEASURES` of one attention, (batch, heads, measures), of the tokens that any query sees."""
    rows = []
    for sample, keep in enumerate(visible(each)):
        q, k, states = (t[sample : sample + 1, :, keep] for t in retrieved(each))
        found = dense.stability(q, k, states)
        rows.append(torch.stack([*(found[name].mean(-1) for name in MEASURES[:3]), dense.symmetry(q, k)], -1))
    return torch.cat(rows)


def agreement(each: Seen) -> Tensor:
    """λ of every token, averaged over heads and features, (batch, tokens)."""
    return dense.stability(*retrieved(each))["agreement"].mean((1, 3))
