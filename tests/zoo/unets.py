"""UNets: the spatial layers of each resolution, and the temporal ones of video beside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import randn

from zoo.entry import model

BLOCKS: dict[str, Any] = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8}
TEXT: dict[str, Any] = {"cross_attention_dim": 6, "attention_head_dim": 4}
CROSS: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
SPACETIME: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
}
OWN = "it never called scaled_dot_product_attention"
RECTANGULAR = "has queries for some of its tokens only"


def latents(*shape: int) -> dict[str, Any]:
    """Latents, a text, and a time."""
    shape = shape or (2, 4, 8, 16)
    return {"sample": randn(*shape), "timestep": torch.tensor(500), "encoder_hidden_states": randn(2, 5, 6)}


@model("UNet2DConditionModel", image="sample")
def condition():
    return {**BLOCKS, **TEXT, **CROSS}, latents()


@model(
    "UNet2DConditionModel",
    "of Kandinsky 2 and DeepFloyd IF",
    refused={f"{side}.attentions.*": RECTANGULAR for side in ("down_blocks.*", "mid_block", "up_blocks.*")},
    note="keys of the text are beside the image's own",
)
def added_keys():
    config = {**BLOCKS, **TEXT, "mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}
    config |= {"down_block_types": ("SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D")}
    return config | {"up_block_types": ("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D")}, latents()


@model("UNet2DModel", image="sample")
def unconditional():
    config = {**BLOCKS, "in_channels": 4, "out_channels": 4, "attention_head_dim": 4}
    config |= {"down_block_types": ("AttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "AttnUpBlock2D")}
    return config, {"sample": randn(2, 4, 8, 16), "timestep": torch.tensor(500)}


@model("UNet3DConditionModel", image="sample", axes="bcfhw")
def video():
    return {**BLOCKS, **TEXT, **SPACETIME}, latents(2, 4, 2, 8, 16)


@model("UNetMotionModel", image="sample", axes="bcfhw")
def motion():
    config = {**BLOCKS, "cross_attention_dim": 6, "num_attention_heads": 2, "motion_num_attention_heads": 2}
    config |= {"down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion")}
    return config | {"up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion")}, {
        **latents(2, 4, 2, 8, 16),
        "encoder_hidden_states": randn(4, 5, 6),
    }


@model("I2VGenXLUNet", image="sample", axes="bcfhw")
def i2vgen():
    arguments = {**latents(2, 4, 2, 8, 16), "image_latents": randn(2, 4, 2, 8, 16), "fps": torch.tensor([8, 8])}
    return {**BLOCKS, **TEXT, **SPACETIME}, arguments | {"image_embeddings": randn(2, 6)}


@model("UNetSpatioTemporalConditionModel", image="sample", axes="bfchw")
def spatio_temporal():
    config = {**BLOCKS, "block_out_channels": (32, 32), "num_attention_heads": (2, 2), "cross_attention_dim": 6}
    del config["norm_num_groups"]
    config |= {"down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal")}
    config |= {"up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), "in_channels": 4}
    config |= {"addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 12}
    return config, {**latents(2, 2, 4, 8, 16), "added_time_ids": torch.ones(2, 3)}


@model("UNet1DModel", refused={f"{side}.attentions.*": OWN for side in ("down_blocks.*", "mid_block", "up_blocks.*")})
def sound():
    config = {"sample_size": 64, "block_out_channels": (32, 32, 64), "extra_in_channels": 64}
    return config, {"sample": randn(2, 2, 256), "timestep": torch.tensor([5, 6])}


@model("Kandinsky3UNet", image="sample")
def kandinsky3():
    config = {"time_embedding_dim": 8, "groups": 2, "attention_head_dim": 4, "layers_per_block": 2}
    config |= {"block_out_channels": (8, 8, 8, 8), "cross_attention_dim": 6, "encoder_hid_dim": 6}
    return config, {**latents(2, 4, 32, 32), "encoder_attention_mask": torch.ones(2, 5)}


@model(
    "StableCascadeUNet",
    image="sample",
    refused={f"{side}_blocks.*.*.attention": RECTANGULAR for side in ("down", "up")},
)
def cascade():
    config = {"in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16), "num_attention_heads": (2, 2)}
    config |= {"down_num_layers_per_block": (1, 1), "up_num_layers_per_block": (1, 1), "conditioning_dim": 8}
    config |= {"clip_text_in_channels": 6, "clip_text_pooled_in_channels": 6, "clip_image_in_channels": 6}
    arguments = {"sample": randn(2, 4, 8, 16), "timestep_ratio": torch.tensor([0.5, 0.6])}
    text = {"clip_text_pooled": randn(2, 1, 6), "clip_text": randn(2, 5, 6), "clip_img": randn(2, 1, 6)}
    return config | {"timestep_ratio_embedding_dim": 8}, arguments | text


@model("UVit2DModel", image="input_ids", axes="bhw")
def uvit():
    config = {"hidden_size": 16, "cond_embed_dim": 6, "micro_cond_encode_dim": 2, "micro_cond_embed_dim": 10}
    config |= {"encoder_hidden_size": 6, "vocab_size": 12, "codebook_size": 10, "in_channels": 8, "sample_size": 6}
    config |= {"block_out_channels": 8, "num_res_blocks": 1, "block_num_heads": 2, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 2, "intermediate_size": 16}
    arguments = {"input_ids": torch.randint(10, (2, 6, 6)), "encoder_hidden_states": randn(2, 5, 6)}
    return config, arguments | {"pooled_text_emb": randn(2, 6), "micro_conds": torch.ones(2, 5)}


@model("DreamLiteUNetModel", image="sample")
def dream_lite():
    config = {**BLOCKS, "cross_attention_dim": 6, "block_out_channels": (8, 8, 16), "attention_head_dim": 2}
    return {**config, "ff_mult": 1}, latents(2, 4, 16, 32)


@model("DreamLiteTransformer2DModel")
def dream_lite_transformer():
    config = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 16, "norm_num_groups": 4}
    config |= {"cross_attention_dim": 6, "ff_mult": 1}
    return config, {"hidden_states": randn(2, 16, 6, 8), "encoder_hidden_states": randn(2, 5, 6)}


@model("AudioLDM2UNet2DConditionModel", image="sample")
def audio_ldm2():
    return {**BLOCKS, **TEXT, **CROSS}, latents()


@model("TransformerTemporalModel", unknown="it attends over frames")
def temporal():
    config = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 16, "norm_num_groups": 4}
    return config, {"hidden_states": randn(10, 16, 2, 2), "num_frames": 5}


@model("UniDiffuserModel", image="latent_image_embeds", unknown="two times, a text and a picture come first")
def uni_diffuser():
    config = {"text_dim": 6, "clip_img_dim": 6, "num_text_tokens": 5, "num_attention_heads": 2, "attention_head_dim": 8}
    config |= {"in_channels": 4, "out_channels": 4, "num_layers": 2, "sample_size": 8, "patch_size": 2}
    arguments = {
        "latent_image_embeds": randn(2, 4, 8, 8),
        "image_embeds": randn(2, 1, 6),
        "prompt_embeds": randn(2, 5, 6),
    }
    config |= {"block_type": "unidiffuser", "norm_type": "layer_norm", "use_timestep_embedding": False}
    return config, {**arguments, "timestep_img": 500, "timestep_text": 400, "encoder_hidden_states": None}


@model("UTransformer2DModel", patch=(2, 2))
def u_transformer():
    config = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 4, "num_layers": 2}
    return config | {"sample_size": 8, "norm_type": "layer_norm"}, {"hidden_states": randn(2, 4, 8, 8)}


@model("WuerstchenPrior", image="x", refused={"blocks.*.attention": "it multiplies matrices itself"})
def wuerstchen_prior():
    arguments = {"x": randn(2, 4, 6, 8), "r": torch.tensor([0.5, 0.6]), "c": randn(2, 5, 6)}
    return {"c_in": 4, "c": 8, "c_cond": 6, "c_r": 8, "depth": 1, "nhead": 2}, arguments


@model(
    "WuerstchenDiffNeXt", image="x", refused={f"{side}_blocks.*.*.attention": RECTANGULAR for side in ("down", "up")}
)
def wuerstchen_decoder():
    config = {
        "c_r": 8,
        "c_cond": 6,
        "c_hidden": [8, 8],
        "nhead": [-1, 2],
        "blocks": [1, 1],
        "level_config": ["CT", "CTA"],
    }
    config |= {"inject_effnet": [False, True], "effnet_embd": 4, "clip_embd": 6}
    arguments = {"x": randn(2, 4, 8, 8), "r": torch.tensor([0.5, 0.6]), "effnet": randn(2, 4, 4, 4)}
    return config, arguments | {"clip": randn(2, 5, 6)}


@model("UNetFlatConditionModel", image="sample", patch=(4, 1))
def flat():
    config = {**BLOCKS, **TEXT, "down_block_types": ("CrossAttnDownBlockFlat", "DownBlockFlat")}
    config |= {"up_block_types": ("UpBlockFlat", "CrossAttnUpBlockFlat")}
    return config, latents(2, 4, 4, 1)
