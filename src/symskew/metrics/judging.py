"""The judge of Ensemble as an extractor: what it reads, its last hidden layer, and where the ink is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from symskew import ensemble
from symskew.ensemble.judge import CLASSES, Judge, as_tensor
from symskew.ensemble.vocabulary import COLOUR_NAMES, IMAGE_SIZE
from symskew.metrics.kinds import sha256

__all__ = ["EXTRACTOR", "ID", "EnsembleJudge"]

ID = "ensemble-judge/fp32@1"

_BATCH = 16  # the fastest on one core, and always as many: sums then have the same order for every image


class EnsembleJudge:
    """The shipped judge, or the one whose weights (safetensors) are at `path`.

    Its arrays, the colours in the order of `COLOUR_NAMES`:

    - `log_probabilities` (images, 6, 13) float32, nats: per colour the ten digits, absent, several, unreadable.
    - `features` (images, 768) float16: the last hidden layer, 128 numbers for each colour.
    - `layout` (images, 6, 3) float32: per colour the centroid of its ink (x to the right, y down, 0 to 1 over the
      image), and its amount (share of the image's area, if all of it had full brightness). Hues are told apart softly,
      so a colour that is absent has a little ink too; whether it is there is for `log_probabilities` to say.
    """

    id = ID
    version = "1"
    dtype = "fp32"
    kept = True
    sources = ()
    memory = 200_000_000

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path else Path(ensemble.__file__).parent / "models" / "judge.safetensors"

    @property
    def weights(self) -> str:
        """SHA-256 of the weights' file."""
        return sha256(self.path)

    @cached_property
    def _judge(self) -> Judge:
        return Judge.load(self.path)

    @torch.inference_mode()
    def extract(self, images: Sequence[Image]) -> dict[str, np.ndarray]:
        """The arrays of 64×64 images; `ValueError` for images of another size."""
        if not images:
            return _arrays(torch.zeros(0, 6, CLASSES), torch.zeros(0, 768), torch.zeros(0, 6, 3))
        parts = [self._read(part) for part in as_tensor(images).split(_BATCH)]
        return _arrays(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _read(self, images: Float[Tensor, "count 3 64 64"]) -> tuple[Tensor, Tensor, Tensor]:
        network, count = self._judge.network, len(images)
        padded = torch.cat([images, images.new_zeros(_BATCH - count, *images.shape[1:])])
        planes = network.planes(padded)
        hidden = network.embed(planes.flatten(0, 1))
        logits = network.classify(hidden).unflatten(0, (_BATCH, len(COLOUR_NAMES)))
        return logits.log_softmax(-1)[:count], hidden.view(_BATCH, -1)[:count], _layout(planes[:count, :, 0])


EXTRACTOR = EnsembleJudge


def _layout(ink: Float[Tensor, "count 6 64 64"]) -> Float[Tensor, "count 6 3"]:
    places = (torch.arange(IMAGE_SIZE, dtype=ink.dtype) + 0.5) / IMAGE_SIZE
    amount = ink.sum((2, 3))
    x = (ink.sum(2) * places).sum(2) / amount.clamp(min=1e-12)
    y = (ink.sum(3) * places).sum(2) / amount.clamp(min=1e-12)
    return torch.stack([x, y, amount / IMAGE_SIZE**2], 2)


def _arrays(log_probabilities: Tensor, features: Tensor, layout: Tensor) -> dict[str, np.ndarray]:
    return {
        "log_probabilities": log_probabilities.numpy(),
        "features": features.half().numpy(),
        "layout": layout.numpy(),
    }
