"""ImageReward (Xu et al., 2023): BLIP reads the prompt while it looks at the image, and five layers make it a score."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor, nn

from symskew.metrics.aesthetic import five_layers
from symskew.metrics.configs import fitting, read_beside, sizes
from symskew.metrics.kinds import Features, SampleMetric, sha256
from symskew.metrics.pixels import cropped, in_batches, tensors
from symskew.metrics.towers import DTYPES, ROOM, quantity
from symskew.metrics.weights import Site, Source, load_strictly, locate, published, read
from symskew.metrics.words import word_pieces

__all__ = ["BERT", "WEIGHTS", "BlipTokens", "ImageReward"]

WEIGHTS = Source(
    "imagereward",
    ("ImageReward.pt",),
    1_790_000_000,
    "Apache-2.0",
    repo="THUDM/ImageReward",
    optional=("med_config.json",),
)
BERT = Source(
    "bert",
    ("vocab.txt",),
    231_508,
    "Apache-2.0",
    repo="google-bert/bert-base-uncased",
    digests={"vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"},
)
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the authors' scores, which they take off and divide by."""
_TEXT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "max_position_embeddings": 512,
    "vocab_size": 30524,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
"""What med_config.json says; its other entries are for training."""
_HEAD_DIM = 64
_UNUSED = re.compile(r"blip\.(vision_proj|text_proj)\.|.*\.position_ids$")
_NAMES = (
    (r"^blip\.visual_encoder\.cls_token$", "vision.embeddings.class_embedding"),
    (r"^blip\.visual_encoder\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"^blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"^blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision.encoder.layers.\1.layer_norm\2."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision.encoder.layers.\1.self_attn.projection."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.", r"vision.encoder.layers.\1.self_attn."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.", r"vision.encoder.layers.\1."),
    (r"^blip\.text_encoder\.", "text."),
    (r"^mlp\.layers\.", "head."),
)


class BlipTokens:
    """What BLIP's image encoder sees: one array, `tokens` (images, 197, 1024), too large to be stored."""

    version = "1"
    kept = False
    sources = (WEIGHTS, BERT)

    def __init__(self, dtype: str, site: Site) -> None:
        self.id, self.dtype, self._site = f"imagereward/{dtype}@{self.version}", dtype, site
        self.memory = 447_000_000 * DTYPES[dtype].itemsize + ROOM

    @property
    def weights(self) -> str:
        """SHA-256 of the weights' file."""
        return sha256(self._path)

    @torch.inference_mode()
    def extract(self, images: Sequence[Image]) -> dict[str, np.ndarray]:
        """The array of images of any size; `ValueError` for more than 8 bits a channel."""
        vision = self._network["vision"]
        pixels = tensors(self.id, images, cropped, vision.config.image_size)
        return {"tokens": in_batches(lambda some: vision(self._to(some)).last_hidden_state, pixels).numpy()}

    @torch.inference_mode()
    def read(self, tokens: Float[np.ndarray, "images tokens width"], prompts: Sequence[str]) -> Tensor:
        """The scores of prompts read before images, before the authors' mean and deviation are taken off."""
        ids, mask = self._tokenise(prompts)
        return in_batches(self._read, torch.from_numpy(tokens), ids, mask)[:, 0]

    def _read(self, tokens: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        device = self._site.device
        # Padding rows have no token at all, and a softmax over nothing is no number.
        mask = mask.to(device) | (torch.arange(mask.shape[1], device=device) == 0)
        found = self._network["text"](
            input_ids=ids.to(device), attention_mask=mask, encoder_hidden_states=self._to(tokens), is_decoder=False
        )
        return self._network["head"](found.last_hidden_state[:, 0].float())

    def _to(self, values: Tensor) -> Tensor:
        return values.to(self._site.device, DTYPES[self.dtype])

    @cached_property
    def _path(self) -> Path:
        return locate(WEIGHTS, self._site)

    @cached_property
    def _tokenise(self) -> Any:
        # Another vocabulary, or a part of this one, would make other tokens, which the network takes as well.
        return word_pieces(published(BERT, locate(BERT, self._site)))

    @cached_property
    def _network(self) -> Any:
        state = _renamed(read(self._path, WEIGHTS))
        network = _blip(state, self._path)
        load_strictly(network, state, WEIGHTS, self._path)
        network.to(self._site.device, DTYPES[self.dtype])
        network["head"].float()  # as upstream
        return network.eval()


class ImageReward(SampleMetric):
    """ImageReward, version 1.0: what annotators would prefer; their mean is 0, their standard deviation 1."""

    def __init__(self, eye: BlipTokens) -> None:
        found = quantity("imagereward/v1.0", "ImageReward", "deviations", eye, short="imagereward")
        self.quantities, self.extractor, self._eye = (found,), eye.id, eye

    def score(self, features: Features, prompts: Sequence[str]) -> Float[np.ndarray, " images"]:
        """From `tokens`; prompts are cut to 35 word pieces, as by the authors."""
        tokens = features["tokens"]
        if len(tokens) != len(prompts):
            raise ValueError(
                f"{self.id}: expected a prompt for each image, got {len(prompts)} for {len(tokens)} images"
            )
        if not len(tokens):
            return np.zeros(0)
        return (self._eye.read(tokens, prompts).double().numpy() - MEAN) / STD


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        if _UNUSED.match(name):
            continue
        for pattern, new in _NAMES:
            if re.match(pattern, name):
                name = re.sub(pattern, new, name)
                break
        found[name] = value
    return found


def _blip(state: Mapping[str, Tensor], path: Path) -> nn.ModuleDict:
    """BLIP's encoders, as large as the weights are, and the five layers."""
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    try:
        width, _, patch, _ = state["vision.embeddings.patch_embedding.weight"].shape
        positions = state["vision.embeddings.position_embedding"].shape[1]
        inner = state["vision.encoder.layers.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise ValueError(
            f"imagereward: {path} holds other weights than ImageReward's: there is no {error}; {WEIGHTS.remedy}"
        ) from error
    written = read_beside(path, "med_config.json", WEIGHTS)
    vision = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=len({name.split(".")[3] for name in state if name.startswith("vision.encoder.layers.")}),
        num_attention_heads=width // _HEAD_DIM,
        image_size=round((positions - 1) ** 0.5) * patch,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    with fitting(path, "med_config.json", WEIGHTS):
        text = BlipTextConfig(
            **(_TEXT | sizes(written, _TEXT)), encoder_hidden_size=width, is_decoder=True, pad_token_id=0
        )
        parts = {
            "vision": BlipVisionModel(vision),
            "text": BlipTextModel(text, add_pooling_layer=False),
            "head": five_layers(text.hidden_size),
        }
    return nn.ModuleDict(parts)
