"""Two retrievals of one attention call, vanilla and circulated, without a tokens × tokens matrix in memory.

    vanilla     P  = softmax(scale · q kᵀ)
    circulated  P′ = softmax(scale · (c1 · q kᵀ + c2 · k qᵀ))        c1 = (sym + skew)/2, c2 = (sym − skew)/2

Two ways to the same result. `fused` hands attention on concatenated heads, [c1·q, c2·k] against [k, q], to the fastest
kernel the device has. `blocks` goes through the query tokens a block at a time and forms q kᵀ once for both: a third
fewer operations than the fused way and every sum in float32, but on an accelerator its blocks would travel through
main memory, so it serves the CPU, and the norms that need the probabilities themselves. `retrieve` is the vanilla
retrieval of anything else, of any width.

Where the image's tokens alone circulate, c1 is 1 and c2 is 0 but between two of them. For the image's queries that is
[q, c2·k] against [c1·k, q], with k and 0 in the place of the latter where a key is text; the other queries retrieve as
they always do, so both ways take fewer operations than over all tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from symskew.algebra import accurate, as_autocast, no_autocast, share_heads

BLOCK_BYTES = 2 << 20
"""About the size of one block of probabilities: the two at work stay in the caches of a processor core."""
BLOCK_ROWS = 256
"""Query rows of a block at most: enough for matrix products at full speed, and then more heads serve better."""


class Logits(NamedTuple):
    """What fixes both retrievals: q and k (batch, heads, tokens, head_dim), the rest broadcastable to that."""

    q: Tensor
    k: Tensor
    c1: Tensor
    c2: Tensor
    mask: Tensor | None
    scale: float
    causal: bool
    image: slice | None = None
    """The tokens whose logits among themselves are circulated; None for all."""


class Block(NamedTuple):
    """Probabilities of some query rows of some heads, heads counted through the samples (sample · heads + head)."""

    heads: slice
    rows: slice
    weights: list[Tensor]
    """P and P′, (heads, rows, tokens) each, or the one of the two that was asked for."""


def vanilla(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None, causal: bool = False
) -> Tensor:
    """Plain attention: bit-identical to what the model computes without symskew."""
    grouped = k.shape[1] != q.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped)


def retrieve(
    q: Tensor,
    k: Tensor,
    columns: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
    causal: bool = False,
) -> Tensor:
    """The vanilla retrieval softmax(scale · q kᵀ) columns, of any width, without a tokens × tokens matrix in memory.

    Args:
        q, k: as they enter the attention, (batch, heads, tokens, head_dim); k may have fewer heads.
        columns: what to retrieve, (batch, heads or 1, tokens, n); with 1, the same for every head.
        mask, scale, causal: as in torch's attention.

    Returns:
        (batch, heads, tokens, n), in float32 (float64 for float64 input). Fused kernels, which serve all but wide
        columns on a CPU, round it to the dtype of q.

    >>> q, k, x = torch.randn(2, 4, 64, 16), torch.randn(2, 4, 64, 16), torch.randn(2, 1, 64, 100)
    >>> torch.allclose(retrieve(q, k, x), torch.softmax(q @ k.mT / 4, -1) @ x, atol=1e-5)
    True
    """
    q, k = as_autocast(q, k)
    heads, width = q.shape[1], q.shape[-1]
    k = share_heads(k, heads)
    with no_autocast(q):
        if columns.shape[-1] <= width or fused_serves_best(q, k, columns):
            parts = columns.to(q.dtype).expand(-1, heads, -1, -1).split(width, -1)
            kept = (vanilla(q, k, _widen(part, width), mask, scale, causal)[..., : part.shape[-1]] for part in parts)
            return accurate(torch.cat(list(kept), -1))
        one, none = q.new_ones(()), q.new_zeros(())
        logits = Logits(q, k, one, none, mask, width**-0.5 if scale is None else scale, causal)
        columns = columns.to(accurate(q).dtype).contiguous()
        out = columns.new_empty(q.shape[0] * heads, q.shape[2], columns.shape[-1])
        for some, rows, (p,) in blocks(logits, circulated=False):
            out[some, rows] = product(p, columns, heads, some)
        return out.view(*q.shape[:3], -1)


def fused_serves_best(*tensors: Tensor) -> bool:
    """On an accelerator, and everywhere under autograd and the compiler."""
    return tensors[0].device.type != "cpu" or differentiable(*tensors) or torch.compiler.is_compiling()


def differentiable(*tensors: Tensor) -> bool:
    """Whether autograd follows what is made of these, so that no memory of theirs may serve twice."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def fused(logits: Logits, v: Tensor, *, plain: bool = True) -> list[Tensor]:
    """Retrieve v by fused kernels on concatenated heads: the vanilla retrieval, if `plain`, and the circulated one.

    In the dtype of q, but on a CPU in float32 at least, as the blocks are: half precision would round both before the
    blend multiplies their difference.
    """
    q, k, c1, c2, mask, scale, causal, image = logits
    if q.device.type == "cpu":
        q, k = accurate(q), accurate(k)
        mask = mask if mask is None or mask.dtype == torch.bool else mask.to(q.dtype)
    v = v.to(q.dtype)
    width = v.shape[-1]
    if image is None:
        both_q, both_k = torch.cat([c1 * q, c2 * k], -1), torch.cat([k, q], -1)
    else:
        here = _within(image, q)[:, None]
        both_q = torch.cat([q, c2 * k], -1)[:, :, image]
        both_k = torch.cat([torch.where(here, c1, 1.0) * k, q.masked_fill(~here, 0)], -1)

    def retrieved(q: Tensor, k: Tensor, rows: slice | None = None) -> Tensor:
        # Flash kernels want one size for queries, keys and values; zeros in spare columns cost less than a slow kernel.
        wide = max(q.shape[-1], width)
        q, k = _widen(q.to(v.dtype), wide), _widen(k.to(v.dtype), wide)
        return vanilla(q, k, _widen(v, wide), _rows_of(mask, rows), scale, causal)[..., :width]

    circulated = retrieved(both_q, both_k, image)
    if image is None:
        return [retrieved(q, k), circulated] if plain else [circulated]
    out = [retrieved(q, k)] if plain else []
    text = (slice(0, image.start), slice(image.stop, q.shape[2]))
    before, after = (
        [out[0][:, :, some] if plain else retrieved(q[:, :, some], k, some)] if some.stop > some.start else []
        for some in text
    )
    return [*out, torch.cat([*before, circulated, *after], 2)]


def product(weights: Tensor, columns: Tensor, heads: int, some: slice) -> Tensor:
    """Probabilities (some, rows, tokens) of a block times columns (batch, `heads` or 1, tokens, n), contiguous."""
    if columns.shape[1] == heads:
        return torch.bmm(weights, columns.flatten(0, 1)[some])
    samples = columns[some.start // heads : (some.stop - 1) // heads + 1, 0]
    weights_of = weights.reshape(len(samples), -1, weights.shape[-1])
    # A single matrix product is shared out among the threads, a batch of one is not.
    retrieved = weights_of[0] @ samples[0] if len(samples) == 1 else weights_of @ samples
    return retrieved.view(*weights.shape[:2], -1)


def blocks(
    logits: Logits, *, plain: bool = True, circulated: bool = True, larger: bool = False, reuse: bool = True
) -> Iterator[Block]:
    """Yield P and P′, in float32 at least, a few heads and rows at a time.

    The heads of a block are some of one sample or all of several.

    Args:
        plain, circulated: whether P and P′ are wanted.
        larger: blocks of four times the size, for a consumer that reads much else for every block.
        reuse: a block's memory serves the next block too, so take from it what is needed before going on. Without, the
            blocks stay good, as autograd needs them, and together are as large as the matrix they are parts of.
    """
    batch, heads, tokens, _ = logits.q.shape
    q, k = accurate(logits.q).flatten(0, 1), accurate(logits.k).flatten(0, 1)
    c1, c2 = (c.to(q.dtype).expand(batch, heads, 1, 1).flatten(0, 1) for c in (logits.c1, logits.c2))
    size = BLOCK_BYTES * 4 if larger else BLOCK_BYTES
    rows = max(1, min(tokens, BLOCK_ROWS, 2 * size // (tokens * q.element_size())))
    # Products of several heads are shared out among the threads, those of one are not: a block for each thread.
    threads = 1 if torch.compiler.is_compiling() else torch.get_num_threads()
    group = max(1, size // (rows * tokens * q.element_size())) * threads
    span = heads * max(1, min(group // heads, batch))
    group = min(group, span)
    store = q.new_empty(2, group * rows * tokens) if reuse else None
    for first in range(0, batch * heads, span):
        last = min(first + span, batch * heads)
        for some in (slice(head, min(head + group, last)) for head in range(first, last, group)):
            queries, turned = q[some] * logits.scale, k[some] * (c2[some] * logits.scale)
            keys, others, factor = k[some].contiguous(), q[some].contiguous(), c1[some]
            if logits.image is not None:
                here = _within(logits.image, q)
                others, factor = others.masked_fill(~here[:, None], 0), torch.where(here, factor, 1.0)
            for block, circulates in _row_blocks(tokens, rows, logits.image):
                shape = (some.stop - some.start, block.stop - block.start, tokens)
                direct, p = (None, None) if store is None else (part[: _size(shape)].view(shape) for part in store)
                direct = torch.bmm(queries[:, block], keys.mT, out=direct)
                wanted = [direct] if plain or not circulates else []
                if circulated and circulates:
                    p = torch.bmm(turned[:, block], others.mT, out=p)
                    wanted.append(torch.addcmul(p, direct, factor, out=None if store is None else p))
                hide = _hidden(logits, some, block)
                weights = [_softmax(part, hide, reuse) for part in wanted]
                yield Block(some, block, weights if circulates else weights * (plain + circulated))


def _row_blocks(tokens: int, rows: int, image: slice | None) -> Iterator[tuple[slice, bool]]:
    """Blocks of query rows, and whether they circulate; none is on both sides of the image's border."""
    parts = [(0, tokens)] if image is None else [(0, image.start), (image.start, image.stop), (image.stop, tokens)]
    for number, (first, last) in enumerate(parts):
        for row in range(first, last, rows):
            yield slice(row, min(row + rows, last)), image is None or number == 1


def _within(image: slice, q: Tensor) -> Tensor:
    """Which tokens of q (…, tokens, head_dim) are the image's, (tokens)."""
    place = torch.arange(q.shape[-2], device=q.device)
    return (place >= image.start) & (place < image.stop)


def _rows_of(mask: Tensor | None, rows: slice | None) -> Tensor | None:
    """The part of a mask that some queries see."""
    if mask is None or rows is None or mask.ndim < 2 or mask.shape[-2] == 1:
        return mask
    return mask[..., rows, :]


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _widen(tensor: Tensor, width: int) -> Tensor:
    return F.pad(tensor, (0, width - tensor.shape[-1])) if tensor.shape[-1] < width else tensor


def _hidden(logits: Logits, some: slice, block: slice) -> Tensor | None:
    """What is added to (or, boolean, removed from) one block of logits."""
    batch, heads, tokens, _ = logits.q.shape
    if logits.causal:
        columns = torch.arange(tokens, device=logits.q.device)
        return columns > columns[block, None]
    if logits.mask is None:
        return None
    mask = logits.mask[(None,) * (4 - logits.mask.ndim)]
    part = mask if mask.shape[2] == 1 else mask[:, :, block]
    index = torch.arange(some.start, some.stop, device=mask.device)
    part = part.expand(batch, heads, -1, -1)[index // heads, index % heads]
    return ~part if part.dtype == torch.bool else part


def _softmax(logits: Tensor, hide: Tensor | None, reuse: bool) -> Tensor:
    """Softmax over the last dimension; a row with every key hidden retrieves nothing, as in torch's own attention."""
    out = logits if reuse else None
    if hide is None:
        return torch.softmax(logits, -1, out=out)
    logits = logits.masked_fill(hide, -torch.inf) if hide.dtype == torch.bool else logits + hide
    empty = logits.amax(-1, keepdim=True) == -torch.inf
    return torch.softmax(logits, -1, out=out).masked_fill(empty, 0)
