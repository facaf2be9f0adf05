"""The attention operator whose circulation is controlled: scale, blend, rescale, adapt (Algorithm 2), gate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from symskew.algebra import accurate, as_autocast, check_self_attention, no_autocast, share_heads
from symskew.circulation import Circulation
from symskew.matching import InputNorm, Norms, SketchNorm, blend, norms_of
from symskew.retrieval import Logits, blocks, differentiable, fused, fused_serves_best, product, retrieve, vanilla

__all__ = ["Circulated", "Circulation", "circulate", "circulated"]


class Circulated(NamedTuple):
    """What one controlled self-attention came to, and what was found on the way."""

    out: Float[Tensor, "batch heads tokens value_dim"]
    """The retrieved values, as `circulate` returns them."""
    vanilla: Float[Tensor, "batch heads tokens value_dim"] | None
    """The vanilla retrieval of the values, in their dtype; None where it was not needed, or where it is `out`."""
    alpha: Float[Tensor, "#batch #heads"]
    """The alpha that acted, after adaptation; 1 under the identity and behind a closed gate."""
    beta: Float[Tensor, "#batch #heads"]
    """The beta that acted, after adaptation; 1 under the identity and behind a closed gate."""
    carried: tuple[Tensor, Tensor | None] | None
    """What was carried, retrieved as the vanilla values and as `out` were: (batch, heads, tokens, n) each, in float32
    (float64 for float64 input). The second is None under the identity, where both are the same."""
    open: Bool[Tensor, "batch 1"] | None = None
    """On which samples the gate let the control act; None without a gate."""


def circulate(
    q: Float[Tensor, "batch heads tokens head_dim"],
    k: Float[Tensor, "batch kv_heads tokens head_dim"],
    v: Float[Tensor, "batch kv_heads tokens value_dim"],
    circulation: Circulation,
    *,
    x: Float[Tensor, "batch tokens features"] | None = None,
    mask: Tensor | None = None,
    scale: float | None = None,
    causal: bool = False,
    image: slice | None = None,
) -> Float[Tensor, "batch heads tokens value_dim"]:
    """Self-attention with its circulation controlled: Algorithm 2, Eqs. 31 to 34 and 36 to 42.

    The decomposition is of q kᵀ as it enters the softmax (Eq. 18), so biases, QK-norm, rotary embeddings, joint text
    and image tokens and grouped queries need no special care. No tokens × tokens matrix is ever in memory, nor anything
    of the size batch × heads × tokens × features; gradients through the exact norm alone need, and keep, the former.

    Differs from the published code, which decomposes the weights (Eq. 19) and so serves layers without bias, norm or
    rotary embedding only; on those the two agree, to rounding, with `space="input"`.

    Args:
        q, k, v: as they enter the attention; k and v may have fewer heads (grouped queries).
        circulation: the settings; the identity gives torch's own attention, bit for bit.
        x: the features that were projected to q, k and v, needed where `circulation.needs_x`.
        mask: as `attn_mask` of torch's attention: boolean (True takes part) or additive.
        scale: of the logits; 1/√head_dim by default.
        causal: hide later tokens, as `is_causal` of torch's attention.
        image: which tokens are the image's, where `circulation.tokens` is "image". With Π the projection onto them, the
            parts that are scaled are those of Π M Π, M − Π M Π is left as it is, and η (adaptive) is that of Π M Π.

    Returns:
        The retrieved values, in v's dtype. Sums and the blend are in float32 (float64 for float64 input), so on a CPU
        half precision costs no more than the rounding of the result. On an accelerator the two retrievals come from
        fused kernels in the dtype of q, and the blend makes their rounding √(β² + (β − 1)²) times larger.

    Raises:
        ValueError: shapes that are not those of one self-attention call, x or image missing, settings that change
            along the way (see `Circulation.at`), or a gate for several layers.

    >>> q, k, v = torch.randn(3, 2, 4, 64, 16)
    >>> circulate(q, k, v, Circulation(1.1, 4)).shape
    torch.Size([2, 4, 64, 16])
    >>> torch.equal(circulate(q, k, v, Circulation()), torch.nn.functional.scaled_dot_product_attention(q, k, v))
    True
    """
    return circulated(q, k, v, circulation, x=x, mask=mask, scale=scale, causal=causal, image=image).out


def circulated(
    q: Float[Tensor, "batch heads tokens head_dim"],
    k: Float[Tensor, "batch kv_heads tokens head_dim"],
    v: Float[Tensor, "batch kv_heads tokens value_dim"],
    circulation: Circulation,
    *,
    x: Float[Tensor, "batch tokens features"] | None = None,
    mask: Tensor | None = None,
    scale: float | None = None,
    causal: bool = False,
    image: slice | None = None,
    carry: Float[Tensor, "batch #heads tokens columns"] | None = None,
    acting: tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor | None] | None = None,
) -> Circulated:
    """`circulate`, with what it found on the way, and with further columns carried along to be measured.

    Columns c that are carried see what the values see (Eqs. 33, 34, Algorithm 2): with P and P_α the vanilla and the
    circulated weights, and r the factor that matches norms, which is taken from the values or from x, never from c,

        vanilla     P c                    circulated     r ⊙ (P c + beta · (P_α c − P c))

    Args:
        q, k, v, circulation, x, mask, scale, causal, image: as for `circulate`, whose result has nothing of the rest.
        carry: the columns, per head or, with size 1 in the head dimension, the same for every head. With them the
            vanilla retrieval is found even where `circulation.replaces`.
        acting: the alpha and beta of an earlier call, and where its gate was open, to act as they are: for some of its
            heads, say, which by themselves would adapt and decide otherwise. No gate is asked again.

    Raises:
        ValueError: as `circulate`; or the carried columns do not belong to the call.

    >>> q, k, v = torch.randn(3, 2, 4, 64, 16)
    >>> found = circulated(q, k, v, Circulation(1.1, 4), carry=torch.ones(2, 1, 64, 1))
    >>> found.alpha, found.beta
    (tensor([[1.1000]]), tensor([[4.]]))
    >>> [tuple(columns.shape) for columns in found.carried]
    [(2, 4, 64, 1), (2, 4, 64, 1)]
    """
    q, k, v = as_autocast(q, k, v)
    check_self_attention("circulate", q, k, v)
    want = tuple(q.shape[:3])
    if carry is not None and not (
        carry.ndim == 4 and carry.shape[1] in (1, want[1]) and carry.shape[:3:2] == want[::2]
    ):
        raise ValueError(
            f"circulate: carry must be (batch, heads or 1, tokens, columns) = ({want[0]}, {want[1]} or 1, {want[2]}, "
            f"…), got {tuple(carry.shape)}"
        )
    if circulation.is_identity:
        one = torch.ones((1, 1), dtype=torch.promote_types(q.dtype, torch.float32), device=q.device)
        carried = None if carry is None else (retrieve(q, k, carry, mask, scale, causal), None)
        return Circulated(vanilla(q, k, v, mask, scale, causal), None, one, one, carried)
    if causal and mask is not None:
        raise ValueError("circulate: give a mask or causal=True, not both; fold the causal part into the mask")
    if mask is not None and not _fits(mask, (*want, want[2])):
        raise ValueError(
            f"circulate: the mask must be broadcastable to (batch, heads, tokens, tokens) "
            f"{(*want, want[2])}, got {tuple(mask.shape)}"
        )
    circulation.check_resolved()
    image = _image(circulation, image, want[2], causal)
    with no_autocast(q):
        return _circulated(q, k, v, circulation, x, mask, scale, causal, image, carry, acting)


def _circulated(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    circulation: Circulation,
    x: Tensor | None,
    mask: Tensor | None,
    scale: float | None,
    causal: bool,
    image: slice | None,
    carry: Tensor | None,
    acting: tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor | None] | None,
) -> Circulated:
    k, v = share_heads(k, q.shape[1]), share_heads(v, q.shape[1])
    if acting is not None:
        settings = acting[:2]
    elif image is None:
        settings = circulation.effective(q, k, mask)
    else:
        part = mask if mask is None or mask.shape[-1] == 1 else mask[..., image]
        settings = circulation.effective(q[:, :, image], k[:, :, image], part)
    alpha, beta = (value[..., None, None] for value in settings)
    c1, c2 = (circulation.sym + alpha) / 2, (circulation.sym - alpha) / 2
    logits = Logits(q, k, c1, c2, mask, q.shape[-1] ** -0.5 if scale is None else scale, causal, image)
    norms = norms_of(circulation, x, q, v)
    tensors = [tensor for tensor in (v, q, k, alpha, beta, x, carry) if tensor is not None]
    if isinstance(norms, InputNorm) or not fused_serves_best(*tensors):
        reuse = not differentiable(*tensors)
        out, plain, carried = _by_blocks(logits, v, beta, circulation, norms, carry, reuse)
    else:
        out, plain, carried = _by_kernels(logits, v, beta, circulation, norms, carry)
    found = Circulated(out.to(v.dtype), None if plain is None else plain.to(v.dtype), *settings, carried)
    is_open = None
    if acting is not None:
        is_open = acting[2] if len(acting) == 3 else None
    elif circulation.gate is not None and found.vanilla is not None:
        is_open = circulation.gate.opens(q, k, found.vanilla, mask)
    return found if is_open is None else _gated(found, is_open)


def _gated(found: Circulated, is_open: Tensor) -> Circulated:
    """What was found, on samples where the gate is open; the vanilla retrieval on the others."""
    assert found.vanilla is not None
    wide = is_open[..., None, None]
    carried = found.carried
    if carried is not None and carried[1] is not None:
        carried = carried[0], torch.where(wide, carried[1], carried[0])
    out = torch.where(wide, found.out, found.vanilla)
    alpha, beta = (torch.where(is_open, value, 1.0) for value in (found.alpha, found.beta))
    return Circulated(out, found.vanilla, alpha, beta, carried, is_open)


def _image(circulation: Circulation, image: slice | None, tokens: int, causal: bool) -> slice | None:
    """The tokens that circulate among themselves; None where all do."""
    if circulation.tokens == "all":
        if image is not None:
            raise ValueError('circulate: image= without Circulation(tokens="image") would do nothing; leave it out')
        return None
    if image is None or image.step not in (None, 1) or causal:
        raise ValueError(
            'circulate: tokens="image" needs to know which tokens of an attention that is not causal are the image\'s, '
            f"as in image=slice(0, 1024); got {image}{' and causal=True' if causal else ''}"
        )
    first, last, _ = image.indices(tokens)
    if first >= last:
        raise ValueError(f"circulate: image={image} has none of the {tokens} tokens")
    return None if (first, last) == (0, tokens) else slice(first, last)


def _fits(mask: Tensor, shape: tuple[int, ...]) -> bool:
    short = (1,) * (4 - mask.ndim) + tuple(mask.shape)
    return len(short) == 4 and all(have in (1, want) for have, want in zip(short, shape, strict=True))


Found = tuple[Tensor, Tensor | None, tuple[Tensor, Tensor] | None]
"""The controlled retrieval, the vanilla one where it was needed, and what was carried."""


def _by_kernels(
    logits: Logits, v: Tensor, beta: Tensor, circulation: Circulation, norms: Norms | None, carry: Tensor | None
) -> Found:
    """Retrieve by fused kernels, then blend and rescale."""
    heads, width = v.shape[1], v.shape[-1]
    values = torch.cat([accurate(v), norms.columns], -1) if isinstance(norms, SketchNorm) else v
    retrieved = fused(logits, values, plain=not circulation.replaces or carry is not None)
    if len(retrieved) == 1:
        return retrieved[0], None, None
    plain, circulated = map(accurate, retrieved)
    blended, ratio = blend(plain, circulated, beta, circulation, norms)
    carried = None
    if carry is not None:
        # No wider than the values have room: one kernel serves both.
        parts = carry.expand(-1, heads, -1, -1).split(max(2 * logits.q.shape[-1], width), -1)
        pairs = [fused(logits, part) for part in parts]
        first, second = (accurate(torch.cat(some, -1)) for some in zip(*pairs, strict=True))
        carried = first, torch.lerp(first, second, beta) * ratio
    return blended[..., :width] * ratio, plain[..., :width], carried


def _by_blocks(
    logits: Logits,
    v: Tensor,
    beta: Tensor,
    circulation: Circulation,
    norms: Norms | None,
    carry: Tensor | None,
    reuse: bool,
) -> Found:
    """Retrieve, blend and rescale a block at a time, while its numbers are in the cache."""
    batch, heads, tokens, width = v.shape
    both = not circulation.replaces or carry is not None
    values = accurate(v)
    if isinstance(norms, SketchNorm):
        values = torch.cat([values, norms.columns], -1)
    values = values.flatten(0, 1).contiguous()
    beta = beta.to(values.dtype).expand(batch, heads, 1, 1).flatten(0, 1)
    out = values.new_empty(batch * heads, tokens, width)
    kept = torch.empty_like(out) if both else None
    columns = None if carry is None else carry.to(values.dtype).contiguous()
    carried = [] if columns is None else [out.new_empty(*out.shape[:2], columns.shape[-1]) for _ in range(2)]
    # The features are read whole for every block: larger blocks read them less often.
    for some, rows, weights in blocks(logits, plain=both, larger=isinstance(norms, InputNorm), reuse=reuse):
        retrieved = [torch.bmm(p, values[some]) for p in weights]
        if kept is None:
            out[some, rows] = retrieved[0]
            continue
        plain, circulated = retrieved
        blended, ratio = blend(plain, circulated, beta[some], circulation, norms, (weights, some))
        out[some, rows] = blended[..., :width] * ratio
        kept[some, rows] = plain[..., :width]
        if columns is not None:
            plain, circulated = (product(p, columns, heads, some) for p in weights)
            carried[0][some, rows] = plain
            carried[1][some, rows] = torch.lerp(plain, circulated, beta[some]) * ratio
    shape = (batch, heads, tokens, -1)
    pair = (carried[0].view(shape), carried[1].view(shape)) if carried else None
    return out.view(shape), None if kept is None else kept.view(shape), pair
