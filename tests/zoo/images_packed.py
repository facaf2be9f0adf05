"""Image transformers that are given packed tokens, after FLUX: double blocks of two streams, single blocks of one."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, randn

from zoo.classes import load
from zoo.entry import model
from zoo.images import RECTANGULAR, TEXT_KEYS

GRID = (3, 4)
SIDES: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8}
STREAMS: dict[str, Any] = {"num_layers": 1, "num_single_layers": 2, "in_channels": 4, "joint_attention_dim": 6, **SIDES}
PACKED: dict[str, Any] = {"axes": "btc", "grid": GRID}
TEXT = 5
PARTS = "a causal text, then each image with what came before it"


def places(size: int = 3, text: int = TEXT, start: int = 0) -> dict[str, Tensor]:
    """Position ids of image and text, as wide as `size`: rows in column 1, columns in column 2."""
    ids = torch.zeros(*GRID, size)
    ids[..., 1], ids[..., 2] = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij")
    return {"img_ids": ids.flatten(0, 1) + start, "txt_ids": torch.zeros(text, size)}


def tokens(text: int = TEXT, width: int = 6, channels: int = 4) -> dict[str, Tensor]:
    """Packed image tokens and features of a text."""
    return {"hidden_states": randn(2, 12, channels), "encoder_hidden_states": randn(2, text, width)}


TIME = {"timestep": torch.tensor([0.5, 0.6])}


@model("FluxTransformer2DModel", **PACKED)
def flux():
    config = {**STREAMS, "pooled_projection_dim": 6, "axes_dims_rope": (2, 2, 4)}
    return config, {**tokens(), **places(), **TIME, "pooled_projections": randn(2, 6)}


@model("Flux2Transformer2DModel", **PACKED)
def flux2():
    config = {**STREAMS, "axes_dims_rope": (2, 2, 2, 2), "timestep_guidance_channels": 8}
    return config, {**tokens(), **places(4), **TIME, "guidance": torch.tensor([4.0, 5.0])}


@model("Flux3Transformer2DModel", **PACKED)
def flux3():
    config = {**STREAMS, "axes_dims_rope": (2, 2, 2, 2), "timestep_channels": 8, "cond_in_channels": 4}
    return config, {**tokens(), **places(4), **TIME}


@model("ChromaTransformer2DModel", **PACKED)
def chroma():
    config = {**STREAMS, "axes_dims_rope": (2, 2, 4), "approximator_num_channels": 8, "approximator_hidden_dim": 8}
    config |= {"approximator_layers": 1}
    return config, {**tokens(), **places(), **TIME}


@model("BriaTransformer2DModel", **PACKED)
def bria():
    return {**STREAMS, "axes_dims_rope": [2, 2, 4]}, {**tokens(), **places(), **TIME}


@model("BriaFiboTransformer2DModel", **PACKED)
def bria_fibo():
    config = {**STREAMS, "axes_dims_rope": [2, 2, 4], "text_encoder_dim": 8}
    layers = [randn(2, TEXT, 8) for _ in range(3)]
    return config, {**tokens(), **places(), **TIME, "text_encoder_layers": layers}


@model("LongCatImageTransformer2DModel", **PACKED)
def longcat_image():
    return {**STREAMS, "pooled_projection_dim": 6, "axes_dims_rope": [2, 2, 4]}, {**tokens(), **places(), **TIME}


@model("OvisImageTransformer2DModel", **PACKED)
def ovis_image():
    return {**STREAMS, "axes_dims_rope": (2, 2, 4)}, {**tokens(), **places(), **TIME}


def lengths(name: str) -> dict[str, Any]:
    """How long the texts are, which an older diffusers wants to be told."""
    return {"txt_seq_lens": [TEXT, TEXT]} if "txt_seq_lens" in inspect.signature(load(name).forward).parameters else {}


@model("QwenImageTransformer2DModel", **PACKED)
def qwen_image():
    config = {**SIDES, "num_layers": 2, "in_channels": 4, "out_channels": 1, "joint_attention_dim": 6}
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    arguments = {**tokens(), **TIME, "img_shapes": [[(1, 3, 4)]] * 2, "encoder_hidden_states_mask": mask}
    return {**config, "axes_dims_rope": (2, 2, 4)}, arguments | lengths("QwenImageTransformer2DModel")


@model(
    "NucleusMoEImageTransformer2DModel", refused={"transformer_blocks.*.attn": RECTANGULAR}, note=TEXT_KEYS, **PACKED
)
def nucleus():
    config = {**SIDES, "num_layers": 2, "in_channels": 4, "out_channels": 1, "joint_attention_dim": 6}
    config |= {"axes_dims_rope": (2, 2, 4), "moe_enabled": False, "num_key_value_heads": 1}
    return config, {**tokens(), **TIME, "img_shapes": [(1, 3, 4)] * 2}


@model("QwenImage21Transformer2DModel", refused={"transformer_blocks.*.attn": "attends in parts"}, note=PARTS)
def qwen_image_21():
    config = {**SIDES, "num_layers": 2, "in_channels": 4, "out_channels": 4, "context_in_dim": 6}
    shapes, text = [[(1, 2, 6)]] * 2, torch.tensor([False] * TEXT + [True] * 3).expand(2, -1)
    return {**config, "axes_dims_rope": (2, 2, 4)}, {**tokens(), **TIME, "img_shapes": shapes, "img_mask": text}


@model("Krea2Transformer2DModel", **PACKED)
def krea2():
    config = {
        **SIDES, "num_key_value_heads": 1, "in_channels": 4, "num_layers": 2, "intermediate_size": 16,
        "timestep_embed_dim": 8, "text_hidden_dim": 6, "num_text_layers": 2, "text_num_attention_heads": 1,
        "text_num_key_value_heads": 1, "text_intermediate_size": 8, "num_layerwise_text_blocks": 1,
        "num_refiner_text_blocks": 1, "axes_dims_rope": (2, 2, 4),
    }  # fmt: skip
    ids = torch.cat(list(reversed(places().values())))
    text = {"encoder_hidden_states": randn(2, TEXT, 2, 6)}
    return config, {"hidden_states": randn(2, 12, 4), **text, **TIME, "position_ids": ids}


@model("Ideogram4Transformer2DModel", axes="btc", grid=GRID, before=TEXT)
def ideogram4():
    config = {**SIDES, "in_channels": 4, "num_layers": 2, "intermediate_size": 16, "adaln_dim": 8}
    config |= {"llm_features_dim": 6, "mrope_section": (2, 1, 1)}
    where = torch.cat(list(reversed(places().values()))).long() + torch.tensor([1, 0, 0])
    role = torch.tensor([3] * TEXT + [2] * 12)  # of a token: of a text, or of the image
    arguments = {"hidden_states": randn(2, TEXT + 12, 4), "encoder_hidden_states": randn(2, TEXT + 12, 6), **TIME}
    arguments |= {"position_ids": where.expand(2, -1, -1), "indicator": role.expand(2, -1)}
    return config, {**arguments, "segment_ids": torch.ones(2, TEXT + 12).long()}
