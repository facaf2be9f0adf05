"""The attention operator whose circulation is controlled: scale, blend, rescale, adapt (Algorithm 2)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from symskew.algebra import accurate, as_autocast, check_self_attention, no_autocast, share_heads
from symskew.circulation import Circulation
from symskew.matching import InputNorm, Norms, SketchNorm, ValueNorm, match
from symskew.retrieval import Logits, blocks, fused, vanilla

__all__ = ["Circulation", "circulate"]


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

    Returns:
        The retrieved values, in v's dtype. Sums and the blend are in float32 (float64 for float64 input), so on a CPU
        half precision costs no more than the rounding of the result. On an accelerator the two retrievals come from
        fused kernels in the dtype of q, and the blend makes their rounding √(β² + (β − 1)²) times larger.

    Raises:
        ValueError: shapes that are not those of one self-attention call, or x missing.

    >>> q, k, v = torch.randn(3, 2, 4, 64, 16)
    >>> circulate(q, k, v, Circulation(1.1, 4)).shape
    torch.Size([2, 4, 64, 16])
    >>> torch.equal(circulate(q, k, v, Circulation()), torch.nn.functional.scaled_dot_product_attention(q, k, v))
    True
    """
    q, k, v = as_autocast(q, k, v)
    check_self_attention("circulate", q, k, v)
    if circulation.is_identity:
        return vanilla(q, k, v, mask, scale, causal)
    if causal and mask is not None:
        raise ValueError("circulate: give a mask or causal=True, not both; fold the causal part into the mask")
    if mask is not None and not _fits(mask, (*q.shape[:3], q.shape[2])):
        raise ValueError(
            f"circulate: the mask must be broadcastable to (batch, heads, tokens, tokens) "
            f"{(*q.shape[:3], q.shape[2])}, got {tuple(mask.shape)}"
        )
    with no_autocast(q):
        return _circulate(q, k, v, circulation, x, mask, scale, causal)


def _circulate(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    circulation: Circulation,
    x: Tensor | None,
    mask: Tensor | None,
    scale: float | None,
    causal: bool,
) -> Tensor:
    k, v = share_heads(k, q.shape[1]), share_heads(v, q.shape[1])
    alpha, beta = (value[..., None, None] for value in circulation.effective(q, k, mask))
    c1, c2 = (circulation.sym + alpha) / 2, (circulation.sym - alpha) / 2
    logits = Logits(q, k, c1, c2, mask, q.shape[-1] ** -0.5 if scale is None else scale, causal)
    norms = _norms(circulation, x, q, v)
    tensors = (q, k, v, alpha, beta, *(() if x is None else (x,)))
    differentiable = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if isinstance(norms, InputNorm) or not _fused_serves_best(v, differentiable):
        out = _by_blocks(logits, v, beta, circulation, norms, reuse=not differentiable)
    else:
        values = torch.cat([accurate(v), norms.columns], -1) if isinstance(norms, SketchNorm) else v
        plain, circulated = fused(logits, values, both=not circulation.replaces)
        out = circulated if plain is None else _blend(plain, circulated, beta, circulation, norms, v.shape[-1])
    return out.to(v.dtype)


def _norms(circulation: Circulation, x: Tensor | None, q: Tensor, v: Tensor) -> Norms | None:
    """What measures a retrieval, where there is something to match."""
    if circulation.norm is None or circulation.replaces:
        return None
    if circulation.space == "value":
        return ValueNorm()
    want = (q.shape[0], q.shape[2])
    if x is None or x.ndim != 3 or x.shape[:2] != want:
        raise ValueError(
            f"circulate: this space needs the input features x of shape (batch, tokens, features) with (batch, tokens) "
            f"{want}, got {'none' if x is None else tuple(x.shape)}; pass x, or use space='value'"
        )
    return InputNorm(x, heads=q.shape[1]) if circulation.space == "input" else SketchNorm(x, q.shape[1], v.shape[-1])


def _fused_serves_best(v: Tensor, differentiable: bool) -> bool:
    """On an accelerator, and everywhere under autograd and the compiler; the exact norm needs the probabilities."""
    return v.device.type != "cpu" or differentiable or torch.compiler.is_compiling()


def _fits(mask: Tensor, shape: tuple[int, ...]) -> bool:
    short = (1,) * (4 - mask.ndim) + tuple(mask.shape)
    return len(short) == 4 and all(have in (1, want) for have, want in zip(short, shape, strict=True))


def _by_blocks(
    logits: Logits, v: Tensor, beta: Tensor, circulation: Circulation, norms: Norms | None, reuse: bool
) -> Tensor:
    """Retrieve, blend and rescale a block at a time, while its numbers are in the cache."""
    batch, heads, tokens, width = v.shape
    both = not circulation.replaces
    values = accurate(v)
    if isinstance(norms, SketchNorm):
        values = torch.cat([values, norms.columns], -1)
    values = values.flatten(0, 1).contiguous()
    beta = beta.to(values.dtype).expand(batch, heads, 1, 1).flatten(0, 1)
    out = values.new_empty(batch * heads, tokens, width)
    # The features are read whole for every block: larger blocks read them less often.
    for some, rows, p, p_circulated in blocks(logits, both, larger=isinstance(norms, InputNorm), reuse=reuse):
        circulated = torch.bmm(p_circulated, values[some])
        if p is not None:
            plain = torch.bmm(p, values[some])
            weights = (p, p_circulated, some)
            circulated = _blend(plain, circulated, beta[some], circulation, norms, width, weights)
        out[some, rows] = circulated
    return out.view(batch, heads, tokens, width)


def _blend(
    plain: Tensor,
    circulated: Tensor,
    beta: Tensor,
    circulation: Circulation,
    norms: Norms | None,
    width: int,
    weights: tuple[Tensor, Tensor, slice] | None = None,
) -> Tensor:
    """Step from the vanilla to the circulated retrieval by beta, and match norms (Eqs. 33, 34, Algorithm 2)."""
    plain, circulated = accurate(plain), accurate(circulated)
    blended = torch.lerp(plain, circulated, beta)
    if norms is None:
        return blended
    baseline = circulation.norm == "baseline"
    reference = plain if baseline else circulated
    if isinstance(norms, InputNorm):
        assert weights is not None
        p, p_circulated, some = weights
        ratio = match(norms(p if baseline else p_circulated, some), norms(torch.lerp(p, p_circulated, beta), some))
    else:
        ratio = match(norms(reference), norms(blended))
    return blended[..., :width] * ratio
