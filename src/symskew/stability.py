"""How stable retrieved states are in the energy landscape of the symmetric part (Eqs. 21 to 29)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from symskew.algebra import (
    accurate,
    as_autocast,
    check_self_attention,
    hidden_tokens,
    local_field,
    no_autocast,
    prepared,
    present,
    share_heads,
)
from symskew.retrieval import differentiable


class Stability(NamedTuple):
    """Measures of retrieved states; what has a value for every token is None unless asked for."""

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
    agreement_map: Float[Tensor, "batch heads tokens"] | None = None
    """Mean over features of λ."""
    conflict_map: Float[Tensor, "batch heads tokens"] | None = None
    """Share of features with λ < 0, 0 to 1."""


def stability(
    q: Float[Tensor, "batch heads tokens head_dim"],
    k: Float[Tensor, "batch kv_heads tokens head_dim"],
    states: Float[Tensor, "batch #heads tokens features"],
    *,
    center: bool = True,
    normalize: bool = True,
    scale: float = 1.0,
    maps: bool | Literal["mean"] = False,
    mask: Tensor | None = None,
) -> Stability:
    """Energy, instability and alignment of every retrieved feature ξ, a column of `states`.

        E = −½ ξᵀ M_sym ξ = −½ (qᵀξ)ᵀ(kᵀξ)        h = M_sym ξ = ½ (q kᵀξ + k qᵀξ)            M_sym of scale · q kᵀ
        λ = ξ ⊙ h        r = mean(λ < 0)        cos(ξ, h) = ξᵀh / ‖ξ‖‖h‖

    Only head_dim × features products are formed, so the cost is linear in tokens. The energy is taken from them and
    not from λ, so that Σ λ = −2E (Eq. 27) checks the two against each other. The defaults are the conventions behind
    the published numbers: q, k and ξ centred over tokens, ξ of unit norm, logits without their 1/√head_dim.

    Args:
        q, k: as they enter the attention; k may have fewer heads.
        states: retrieved features, per head (retrieved values, or softmax(q kᵀ) x for input features x) or, with size 1
            in the head dimension, the same for every head.
        center: subtract means over tokens. For projections without bias this equals centring x.
        normalize: give each ξ unit norm; a zero ξ stays zero.
        scale: of the logits; 1/√head_dim for those that enter the softmax.
        maps: True also returns the field and the agreement, which are as large as the states of all heads; "mean"
            returns their means over features, `agreement_map` and `conflict_map`, without keeping anything that large.
        mask: an attention mask, boolean or additive. Tokens that it hides from every query (padding) are removed: from
            the means, the sums and the share; λ is 0 there. Nothing else in it changes anything.

    Returns:
        A `Stability`, in float32 (float64 for float64 input).

    Raises:
        ValueError: q and k are not those of one self-attention call, or the states do not belong to them.

    >>> q, k, v = torch.randn(3, 2, 4, 64, 16)
    >>> found = stability(q, k, torch.nn.functional.scaled_dot_product_attention(q, k, v), maps=True)
    >>> torch.allclose(2 * found.energy + found.agreement.sum(2), torch.zeros(()), atol=1e-4)
    True
    >>> stability(q, k, v, maps="mean").conflict_map.shape
    torch.Size([2, 4, 64])
    """
    if maps not in (True, False, "mean"):
        raise ValueError(f"stability: maps must be True, False or 'mean', got {maps!r}")
    q, k = as_autocast(q, k)
    check_self_attention("stability", q, k)
    batch, heads, tokens, _ = q.shape
    if states.ndim != 4 or states.shape[0] != batch or states.shape[1] not in (1, heads) or states.shape[2] != tokens:
        raise ValueError(
            f"stability: states must be (batch, heads or 1, tokens, features) = ({batch}, {heads} or 1, {tokens}, …), "
            f"got {tuple(states.shape)}"
        )
    with no_autocast(q):
        qk = accurate(torch.cat([q, share_heads(k, heads)], -1))
        return _stability(qk, accurate(states), hidden_tokens(mask), center, normalize, scale, maps)


def _stability(
    qk: Tensor,
    states: Tensor,
    hidden: Tensor | None,
    center: bool,
    normalize: bool,
    scale: float,
    maps: bool | Literal["mean"],
) -> Stability:
    heads, features, head_dim = qk.shape[1], states.shape[-1], qk.shape[-1] // 2
    qk, count = prepared(qk, hidden, center), present(qk, hidden)
    if maps is True:
        xi = prepared(states, hidden, center)
        field, energy, alignment, unit = local_field(qk, xi, normalize, scale)
        agreement = xi * unit * field
        instability = ((agreement < 0).to(xi.dtype).sum(2, keepdim=True) / count).squeeze(2)
        return Stability(energy, instability, alignment, field, agreement)
    keep = differentiable(qk, states)
    measures: list[tuple[Tensor, ...]] = []
    sums: list[tuple[Tensor, Tensor]] = []
    # Some features at a time: states that all heads share must not become a field per head all at once.
    for part in states.split(max(head_dim, features // heads), -1):
        xi = prepared(part, hidden, center)
        field, energy, alignment, unit = local_field(qk, xi, normalize, scale)
        agreement = field * xi if keep else field.mul_(xi)
        total = (agreement @ unit.mT).squeeze(-1) if maps else None
        # Numbers, and in place: booleans are several times slower to make and to count.
        negative = agreement.lt(0).to(xi.dtype) if keep else agreement.lt_(0)
        measures.append((energy, (negative.sum(2, keepdim=True) / count).squeeze(2), alignment))
        if total is not None:
            sums.append((total, negative.sum(-1)))
    energy, instability, alignment = (torch.cat(some, -1) for some in zip(*measures, strict=True))
    found = Stability(energy, instability, alignment)
    if not maps:
        return found
    agreement_map, conflict_map = (torch.stack(some).sum(0) / features for some in zip(*sums, strict=True))
    return found._replace(agreement_map=agreement_map, conflict_map=conflict_map)
