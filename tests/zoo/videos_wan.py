"""Video transformers of the Wan family: self-attention over all frames, text by cross-attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import randn
from torch.nn.attention.flex_attention import create_block_mask

from zoo.classes import load
from zoo.entry import model
from zoo.images import RECTANGULAR
from zoo.videos import BLOCK_MASK, CHANNELS, FRAMES, SIDES, latents

WAN: dict[str, Any] = {
    **SIDES,
    **CHANNELS,
    "text_dim": 6,
    "freq_dim": 8,
    "ffn_dim": 16,
    "num_layers": 2,
    "rope_max_seq_len": 16,
}


@model("WanTransformer3DModel", **FRAMES)
def wan():
    return {**WAN, "image_dim": 6, "added_kv_proj_dim": 24}, {
        **latents(),
        "encoder_hidden_states_image": randn(2, 3, 6),
    }


@model("WanVACETransformer3DModel", **FRAMES)
def wan_vace():
    config = {**WAN, "vace_layers": [0], "vace_in_channels": 5}
    return config, {**latents(), "control_hidden_states": randn(2, 5, 2, 4, 6)}


@model("ChronoEditTransformer3DModel", **FRAMES)
def chrono_edit():
    return WAN, latents()


@model("SkyReelsV2Transformer3DModel", **FRAMES)
def sky_reels():
    return {**WAN, "num_frame_per_block": 1}, latents()


@model("AnyFlowTransformer3DModel", axes="bfchw", patch=(1, 2, 2))
def any_flow():
    time = {"timestep": torch.tensor([[500.0] * 2] * 2), "r_timestep": torch.tensor([[400.0] * 2] * 2)}
    return WAN, {**latents(), **time, "hidden_states": randn(2, 2, 4, 4, 6)}


@model("HeliosTransformer3DModel", **FRAMES)
def helios():
    config = {**WAN, "rope_dim": (4, 4, 4)}
    del config["rope_max_seq_len"]
    past = {"latents_history_short": randn(2, 4, 1, 4, 6), "indices_latents_history_short": torch.zeros(2, 1).long()}
    return config, {**latents(), **past, "indices_hidden_states": torch.arange(1, 3).expand(2, -1)}


@model("WanAnimateTransformer3DModel", **FRAMES)
def wan_animate():
    config = {**WAN, "in_channels": 12, "latent_channels": 4, "image_dim": 6, "added_kv_proj_dim": 24}
    config |= {"motion_encoder_channel_sizes": {"4": 8, "8": 8, "16": 8}, "motion_encoder_size": 16}
    config |= {"motion_style_dim": 8, "motion_dim": 4, "motion_encoder_dim": 8, "face_encoder_hidden_dim": 8}
    config |= {"face_encoder_num_heads": 2, "inject_face_latents_blocks": 2}
    extra = {"pose_hidden_states": randn(2, 4, 1, 4, 6), "face_pixel_values": randn(2, 3, 5, 16, 16)}
    extra |= {"hidden_states": randn(2, 12, 2, 4, 6), "encoder_hidden_states_image": randn(2, 3, 6)}
    return config, {**latents(), **extra}


@model("AnyFlowFARTransformer3DModel", refused={"blocks.*.attn1": BLOCK_MASK}, note="chunk by chunk")
def any_flow_far():
    time = {"timestep": torch.tensor([[500.0] * 2] * 2), "r_timestep": torch.tensor([[400.0] * 2] * 2)}
    return WAN, {**latents(), **time, "hidden_states": randn(2, 2, 4, 4, 8), "chunk_partition": [1, 1]}


def wan_animate_2(mode: str, **more: Any) -> tuple[Any, dict[str, Any]]:
    # Here, since an older diffusers has none.
    from diffusers.models.transformers.transformer_wan_animate_2 import WanAnimate2KVCache

    config = {"text_len": 5, "in_dim": 8, "dim": 32, "ffn_dim": 16, "freq_dim": 8, "text_dim": 6, "out_dim": 4}
    config |= {"num_heads": 2, "num_layers": 1, "use_img_emb": False}

    def build() -> torch.nn.Module:
        built = load("WanAnimate2Transformer3DModel")(**config)
        # The model compiles one of its own for every size.
        built.block_masks[2, 6] = create_block_mask(lambda b, h, q, k: k < 18, None, None, 128, 256, "cpu")
        return built

    cache = WanAnimate2KVCache(1)
    cache.get(0).store(randn(1, 12, 2, 16), randn(1, 12, 2, 16))
    arguments = {"hidden_states": [randn(4, 2, 4, 6)], "condition_latents": [randn(4, 2, 4, 6)], "seq_len": 12}
    arguments |= {"timestep": torch.tensor([500.0]), "encoder_hidden_states": [randn(5, 6)], "kv_cache": cache}
    return build, {**arguments, "kv_cache_mode": mode, **more}


SIZES = torch.tensor([[2, 2, 3]])


@model(
    "WanAnimate2Transformer3DModel",
    dtype=torch.float32,
    refused={"blocks.*.self_attn": RECTANGULAR},
    note="keys of the reference come from a cache, by flex attention",
)
def wan_animate_2_frames():
    return wan_animate_2("cached", reference_grid_sizes=SIZES, origin_len=5, origin_area=[32, 48])


@model(
    "WanAnimate2Transformer3DModel", "the pass over its reference", dtype=torch.float32, axes="cfhw", patch=(1, 2, 2)
)
def wan_animate_2_reference():
    return wan_animate_2("extract", offset_grid_sizes=SIZES)
