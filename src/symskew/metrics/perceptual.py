"""LPIPS: how far apart two images look, by the layers of a network trained on photographs (Zhang et al., 2018)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL.Image import Image
from torch import Tensor

from symskew.metrics.diversity import PairwiseMetric
from symskew.metrics.kinds import Features, Quantity, sha256
from symskew.metrics.weights import Source
from symskew.table import need

__all__ = ["EXTRACTOR", "ID", "METRICS", "AlexNetLayers", "LpipsDiversity"]

ID = "lpips-alex/fp32@1"
TRUNK = "alexnet-owt-7be5be79.pth"
"""torchvision's name for AlexNet's weights (ImageNet, version 1)."""
ALEXNET = Source(
    "alexnet",
    (TRUNK,),
    244_408_911,
    "BSD-3-Clause",
    url=f"https://download.pytorch.org/models/{TRUNK}",
    digests={TRUNK: "7be5be79"},
)


class AlexNetLayers:
    """Images as points whose squared distance is LPIPS (version 0.1, AlexNet).

    LPIPS sums over five layers w·(f − f')², averaged over places, with f of length 1 at each place and w not negative:
    the squared distance of √(w / places) f. One array, `layers` (images, width) float32, as wide as the image is large
    (32,000 for 64×64, 11 million for 1024×1024), and so not stored.

    AlexNet's weights are torchvision's; nothing is downloaded. They are looked for at `trunk`, by default where torch
    keeps them (`$TORCH_HOME/hub/checkpoints`).
    """

    id = ID
    version = "1"
    dtype = "fp32"
    kept = False
    sources = (ALEXNET,)
    memory = 1_500_000_000

    def __init__(self, trunk: str | Path | None = None) -> None:
        self._trunk = Path(trunk) if trunk else Path(torch.hub.get_dir()) / "checkpoints" / TRUNK

    @property
    def weights(self) -> str:
        """SHA-256 of AlexNet's file and the heads' file, one after the other."""
        return sha256(self._found(), self._heads())

    def extract(self, images: Sequence[Image]) -> dict[str, np.ndarray]:
        """The array of images of one size, each computed by itself; `ValueError` for several sizes."""
        if len({image.size for image in images}) > 1:
            raise ValueError(f"{self.id}: expected images of one size, got {sorted({image.size for image in images})}")
        return (
            {"layers": np.stack([self._layers(image) for image in images])} if images else {"layers": np.zeros((0, 0))}
        )

    @torch.inference_mode()
    def _layers(self, image: Image) -> Float[np.ndarray, " width"]:
        network = self._network
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 127.5 - 1
        parts: list[Tensor] = []
        for layer, head in zip(network.net(network.scaling_layer(pixels)), network.lins, strict=True):
            unit = layer / (layer.square().sum(1, keepdim=True).sqrt() + 1e-10)
            parts.append((unit * (head.model[-1].weight / unit[0, 0].numel()).sqrt()).flatten())
        return torch.cat(parts).numpy()

    @cached_property
    def _network(self) -> Any:
        lpips = need("lpips", "metrics")
        trunk = torch.load(self._found(), map_location="cpu", weights_only=True)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore", UserWarning)  # the package calls torchvision in its old way
            network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        names = {name: f"features.{name.partition('.')[2]}" for name in network.net.state_dict()}
        if missing := sorted(set(names.values()) - set(trunk)):
            raise ValueError(f"lpips: {self._trunk} does not hold AlexNet's weights: there is no {missing[0]}")
        network.net.load_state_dict({name: trunk[source] for name, source in names.items()})
        return network.eval()

    def _found(self) -> Path:
        if not self._trunk.is_file():
            raise FileNotFoundError(
                f"lpips: AlexNet's weights are not at {self._trunk}; nothing is downloaded here: put torchvision's "
                f"{TRUNK} there, or name the folder that has it as hub/checkpoints/{TRUNK} by TORCH_HOME"
            )
        return self._trunk

    def _heads(self) -> Path:
        return Path(need("lpips", "metrics").__file__).parent / "weights" / "v0.1" / "alex.pth"


EXTRACTOR = AlexNetLayers


class LpipsDiversity(PairwiseMetric):
    """Mean LPIPS between the samples of a prompt."""

    extractor = ID

    def _distances(
        self, features: Features, prompt: str
    ) -> tuple[Float[np.ndarray, "images images"], Bool[np.ndarray, "images images"]]:
        layers = features["layers"]
        apart = np.zeros((len(layers), len(layers)))
        for a, b in combinations(range(len(layers)), 2):
            apart[a, b] = np.square(layers[a] - layers[b]).sum(dtype=np.float64)
        return apart, np.ones_like(apart, bool)


METRICS = (LpipsDiversity(Quantity("lpips/alex", "LPIPS between a prompt's seeds", "LPIPS", True)),)
