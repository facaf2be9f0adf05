"""DINOv2 as an extractor: the features in which Stein et al. (2023) found sets of images best compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from symskew.metrics.configs import fitting, read_beside, sizes
from symskew.metrics.networks import FeatureNetwork
from symskew.metrics.weights import Site, Source, load_strictly, read

__all__ = ["DINOV2_L", "DinoV2", "dinov2", "squashed"]

DINOV2_L = Source(
    "dinov2-l",
    ("model.safetensors", "pytorch_model.bin"),
    1_217_522_888,
    "Apache-2.0",
    repo="facebook/dinov2-large",
    beside=("config.json",),
)
SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet."""
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "patch_size", "hidden_act",
          "layer_norm_eps", "qkv_bias", "use_swiglu_ffn")  # fmt: skip
"""What config.json may say."""
RENAMED = {"attention.attention.query": "attention.q_proj", "attention.attention.key": "attention.k_proj",
           "attention.attention.value": "attention.v_proj", "attention.output.dense": "attention.o_proj"}  # fmt: skip
"""What transformers 5 calls the tensors of the published file."""


class DinoV2(FeatureNetwork):
    """The normalised class token of a `Dinov2Model` of transformers: config.json beside the weights, as on the hub."""

    def _load(self) -> Any:
        from transformers import Dinov2Config, Dinov2Model

        state = read(self._path, self._source)
        own, places = read_beside(self._path, "config.json", self._source), "embeddings.position_embeddings"
        with fitting(self._path, "config.json", self._source):
            config: Any = Dinov2Config(**sizes(own, _SIZES), image_size=SIZE)
            if places in state:
                state[places] = placed(state[places], SIZE // config.patch_size)
            network = Dinov2Model(config)
        if not set(state) <= set(wanted := network.state_dict()):
            state = {_renamed(name) if _renamed(name) in wanted else name: value for name, value in state.items()}
        load_strictly(network, state, self._source, self._path)
        return network

    def _features(self, pixels: Float[Tensor, "images 3 224 224"]) -> Float[Tensor, "images width"]:
        return self._network(pixels).pooler_output


def _renamed(name: str) -> str:
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


def placed(positions: Float[Tensor, "1 tokens width"], side: int) -> Float[Tensor, "1 fewer width"]:
    """The embeddings of positions for side × side patches, interpolated as Meta's code does it.

    Published ones are for 37 × 37. Meta's code scales by (side + 0.1) / 37, transformers by side / 37, which moves the
    features by 1.5·10⁻⁴ of their size.
    """
    own, patches = positions[:, :1], positions[:, 1:]
    before = round(patches.shape[1] ** 0.5)
    if before == side:
        return positions
    grid = patches.float().unflatten(1, (before, before)).permute(0, 3, 1, 2)
    scaled = interpolate(grid, scale_factor=(side + 0.1) / before, mode="bicubic")
    return torch.cat([own, scaled.flatten(2).transpose(1, 2)], 1)


def squashed(image: Image.Image, size: int) -> Float[Tensor, "3 size size"]:
    """As dgm-eval: to a square whatever the shape (PIL, bicubic, 8 bits), then normalised; nothing is cut off."""
    resized = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def dinov2(site: Site) -> DinoV2:
    """The large one, with 1,024 features."""
    return DinoV2(
        "dinov2-l", DINOV2_L, site, memory=3_000_000_000, size=SIZE, prepare=squashed,
        resize="224×224 whatever the shape, PIL bicubic, antialiased, 8 bits",
    )  # fmt: skip
