"""The null of a circulation: the same step, from a skew part that belongs to other tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from symskew.algebra import accurate, as_autocast, check_self_attention, no_autocast, share_heads
from symskew.circulate import circulated
from symskew.circulation import Circulation
from symskew.matching import ValueNorm, match
from symskew.retrieval import vanilla

MOST = 10.0
"""A displaced step is lengthened at most so many times to be as long as the circulated one."""


def displaced(
    q: Float[Tensor, "batch heads tokens head_dim"],
    k: Float[Tensor, "batch kv_heads tokens head_dim"],
    v: Float[Tensor, "batch kv_heads tokens value_dim"],
    circulation: Circulation,
    order: Int[Tensor, "batch tokens"],
    *,
    scale: float | None = None,
    strength: float = 1.0,
) -> Float[Tensor, "batch heads tokens value_dim"]:
    """Self-attention with a step as long as the circulation's, whose skew part is that of other tokens.

        logits      M + (alpha − 1) · Π M_skew Πᵀ                M = q kᵀ · scale, (Π x)_i = x_order(i)
        blended     Ξ + beta · (Ξ_Π − Ξ), norms matched as the circulation does
        result      Ξ + min(strength · ‖Ξ_α − Ξ‖ / ‖blended − Ξ‖, 10) · (blended − Ξ)

    Π M_skew Πᵀ is antisymmetric with the norm, the spectrum and the row sums of M_skew, but not of these tokens. That
    alone does not match the size: what has nothing to do with the content averages out over the keys (on ensemble-sdxl
    the step of a shifted skew part is 0.3 to 0.6 times as long in most layers), so the last line gives it the length of
    the circulation's own step Ξ_α − Ξ (after its beta and its norms), the norm taken over tokens and values, per sample
    and head. The cost is linear in tokens, about three times a circulation's.

    Args:
        q, k, v: as they enter the attention; k and v may have fewer heads.
        circulation: what this is the null of; without gate, sym and norms in other spaces.
        order: a permutation of each sample's tokens.
        scale: of the logits; 1/√head_dim by default.
        strength: length of the step, in units of the circulation's.

    Returns:
        The retrieved values, in v's dtype.

    >>> q, k, v = torch.randn(3, 2, 4, 64, 16)
    >>> displaced(q, k, v, Circulation(2.0), torch.arange(64).roll(20).expand(2, -1)).shape
    torch.Size([2, 4, 64, 16])
    """
    q, k, v = as_autocast(q, k, v)
    check_self_attention("displaced", q, k, v)
    found = circulated(q, k, v, circulation, scale=scale)
    with no_autocast(q):
        k, v = share_heads(k, q.shape[1]), share_heads(v, q.shape[1])
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        values = accurate(v)
        plain = accurate(vanilla(q, k, v, scale=scale) if found.vanilla is None else found.vanilla)
        target = torch.linalg.vector_norm(accurate(found.out) - plain, dim=(-2, -1), keepdim=True)
        alpha, beta = (value[..., None, None] for value in (found.alpha, found.beta))
        q, k = accurate(q), accurate(k)
        index = order[:, None, :, None].expand_as(q)
        other_q, other_k = q.gather(2, index), k.gather(2, index)
        part = (alpha - 1) / 2
        wide = torch.cat([q, part * other_q, -part * other_k], -1), torch.cat([k, other_k, other_q], -1)
        # Kernels that keep no matrix want one width for all three.
        width = values.shape[-1]
        whole = max(wide[0].shape[-1], width)
        wide_q, wide_k, wide_v = (F.pad(part, (0, whole - part.shape[-1])) for part in (*wide, values))
        moved = vanilla(wide_q, wide_k, wide_v, scale=scale)[..., :width]
        blended = torch.lerp(plain, moved, beta)
        if circulation.norm is not None and not circulation.unblended:
            norm = ValueNorm()
            blended = blended * match(norm(plain if circulation.norm == "baseline" else moved), norm(blended))
        step = blended - plain
        length = torch.linalg.vector_norm(step, dim=(-2, -1), keepdim=True)
        factor = (strength * target / length.clamp_min(torch.finfo(length.dtype).tiny)).clamp(max=MOST)
        return (plain + factor * step).to(v.dtype)
