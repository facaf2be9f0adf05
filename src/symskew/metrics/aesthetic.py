"""LAION's aesthetic predictor, version 2: a linear function, in five steps, of CLIP's embedding of an image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from symskew.metrics.kinds import Features, SampleMetric
from symskew.metrics.towers import Towers, quantity
from symskew.metrics.weights import Site, Source, load_strictly, locate, read

__all__ = ["HEAD", "Aesthetic", "five_layers"]

_FILE = "sac+logos+ava1-l14-linearMSE.pth"
HEAD = Source(
    "aesthetic",
    (_FILE,),
    3_714_759,
    "Apache-2.0",
    url=f"https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/{_FILE}",
    digests={_FILE: "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"},
)


def five_layers(width: int) -> nn.Sequential:
    """Five linear layers with nothing between them (in training, dropout), as LAION's predictor and ImageReward end."""
    return nn.Sequential(
        nn.Linear(width, 1024),
        nn.Identity(),
        nn.Linear(1024, 128),
        nn.Identity(),
        nn.Linear(128, 64),
        nn.Identity(),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    )


class Aesthetic(SampleMetric):
    """How beautiful people would find an image, 1 to 10, whatever the prompt (Schuhmann et al., 2022).

    Embeddings in another number format move it, the layers themselves always compute in single precision.
    """

    sources = (HEAD,)

    def __init__(self, eye: Towers, site: Site) -> None:
        found = quantity("aesthetic/v2", "Aesthetic score v2", "1 to 10", eye, short="aesthetic")
        self.quantities, self.extractor, self._site = (found,), eye.id, site

    @torch.inference_mode()
    def score(self, features: Features, prompts: Sequence[str]) -> Float[np.ndarray, " images"]:
        """From `embedding`, on the CPU; the prompts play no part."""
        embedding = torch.from_numpy(features["embedding"].astype(np.float32))
        # One by one, so that sums have the same order whatever the number of images.
        return np.array([self._layers(each).item() for each in embedding], np.float64)

    @cached_property
    def _layers(self) -> nn.Module:
        path = locate(HEAD, self._site)
        state = read(path, HEAD)
        first = state.get("layers.0.weight", torch.zeros(0, 768))
        predictor = nn.ModuleDict({"layers": five_layers(first.shape[-1])})
        load_strictly(predictor, state, HEAD, path)
        return predictor["layers"].float().eval()
