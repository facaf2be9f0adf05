"""Networks with a tower for images and one for texts, whose cosine says how well they fit: CLIP and what came of it."""

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
from torch.nn.functional import normalize

from symskew.metrics.configs import fitting, read_beside, sizes
from symskew.metrics.kinds import Extractor, Quantity, sha256
from symskew.metrics.pixels import Prepare, converted, cropped, in_batches, padded, tensors
from symskew.metrics.weights import Site, Source, load_strictly, locate, read
from symskew.metrics.words import Tokenise, openai_tokens, transformers_tokens
from symskew.table import need

__all__ = ["DTYPES", "ROOM", "HuggingFaceTowers", "OpenClipTowers", "Towers", "quantity", "towers"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
"""Number formats of networks by their names in ids. Upstream uses fp16 for CLIP and HPS on CUDA, else fp32."""
ROOM = 1_000_000_000
"""Bytes of a device beside the weights: its own libraries, and eight images on their way through."""
_MOST_TEXTS = 50_000
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
)
_TEXT = (*_SIZES, "max_position_embeddings", "vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")
_VISION = (*_SIZES, "image_size", "patch_size")
"""What config.json may say of CLIP's towers."""
_OPEN_CLIP = {
    "model_cfg": ("embed_dim", "quick_gelu", "vision_cfg", "text_cfg"),
    "vision_cfg": ("layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size"),
    "text_cfg": ("layers", "width", "heads", "mlp_ratio", "context_length", "vocab_size"),
}
"""Likewise open_clip_config.json."""


class Towers(ABC):
    """Images and texts as points on a sphere. One array, `embedding` (images, width) float32, of length 1.

    Args:
        source: of the weights.
        dtype: one of `DTYPES`.
        site: where to compute.
        parameters: of the published network.
        prepare: makes an image what the network takes.
        tokenise: likewise for texts.
    """

    version = "1"
    kept = True

    def __init__(
        self, source: Source, dtype: str, site: Site, *, parameters: int, prepare: Prepare, tokenise: Tokenise
    ) -> None:
        self.id, self.dtype, self.sources = f"{source.name}/{dtype}@{self.version}", dtype, (source,)
        self.memory = parameters * DTYPES[dtype].itemsize + ROOM
        self._source, self._site, self._prepare, self._tokenise = source, site, prepare, tokenise
        self._texts: dict[str, Tensor] = {}

    @property
    def weights(self) -> str:
        """SHA-256 of the weights' file."""
        return sha256(self._path)

    @torch.inference_mode()
    def extract(self, images: Sequence[Image]) -> dict[str, np.ndarray]:
        """The array of images of any size; `ValueError` for more than 8 bits a channel."""
        pixels = tensors(self.id, images, self._prepare, self._size)
        return {"embedding": in_batches(lambda some: self._images(self._to(some)), pixels).numpy()}

    @torch.inference_mode()
    def texts(self, prompts: Sequence[str]) -> Float[np.ndarray, "prompts width"]:
        """The embeddings of texts, cut to the 77 tokens that the network reads; kept, since they come again."""
        if unknown := [text for text in dict.fromkeys(prompts) if text not in self._texts]:
            if len(self._texts) > _MOST_TEXTS:
                self._texts.clear()
                unknown = list(dict.fromkeys(prompts))
            tokens = self._tokenise(unknown)
            made = in_batches(lambda some: self._words(some.to(self._site.device)), tokens)
            self._texts |= dict(zip(unknown, made, strict=True))
        return torch.stack([self._texts[text] for text in prompts]).numpy()

    @property
    def scale(self) -> float:
        """What the network multiplies cosines by: e to its learned logit scale."""
        return float(self._network.logit_scale.float().exp())

    def _to(self, pixels: Tensor) -> Tensor:
        return pixels.to(self._site.device, DTYPES[self.dtype])

    @cached_property
    def _path(self) -> Path:
        return locate(self._source, self._site)

    @cached_property
    def _network(self) -> Any:
        return self._load().to(self._site.device, DTYPES[self.dtype]).eval()

    @property
    @abstractmethod
    def _size(self) -> int:
        """The side of the images that the network takes."""

    @abstractmethod
    def _load(self) -> Any:
        """The network, in single precision on the CPU."""

    @abstractmethod
    def _images(self, pixels: Tensor) -> Tensor:
        """Embeddings of length 1."""

    @abstractmethod
    def _words(self, tokens: Tensor) -> Tensor:
        """Likewise."""


class HuggingFaceTowers(Towers):
    """A `CLIPModel` of transformers: a folder with config.json beside the weights, as on the hub."""

    @property
    def _size(self) -> int:
        return self._network.config.vision_config.image_size

    def _load(self) -> Any:
        from transformers import CLIPConfig, CLIPModel

        state = read(self._path, self._source)
        # Older checkpoints have this buffer, which only counts.
        state = {name: value for name, value in state.items() if not name.endswith(".position_ids")}
        own = read_beside(self._path, "config.json", self._source)
        with fitting(self._path, "config.json", self._source):
            network = CLIPModel(
                CLIPConfig(
                    text_config=_tower(own, "text_config", _TEXT),
                    vision_config=_tower(own, "vision_config", _VISION),
                    **sizes(own, ["projection_dim"]),
                )
            )
        load_strictly(network, state, self._source, self._path)
        return network

    def _images(self, pixels: Tensor) -> Tensor:
        found = self._network.vision_model(pixel_values=pixels).pooler_output
        return normalize(self._network.visual_projection(found), dim=-1)

    def _words(self, tokens: Tensor) -> Tensor:
        found = self._network.text_model(input_ids=tokens).pooler_output
        return normalize(self._network.text_projection(found), dim=-1)


class OpenClipTowers(Towers):
    """A network of open_clip, of the shape that open_clip_config.json beside the weights says, or else a ViT-H-14."""

    @property
    def _size(self) -> int:
        return self._network.visual.image_size[0]

    def _load(self) -> Any:
        open_clip = need("open_clip", "metrics")
        state = read(self._path, self._source)
        own = read_beside(self._path, "open_clip_config.json", self._source)
        with fitting(self._path, "open_clip_config.json", self._source):
            network = open_clip.CLIP(**_plain(own.get("model_cfg", open_clip.get_model_config("ViT-H-14"))))
        load_strictly(network, state.get("state_dict", state), self._source, self._path)
        return network

    def _images(self, pixels: Tensor) -> Tensor:
        return self._network.encode_image(pixels, normalize=True)

    def _words(self, tokens: Tensor) -> Tensor:
        return self._network.encode_text(tokens, normalize=True)


def _tower(own: dict[str, Any], name: str, names: Sequence[str]) -> dict[str, Any]:
    """Of one tower; older files say it twice, the second time under another name, and that counts."""
    return sizes(own.get(name) or {}, names) | sizes(own.get(f"{name}_dict") or {}, names)


def _plain(own: Any) -> dict[str, Any]:
    """A shape for open_clip, which downloads what its entries timm_… and hf_… name, so that those are refused."""
    for part, written in {"model_cfg": own, **sizes(own, ["vision_cfg", "text_cfg"])}.items():
        known = sizes(written, _OPEN_CLIP[part])
        if unknown := sorted(written.keys() - known.keys()):
            raise ValueError(f"{part} may hold {', '.join(_OPEN_CLIP[part])}, and holds {', '.join(unknown)}")
    return own


def quantity(name: str, title: str, unit: str, eye: Extractor, *, short: str) -> Quantity:
    """A quantity of which more is better, named after the number format and version of its extractor too.

    In single precision it can be called `short`, otherwise `short/fp16`.
    """
    single = eye.dtype == "fp32"
    return Quantity(
        f"{name}/{eye.dtype}@{eye.version}",
        title if single else f"{title}, {eye.dtype}",
        unit,
        True,
        eye.version,
        short if single else f"{short}/{eye.dtype}",
    )


CLIP_L = Source(
    "clip-l",
    ("model.safetensors", "pytorch_model.bin"),
    1_710_000_000,
    "MIT (of its repository, openai/CLIP)",
    repo="openai/clip-vit-large-patch14",
    beside=("config.json",),
)
CLIP_B32 = Source(
    "clip-b32",
    ("model.safetensors", "pytorch_model.bin"),
    605_000_000,
    "MIT (of its repository, openai/CLIP)",
    repo="openai/clip-vit-base-patch32",
    beside=("config.json",),
)
PICKSCORE = Source(
    "pickscore",
    ("model.safetensors", "pytorch_model.bin"),
    3_944_000_000,
    "MIT (of its repository, yuvalkirstain/PickScore)",
    repo="yuvalkirstain/PickScore_v1",
    beside=("config.json",),
)
HPS = Source(
    "hps",
    ("HPS_v2.1_compressed.pt",),
    1_972_000_000,
    "Apache-2.0",
    repo="xswu/HPSv2",
    optional=("open_clip_config.json",),
)


def towers(site: Site) -> list[Towers]:
    """All of them, in every number format."""
    made: list[Towers] = []
    for dtype in DTYPES:
        made += [
            HuggingFaceTowers(CLIP_L, dtype, site, parameters=427_616_513, prepare=cropped, tokenise=openai_tokens),
            HuggingFaceTowers(CLIP_B32, dtype, site, parameters=151_277_313, prepare=cropped, tokenise=openai_tokens),
            HuggingFaceTowers(
                PICKSCORE, dtype, site, parameters=986_109_441, prepare=converted, tokenise=transformers_tokens
            ),
            OpenClipTowers(HPS, dtype, site, parameters=986_109_441, prepare=padded, tokenise=openai_tokens),
        ]
    return made
