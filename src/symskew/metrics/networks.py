"""Networks that make an image a row of features, in whose space sets of images are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from symskew.metrics.kinds import sha256
from symskew.metrics.pixels import Prepare, in_batches, tensors
from symskew.metrics.weights import Site, Source, locate

__all__ = ["FeatureNetwork"]


class FeatureNetwork(ABC):
    """An extractor of one array, `features` (images, width) float32, in single precision.

    Args:
        name: what it is called by, in references and in the ids of metrics.
        source: of the weights.
        site: where to compute.
        memory: see `Extractor`.
        size: side of the images that the network takes.
        prepare: makes an image of any size one of these.
        resize: how, in words: it moves every score.
    """

    version = "1"
    dtype = "fp32"
    kept = True

    def __init__(
        self, name: str, source: Source, site: Site, *, memory: int, size: int, prepare: Prepare, resize: str
    ) -> None:
        self.name, self.id, self.sources = name, f"{name}/{self.dtype}@{self.version}", (source,)
        self.memory, self.resize = memory, resize
        self._source, self._site, self._size, self._prepare = source, site, size, prepare

    @property
    def weights(self) -> str:
        """SHA-256 of the weights' file."""
        return sha256(self._path)

    @torch.inference_mode()
    def extract(self, images: Sequence[Image]) -> dict[str, np.ndarray]:
        """The array of images of any size; `ValueError` for more than 8 bits a channel."""
        pixels = tensors(self.id, images, self._prepare, self._size)
        return {"features": in_batches(lambda some: self._features(some.to(self._site.device)), pixels).numpy()}

    @cached_property
    def _path(self) -> Path:
        return locate(self._source, self._site)

    @cached_property
    def _network(self) -> Any:
        return self._load().to(self._site.device).eval()

    @abstractmethod
    def _load(self) -> Any:
        """The network with its weights, on the CPU."""

    @abstractmethod
    def _features(self, pixels: Float[Tensor, "images 3 size size"]) -> Float[Tensor, "images width"]:
        """What the network makes of them."""
