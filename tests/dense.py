"""The paper's equations on whole matrices, in float64: slow, plain, and written without symskew."""

from __future__ import annotations

import torch
from torch import Tensor


def symmetry(q: Tensor, k: Tensor) -> Tensor:
    """Eq. 36, from the two parts of M themselves."""
    m = q @ k.mT
    sym, skew = (m + m.mT) / 2, (m - m.mT) / 2
    sym2, skew2 = sym.square().sum((-2, -1)), skew.square().sum((-2, -1))
    return (sym2 - skew2) / (sym2 + skew2)


def probabilities(
    q: Tensor, k: Tensor, sym: Tensor | float, skew: Tensor | float, scale: float, mask=None, image=slice(None)
) -> Tensor:
    logits = q @ k.mT
    m = logits[:, :, image, image]
    logits[:, :, image, image] = sym * (m + m.mT) / 2 + skew * (m - m.mT) / 2
    logits = logits * scale
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return torch.softmax(logits, -1).nan_to_num(0)


def algorithm2(
    q,
    k,
    v,
    *,
    alpha=1.0,
    beta=1.0,
    sym=1.0,
    adaptive=None,
    norm="perturbed",
    x=None,
    mask=None,
    scale=None,
    eta=None,
    carry=None,
    image=slice(None),
):
    """Algorithm 2 with Eqs. 36 to 42, of v or `carry`; norms over x if given (as printed), over v otherwise."""
    q, k, v = (t.double() for t in (q, k, v))
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    alpha, beta = (
        (t.double()[..., None, None] if t.ndim else t.double()) if isinstance(t, Tensor) else t for t in (alpha, beta)
    )
    if adaptive is not None:
        eta = symmetry(q[:, :, image], k[:, :, image]) if eta is None else eta
        dims = {"call": (0, 1), "sample": (1,), "head": ()}[adaptive]
        eta = (eta.mean(dims, keepdim=True) if dims else eta)[..., None, None]
        alpha, beta = 1 + (alpha - 1) * eta, beta * (1 - eta)
    p = probabilities(q, k, 1.0, 1.0, scale, mask)
    p_alpha = probabilities(q, k, sym, alpha, scale, mask, image)
    states = v if x is None else x.double()[:, None]
    plain, circulated = p @ states, p_alpha @ states
    blended = plain + beta * (circulated - plain)
    reference = {"perturbed": circulated, "baseline": plain, None: blended}[norm]
    size = reference.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    ratio = (size / blended.norm(dim=-1, keepdim=True).clamp_min(1e-6)).clamp(0.25, 4.0)
    v = v if carry is None else carry
    return (p @ v + beta * (p_alpha @ v - p @ v)) * ratio


def stability(q, k, states, *, center=True, normalize=True, scale=1.0):
    """Eqs. 21 to 29, from M_sym itself."""
    q, k, xi = (t.double() for t in (q, k, states))
    if center:
        q, k, xi = (t - t.mean(2, keepdim=True) for t in (q, k, xi))
    if normalize:
        xi = xi / xi.norm(dim=2, keepdim=True)
    m = q @ k.mT * scale
    field = (m + m.mT) / 2 @ xi
    agreement = xi * field
    return {
        "energy": -0.5 * (xi * field).sum(2),
        "instability": (agreement < 0).double().mean(2),
        "alignment": torch.nn.functional.cosine_similarity(xi, field, dim=2),
        "field": field,
        "agreement": agreement,
    }
