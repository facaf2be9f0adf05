"""The norm of a retrieval, in the space where Algorithm 2 takes it and in cheaper ones, and how norms are matched."""

from __future__ import annotations

import torch
from torch import Tensor

from symskew.algebra import accurate
from symskew.circulation import Circulation
from symskew.retrieval import product

NORM_FLOOR, RATIO_MIN, RATIO_MAX = 1e-6, 0.25, 4.0
"""Of Algorithm 2: norms are at least NORM_FLOOR, their ratio stays within the two bounds."""


def match(reference: Tensor, current: Tensor) -> Tensor:
    """The bounded factor that gives a retrieval of norm `current` the norm `reference`, elementwise."""
    return (reference.clamp_min(NORM_FLOOR) / current.clamp_min(NORM_FLOOR)).clamp(RATIO_MIN, RATIO_MAX)


class ValueNorm:
    """The norm of the retrieved values themselves, of one head: free."""

    def __call__(self, retrieved: Tensor) -> Tensor:
        """Norm over the last dimension, which stays, of size 1."""
        return torch.linalg.vector_norm(retrieved, dim=-1, keepdim=True)


class SketchNorm:
    """An estimate of ‖p x‖ for the input features x, from columns retrieved beside the values.

        ‖p x‖² = ‖x̄‖² + 2 x̄·(p x_c) + ‖p x_c‖²

    x_c is x centred over tokens, and the weights p sum to 1, so only the last term is estimated, by random projections:
    as many as the values are wide, less the one column that carries the other two terms.
    """

    def __init__(self, x: Tensor, heads: int, width: int) -> None:
        x = accurate(x)
        mean = x.mean(1, keepdim=True)
        projection = _signs(x.shape[-1], max(1, width - 1), x.device).to(x.dtype)
        sketch = (x - mean) @ projection / projection.shape[1] ** 0.5
        # The weights sum to 1: what is the same for all tokens may ride on any column.
        columns = torch.cat([(2 * (x - mean) + mean) @ mean.mT, sketch], -1)
        self.columns = columns.unsqueeze(1).expand(-1, heads, -1, -1)
        """To be retrieved beside the values: (batch, heads, tokens, width)."""
        self._count = columns.shape[-1]

    def __call__(self, retrieved: Tensor) -> Tensor:
        """Norms (…, rows, 1) from retrieved values and columns (…, rows, value width + width)."""
        columns = retrieved[..., -self._count :]
        square = columns[..., :1] + columns[..., 1:].square().sum(-1, keepdim=True)
        return square.clamp_min(0).sqrt()


class InputNorm:
    """The norm ‖p x‖ over all input features, exactly as in Algorithm 2: one more product with x per norm."""

    def __init__(self, x: Tensor, heads: int) -> None:
        self._x, self._heads = accurate(x).unsqueeze(1), heads

    def __call__(self, weights: Tensor, some: slice) -> Tensor:
        """Norms (heads, rows, 1) from probabilities (heads, rows, tokens) of heads counted through the samples."""
        return torch.linalg.vector_norm(product(weights, self._x, self._heads, some), dim=-1, keepdim=True)


def _signs(rows: int, columns: int, device: torch.device) -> Tensor:
    """Random signs, always the same: a hash of their place, so that no generator has to travel or be traced."""
    place = torch.arange(1, rows * columns + 1, device=device)
    for multiplier in (0x2545F4914F6CDD1D, 0x369DEA0F31A53F85, 0x5851F42D4C957F2D):
        place = place * multiplier
        place = place ^ (place >> 32)
    return (2 * (place >> 31 & 1) - 1).view(rows, columns)


Norms = ValueNorm | SketchNorm | InputNorm


def norms_of(circulation: Circulation, x: Tensor | None, q: Tensor, v: Tensor) -> Norms | None:
    """What measures a retrieval, where there is something to match."""
    if circulation.norm is None or circulation.unblended:
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


def blend(
    plain: Tensor,
    circulated: Tensor,
    beta: Tensor,
    circulation: Circulation,
    norms: Norms | None,
    weights: tuple[list[Tensor], slice] | None = None,
) -> tuple[Tensor, Tensor | float]:
    """A step from the vanilla to the circulated retrieval by beta, and the factor that matches norms (Algorithm 2)."""
    blended = torch.lerp(plain, circulated, beta)
    if norms is None:
        return blended, 1.0
    baseline = circulation.norm == "baseline"
    if isinstance(norms, InputNorm):
        assert weights is not None
        (p, p_circulated), some = weights
        reference = norms(p if baseline else p_circulated, some)
        return blended, match(reference, norms(torch.lerp(p, p_circulated, beta), some))
    return blended, match(norms(plain if baseline else circulated), norms(blended))
