"""How symmetric and how directional the weights W = W_Q W_Kᵀ are, from their factors alone (Eqs. 5, 19)."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from symskew.algebra import accurate, symmetry_index

DEVIATIONS = 2.0
"""How many standard deviations above the mean a row or column stands out from the others."""


class WeightScores(NamedTuple):
    """Scores of W = W_Q W_Kᵀ."""

    symmetry: Float[Tensor, "heads"]
    """η of W, −1 to 1."""
    directionality: Float[Tensor, "heads"]
    """−1 to 1: positive where columns stand out, negative where rows do, 0 where none does."""


def weight_scores(
    wq: Float[Tensor, "heads head_dim features"], wk: Float[Tensor, "heads head_dim features"]
) -> WeightScores:
    """Symmetry and directionality of W = W_Q W_Kᵀ, head by head.

        symmetry        (‖W_sym‖² − ‖W_skew‖²) / ‖W‖² = tr((W_KᵀW_Q)²) / ⟨W_QᵀW_Q, W_KᵀW_K⟩
        directionality  (C − R) / (C + R),   C = Σ (‖column‖ − c)₊,   R = Σ (‖row‖ − r)₊

    with the thresholds c and r two standard deviations above the mean norm of the columns and of the rows. Both come
    from products of head_dim × head_dim; W itself, features × features, is never formed: row i of W has the squared
    norm w_iᵀ(W_KᵀW_K)w_i for the row w_i of W_Q.

    Source: symmetry is Eq. 36 applied to W (Eq. 19); both are the scores of Saponati et al. 2025 (arXiv 2502.10927),
    who take them of a whole layer, whose W is the sum over its heads: heads side by side as one head of
    heads · head_dim. Signs and thresholds are those of their published code.

    Args:
        wq, wk: the projections as linear layers hold them, a row for each component of q and k.

    Returns:
        In float32 at least. The symmetry of W = 0 is 1, by convention.

    >>> import torch
    >>> wq, wk = torch.randn(2, 4, 16, 64)
    >>> weight_scores(wq, wq).symmetry
    tensor([1.0000, 1.0000, 1.0000, 1.0000])
    >>> weight_scores(wq, wk).directionality.shape
    torch.Size([4])
    """
    wq, wk = accurate(wq), accurate(wk)
    rows = ((wk @ wk.mT @ wq) * wq).sum(-2).clamp_min(0).sqrt()
    columns = ((wq @ wq.mT @ wk) * wk).sum(-2).clamp_min(0).sqrt()
    c, r = _excess(columns), _excess(rows)
    total = c + r
    directionality = ((c - r) / total.where(total > 0, 1.0)).where(total > 0, 0.0)
    return WeightScores(symmetry_index(wq.mT[None], wk.mT[None])[0], directionality)


def _excess(norms: Tensor) -> Tensor:
    threshold = norms.mean(-1, keepdim=True) + DEVIATIONS * norms.std(-1, keepdim=True)
    return (norms - threshold).clamp_min(0).sum(-1)
