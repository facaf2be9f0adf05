"""The norm of a retrieval, in the space where Algorithm 2 takes it and in cheaper ones, and how norms are matched."""

from __future__ import annotations

import torch
from torch import Tensor

from symskew.algebra import accurate

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
    as many as the values are wide, less the one column of the middle term, all from a fixed seed.
    """

    def __init__(self, x: Tensor, heads: int, width: int) -> None:
        x = accurate(x)
        mean = x.mean(1, keepdim=True)
        generator = torch.Generator().manual_seed(0)
        projection = torch.randn(x.shape[-1], max(1, width - 1), generator=generator, dtype=torch.double).to(x)
        columns = torch.cat([(x - mean) @ mean.mT, (x - mean) @ projection / projection.shape[1] ** 0.5], -1)
        self.columns = columns.unsqueeze(1).expand(-1, heads, -1, -1)
        """To be retrieved beside the values: (batch, heads, tokens, width)."""
        # The mean's own square is the same for every token: carried along as it is.
        self._mean_square = mean.square().sum(-1, keepdim=True)
        self._count = columns.shape[-1]

    def __call__(self, retrieved: Tensor) -> Tensor:
        """Norms (…, rows, 1) from retrieved values and columns (…, rows, value width + width)."""
        columns = retrieved[..., -self._count :]
        square = 2 * columns[..., :1] + columns[..., 1:].square().sum(-1, keepdim=True)
        return (square + self._mean_square[:, None]).clamp_min(0).sqrt()


class InputNorm:
    """The norm ‖p x‖ over all input features, exactly as in Algorithm 2: one more product with x per norm."""

    def __init__(self, x: Tensor, heads: int) -> None:
        self._x, self._heads = accurate(x), heads

    def __call__(self, weights: Tensor, some: slice) -> Tensor:
        """Norms (heads, rows, 1) from probabilities (heads, rows, tokens) of heads counted through the samples."""
        samples = self._x[some.start // self._heads : (some.stop - 1) // self._heads + 1]
        retrieved = weights.reshape(len(samples), -1, weights.shape[-1]) @ samples
        return torch.linalg.vector_norm(retrieved, dim=-1).view(*weights.shape[:2], 1)


Norms = ValueNorm | SketchNorm | InputNorm
