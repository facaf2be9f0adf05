"""How stable retrieved states are in the energy landscape of the symmetric part (Eqs. 21 to 29)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from symskew.algebra import accurate, as_autocast, centered, check_self_attention, no_autocast, share_heads


class Stability(NamedTuple):
    """Measures of retrieved states; `field` and `agreement` are None unless asked for."""

    energy: Float[Tensor, "batch heads features"]
    """E = −½ ξᵀ M_sym ξ (Eq. 21), in units of the logits before softmax (times `scale`); lower is better supported."""
    instability: Float[Tensor, "batch heads features"]
    """Share of tokens with λ < 0 (Eq. 28), 0 to 1."""
    alignment: Float[Tensor, "batch heads features"]
    """cos(ξ, h) (Eq. 29), −1 to 1; 0 for a state or field of zero."""
    field: Float[Tensor, "batch heads tokens features"] | None = None
    """Local field h = M_sym ξ (Eq. 25)."""
    agreement: Float[Tensor, "batch heads tokens features"] | None = None
    """λ = ξ ⊙ h (Eq. 26): where it is negative, the state is in conflict. Sums over tokens to −2E exactly (Eq. 27)."""


def stability(
    q: Float[Tensor, "batch heads tokens head_dim"],
    k: Float[Tensor, "batch kv_heads tokens head_dim"],
    states: Float[Tensor, "batch #heads tokens features"],
    *,
    center: bool = True,
    normalize: bool = True,
    scale: float = 1.0,
    maps: bool = False,
) -> Stability:
    """Energy, instability and alignment of every retrieved feature ξ, a column of `states`.

        h = scale · ½ (q kᵀ + k qᵀ) ξ        E = −½ ξᵀh        λ = ξ ⊙ h        r = mean(λ < 0)        cos(ξ, h)

    Only head_dim × features products are formed, so the cost is linear in tokens. The defaults are the conventions
    behind the published numbers: q, k and ξ centred over tokens, ξ of unit norm, logits without their 1/√head_dim.

    Args:
        q, k: as they enter the attention; k may have fewer heads.
        states: retrieved features, per head (retrieved values, or softmax(q kᵀ) x for input features x) or, with size 1
            in the head dimension, the same for every head.
        center: subtract means over tokens. For projections without bias this equals centring x.
        normalize: give each ξ unit norm; a zero ξ stays zero.
        scale: of the logits; 1/√head_dim for those that enter the softmax.
        maps: also return the field and the agreement, which are as large as the states.

    Returns:
        A `Stability`, in float32 (float64 for float64 input).

    Raises:
        ValueError: q and k are not those of one self-attention call, or the states do not belong to them.

    >>> q, k, v = torch.randn(3, 2, 4, 64, 16)
    >>> found = stability(q, k, torch.nn.functional.scaled_dot_product_attention(q, k, v), maps=True)
    >>> torch.allclose(2 * found.energy + found.agreement.sum(2), torch.zeros(()), atol=1e-4)
    True
    """
    q, k = as_autocast(q, k)
    check_self_attention("stability", q, k)
    batch, heads, tokens, _ = q.shape
    if states.ndim != 4 or states.shape[0] != batch or states.shape[1] not in (1, heads) or states.shape[2] != tokens:
        raise ValueError(
            f"stability: states must be (batch, heads or 1, tokens, features) = ({batch}, {heads} or 1, {tokens}, …), "
            f"got {tuple(states.shape)}"
        )
    with no_autocast(q):
        q, k, xi = accurate(q) * scale, share_heads(accurate(k), heads), accurate(states)
        return _stability(q, k, xi, center, normalize, maps)


def _stability(q: Tensor, k: Tensor, xi: Tensor, center: bool, normalize: bool, maps: bool) -> Stability:
    if center:
        q, k, xi = centered(q), centered(k), centered(xi)
    if normalize:
        xi = xi / _norm(xi).clamp_min(torch.finfo(xi.dtype).tiny)
    pieces = []
    # A chunk of features at a time: states that all heads share must not become a field per head all at once.
    for part in xi.split(max(xi.shape[-1] if maps else q.shape[-1], 1), -1):
        field = (q @ (k.mT @ part) + k @ (q.mT @ part)) / 2
        agreement = part * field
        energy = agreement.sum(2) / -2
        norms = (_norm(part) * _norm(field)).squeeze(2)
        alignment = -2 * energy / norms.clamp_min(torch.finfo(xi.dtype).tiny)
        instability = (agreement < 0).to(xi.dtype).mean(2)
        pieces.append((energy, instability, alignment.clamp(-1, 1), field, agreement))
    if maps:
        return Stability(*pieces[0])
    return Stability(*(torch.cat(measure, -1) for measure in list(zip(*pieces, strict=True))[:3]))


def _norm(states: Tensor) -> Tensor:
    return torch.linalg.vector_norm(states, dim=2, keepdim=True)
