"""The Inception network of FID, and the two ways to bring an image to its size that published values are made with.

Its blocks and TensorFlow 1's resizing are torch-fidelity's, which are exact conversions. The rest of torch-fidelity is
not used: it unpickles weights, knows a set of images by the name of a cache alone, and takes no image that was resized
before. What it computes from features, `frechet`, `kernel` and `neighbours` compute too, and for many subsets at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from symskew.metrics.networks import FeatureNetwork
from symskew.metrics.weights import Site, Source, load_strictly, read
from symskew.table import need

__all__ = ["INCEPTION", "SIZE", "Inception", "clean", "inceptions", "tf1"]

_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION = Source(
    "inception",
    (_FILE,),
    95_628_359,
    "Apache-2.0",
    url=f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{_FILE}",
    digests={_FILE: "6726825d"},
)
SIZE = 299


class Inception(FeatureNetwork):
    """The 2,048 numbers before the last layer of TensorFlow's Inception v3 of 2015-12-05, whatever the resizing."""

    def _load(self) -> Any:
        need("torchvision", "metrics")
        from torchvision.models import Inception3

        parts = need("torch_fidelity.feature_extractor_inceptionv3", "metrics")
        # TensorFlow's two last blocks differ in what they pool by.
        last = {1280: parts.InceptionE_1, 2048: parts.InceptionE_2}
        blocks = [parts.BasicConv2d, parts.InceptionA, parts.InceptionB, parts.InceptionC, parts.InceptionD]
        blocks += [lambda width: last[width](width), nn.Identity]
        network = Inception3(1008, aux_logits=False, init_weights=False, inception_blocks=blocks)
        load_strictly(network, read(self._path, INCEPTION), INCEPTION, self._path)
        network.register_module("fc", nn.Identity())
        return network

    def _features(self, pixels: Float[Tensor, "images 3 299 299"]) -> Float[Tensor, "images 2048"]:
        return self._network(pixels)


def tf1(image: Image.Image, size: int) -> Float[Tensor, "3 size size"]:
    """As the FID of 2017: bilinear like TensorFlow 1, without antialiasing and from the corner on; then −1 to 1."""
    resize = need("torch_fidelity.interpolate_compat_tensorflow", "metrics").interpolate_bilinear_2d_like_tensorflow1x
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float()
    return (resize(pixels, size=(size, size), align_corners=False)[0] - 128) / 128


def clean(image: Image.Image, size: int) -> Float[Tensor, "3 size size"]:
    """As clean-fid: bicubic with antialiasing (PIL), in floating point, cut at 0 and 255, not rounded; then −1 to 1."""
    channels = [
        channel.convert("F").resize((size, size), Image.Resampling.BICUBIC) for channel in image.convert("RGB").split()
    ]
    pixels = torch.from_numpy(np.stack([np.asarray(channel).clip(0, 255) for channel in channels]))
    return (pixels - 128) / 128


def inceptions(site: Site) -> list[Inception]:
    """One for each way to resize."""
    ways = (
        ("inception-tf1", tf1, "299×299, TensorFlow 1 bilinear, not antialiased"),
        ("inception-clean", clean, "299×299, PIL bicubic, antialiased, floating point"),
    )
    return [
        Inception(name, INCEPTION, site, memory=1_500_000_000, size=SIZE, prepare=prepare, resize=resize)
        for name, prepare, resize in ways
    ]
