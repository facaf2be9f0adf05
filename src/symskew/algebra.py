"""The association matrix M = q kᵀ of one attention call, kept factored: its symmetry, its field, its checks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

HIDDEN = -1e4
"""An additive mask at or below this hides a token for good: no softmax in use comes back from e^-10000."""


def symmetry_index(
    q: Float[Tensor, "batch heads tokens head_dim"],
    k: Float[Tensor, "batch kv_heads tokens head_dim"],
    *,
    mask: Tensor | None = None,
    center: bool = False,
) -> Float[Tensor, "batch heads"]:
    """Functional symmetry index η of one attention call, per sample and head.

        η = (‖M_sym‖² − ‖M_skew‖²) / (‖M_sym‖² + ‖M_skew‖²) = tr((kᵀq)²) / ⟨qᵀq, kᵀk⟩        M = q kᵀ

    1 where the association is purely symmetric (energy), −1 where it is purely skew (circulation); 1 by convention
    where M is zero. Only head_dim × head_dim products are formed, so the cost is linear in tokens, and η needs no
    weights: biases, QK-norm, rotary embeddings and quantisation are all in q and k already.

    Source: Eq. 36. The published code averages over samples and heads afterwards (Eq. 37); here nothing is averaged.

    Args:
        q, k: queries and keys as they enter the attention; k may have fewer heads (grouped queries).
        mask: an attention mask, boolean or additive. Tokens that it hides from every query (padding; −10⁴ or below)
            are removed from M. Nothing else in it, a causal part say, changes η, which is of M and not of its softmax.
        center: subtract the mean over tokens from q and k first.

    Returns:
        η in [−1, 1], in float32 (float64 for float64 input), on q's device; NaN where q or k is not finite.

    Raises:
        ValueError: q and k are not those of one self-attention call.

    >>> q, k = torch.randn(2, 4, 64, 16), torch.randn(2, 4, 64, 16)
    >>> round(symmetry_index(q, q).mean().item(), 4)
    1.0
    >>> symmetry_index(q, k).shape
    torch.Size([2, 4])
    """
    q, k = as_autocast(q, k)
    check_self_attention("symmetry_index", q, k)
    with no_autocast(q):
        return _symmetry_index(q, k, mask, center)


def _symmetry_index(q: Tensor, k: Tensor, mask: Tensor | None, center: bool) -> Tensor:
    q, k = accurate(q), share_heads(accurate(k), q.shape[1])
    hidden = hidden_tokens(mask)
    q, k = prepared(q, hidden, center), prepared(k, hidden, center)
    qq, kk, kq = q.mT @ q, k.mT @ k, k.mT @ q
    # |kq|² ≤ |qq|·|kk| entry by entry: scaled by their peaks, no product below can overflow or vanish altogether.
    peak_q, peak_k = (gram.abs().amax((-2, -1), keepdim=True) for gram in (qq, kk))
    peak_q, peak_k = (torch.where(peak > 0, peak, 1.0) for peak in (peak_q, peak_k))
    kq = kq / peak_q.sqrt() / peak_k.sqrt()
    symmetric = (kq * kq.mT).sum((-2, -1))
    total = ((qq / peak_q) * (kk / peak_k)).sum((-2, -1))
    return torch.where(total == 0, 1.0, symmetric / total).clamp(-1, 1)


class LocalField(NamedTuple):
    """What the symmetric part answers to states; as in `Stability`, over tokens."""

    field: Tensor
    energy: Tensor
    alignment: Tensor
    unit: Tensor
    """The factor, (batch, #heads, 1, features), that gives the states the norm which field and energy are for."""


def local_field(qk: Tensor, xi: Tensor, normalize: bool = True, scale: float = 1.0) -> LocalField:
    """Field h = M_sym ξ, energy −½ ξᵀh and alignment cos(ξ, h) of states ξ (Eqs. 21, 25, 29); see `stability`.

    Two matrix products in all, and no pass over the states to give them unit norm: the small products take it on.

    Args:
        qk: queries and keys side by side, (batch, heads, tokens, 2 · head_dim).
        xi: (batch, heads or 1, tokens, features).
    """
    size = _norm(xi)
    unit = 1 / size if normalize else torch.ones_like(size)
    by_q, by_k = (qk.mT @ xi * unit).chunk(2, 2)
    energy = (by_q * by_k).sum(2) * (-scale / 2)
    field = qk @ (torch.cat([by_k, by_q], 2) * (scale / 2))
    alignment = -2 * energy / _norm(field).squeeze(2) / (size * unit).squeeze(2)
    return LocalField(field, energy, alignment.clamp(-1, 1), unit)


def _norm(states: Tensor) -> Tensor:
    """Norm over tokens, never zero. By squares: several times faster than torch's own norm over this dimension."""
    return states.square().sum(2, keepdim=True).clamp_min(torch.finfo(states.dtype).tiny).sqrt()


def check_self_attention(where: str, q: Tensor, k: Tensor, v: Tensor | None = None) -> None:
    """Raise ValueError, saying what came and what to do, unless q, k (and v) are those of one self-attention call."""
    others = [k] if v is None else [k, v]

    def came() -> str:  # not before it is needed: the compiler cannot put sizes it does not know into words
        return f"got q {tuple(q.shape)}, k {tuple(k.shape)}" + (f" and v {tuple(v.shape)}" if v is not None else "")

    if any(tensor.ndim != 4 for tensor in (q, *others)):
        raise ValueError(f"{where}: tensors must be (batch, heads, tokens, head_dim), {came()}")
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"{where}: q and k must have the same head_dim, {came()}")
    if any(q.shape[2] != tensor.shape[2] for tensor in others):
        raise ValueError(
            f"{where}: q, k and v must have the same tokens, {came()}: this is cross-attention, or a step with a "
            "key-value cache, which has no symmetric part; apply it to self-attention over the whole sequence"
        )
    if any(q.shape[0] != tensor.shape[0] for tensor in others):
        raise ValueError(f"{where}: q, k and v must have the same batch, {came()}")
    if any(tensor.shape[1] == 0 or q.shape[1] % tensor.shape[1] for tensor in others):
        raise ValueError(f"{where}: the heads of q must be a multiple of those of k and v, {came()}")
    if 0 in q.shape:
        raise ValueError(f"{where}: an empty tensor has nothing to attend to, {came()}")
    if any(q.dtype != tensor.dtype or q.device != tensor.device for tensor in others):
        kinds = ", ".join(f"{tensor.dtype} on {tensor.device}" for tensor in (q, *others))
        raise ValueError(f"{where}: q, k and v must share dtype and device, got {kinds}")
    if not q.is_floating_point():
        raise ValueError(f"{where}: tensors must be floating point, got {q.dtype}")


def share_heads(tensor: Tensor, heads: int) -> Tensor:
    """Repeat key or value heads (dimension 1) so that each query head has its own: grouped-query attention."""
    return tensor if tensor.shape[1] == heads else tensor.repeat_interleave(heads // tensor.shape[1], dim=1)


def as_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the dtype that torch's attention would have them in under the autocast in force, if any is."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t for t in tensors)


def no_autocast(tensor: Tensor) -> torch.autocast:
    """A context in which sums keep their dtype: autocast would put those in float32 back into half precision."""
    return torch.autocast(tensor.device.type, enabled=False)


def accurate(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least: sums over tokens overflow in float16 and lose digits in bfloat16."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def hidden_tokens(mask: Tensor | None) -> Tensor | None:
    """Tokens that an attention mask hides from every query, as booleans (…, tokens, 1); None without a mask."""
    if mask is None or mask.ndim < 2:
        return None
    return (~mask if mask.dtype == torch.bool else mask <= HIDDEN).all(-2, keepdim=True).mT


def prepared(tensor: Tensor, hidden: Tensor | None, center: bool) -> Tensor:
    """The tensor (…, tokens, width) as it is measured: zero where hidden, minus the mean over the other tokens."""
    if hidden is not None:
        tensor = tensor.masked_fill(hidden, 0)
    if not center:
        return tensor
    mean = tensor.sum(-2, keepdim=True) / present(tensor, hidden)
    return tensor - mean if hidden is None else (tensor - mean).masked_fill(hidden, 0)


def present(tensor: Tensor, hidden: Tensor | None) -> Tensor | int:
    """How many tokens of the tensor (…, tokens, width) are not hidden: (…, 1, 1), or a number where none is."""
    return tensor.shape[-2] if hidden is None else (~hidden).sum(-2, keepdim=True).clamp_min(1)
