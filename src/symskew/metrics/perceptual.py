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
from symskew.metrics.weights import Site, Source, load_strictly, locate, read
from symskew.table import need

__all__ = ["ALEXNET", "ID", "METRICS", "AlexNetLayers", "LpipsDiversity"]

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
MOST = 8_000_000_000
"""Bytes of layers that are in memory together."""


class AlexNetLayers:
    """Images as points whose squared distance is LPIPS (version 0.1, AlexNet).

    LPIPS sums over five layers w·(f − f')², averaged over places, with f of length 1 at each place and w not negative:
    the squared distance of √(w / places) f. One array, `layers` (images, width) float32, as wide as the image is large
    (32,000 for 64×64, 11 million for 1024×1024), and so not stored.
    """

    id = ID
    version = "1"
    dtype = "fp32"
    kept = False
    sources = (ALEXNET,)
    memory = 1_500_000_000

    def __init__(self, site: Site) -> None:
        self._site = site

    @property
    def weights(self) -> str:
        """SHA-256 of AlexNet's file and the heads' file, one after the other."""
        heads = Path(need("lpips", "metrics").__file__).parent / "weights" / "v0.1" / "alex.pth"
        return sha256(self._trunk, heads)

    def extract(self, images: Sequence[Image]) -> dict[str, np.ndarray]:
        """The array of images, each computed by itself.

        Raises:
            ValueError: images of several sizes, or more than fit into memory.
        """
        if not images:
            return {"layers": np.zeros((0, 0), np.float32)}
        if len({image.size for image in images}) > 1:
            raise ValueError(f"{self.id}: expected images of one size, got {sorted({image.size for image in images})}")
        first = self._layers(images[0])
        if (size := len(images) * first.nbytes) > MOST:
            raise ValueError(
                f"{self.id}: the layers of {len(images)} images of {images[0].width}×{images[0].height} take "
                f"{size / 1e9:.0f} GB, more than {MOST / 1e9:.0f}; compare fewer seeds of a prompt"
            )
        return {"layers": np.stack([first, *map(self._layers, images[1:])])}

    @torch.inference_mode()
    def _layers(self, image: Image) -> Float[np.ndarray, " width"]:
        network = self._network
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 127.5 - 1
        parts: list[Tensor] = []
        for layer, head in zip(
            network.net(network.scaling_layer(pixels.to(self._site.device))), network.lins, strict=True
        ):
            unit = layer / (layer.square().sum(1, keepdim=True).sqrt() + 1e-10)
            parts.append((unit * (head.model[-1].weight / unit[0, 0].numel()).sqrt()).flatten())
        return torch.cat(parts).cpu().numpy()

    @cached_property
    def _trunk(self) -> Path:
        return locate(ALEXNET, self._site)

    @cached_property
    def _network(self) -> Any:
        lpips = need("lpips", "metrics")
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore", UserWarning)  # the package calls torchvision in its old way
            network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        names = {f"features.{name.partition('.')[2]}": name for name in network.net.state_dict()}
        trunk = {name: value for name, value in read(self._trunk, ALEXNET).items() if name.startswith("features.")}
        renamed = {names.get(name, name): value for name, value in trunk.items()}
        load_strictly(network.net, renamed, ALEXNET, self._trunk)
        return network.to(self._site.device).eval()


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


METRICS = (
    LpipsDiversity(Quantity("lpips/alex/fp32@1", "LPIPS between a prompt's seeds", "LPIPS", True, short="lpips/alex")),
)
