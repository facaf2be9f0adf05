"""ControlNets, given to control themselves: what they compute is added to a denoiser."""

from __future__ import annotations

import torch
from torch import randn

from zoo import images, images_packed, unets
from zoo.classes import load
from zoo.entry import model


@model("ControlNetModel", image="sample")
def controlnet():
    config = {name: value for name, value in unets.BLOCKS.items() if name != "sample_size"}
    config |= {**unets.TEXT, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
    config |= {"conditioning_embedding_out_channels": (4, 4)}
    return config, {**unets.latents(), "controlnet_cond": randn(2, 3, 16, 32)}


@model("SD3ControlNetModel", **images.PATCHED)
def sd3():
    config, arguments = images.sd3()
    return {**config, "num_layers": 1}, {**arguments, "controlnet_cond": randn(2, 4, 6, 8)}


@model("FluxControlNetModel", **images_packed.PACKED)
def flux():
    config, arguments = images_packed.flux()
    return {**config, "axes_dims_rope": [2, 2, 4]}, {**arguments, "controlnet_cond": randn(2, 12, 4)}


@model("QwenImageControlNetModel", **images_packed.PACKED)
def qwen():
    config, arguments = images_packed.qwen_image()
    return config, {**arguments, "controlnet_cond": randn(2, 12, 4)}


@model(
    "ControlNetUnionModel",
    image="sample",
    besides={"transformer_layes.*.attn": "torch.nn.MultiheadAttention of the conditions, left alone"},
)
def union():
    config, arguments = controlnet()
    config |= {"num_trans_channel": 8, "num_trans_head": 2, "num_proj_channel": 8, "addition_embed_type": "text_time"}
    config |= {"addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 6 + 24}
    added = {"text_embeds": randn(2, 6), "time_ids": torch.ones(2, 6)}
    control = {"controlnet_cond": [arguments["controlnet_cond"]], "control_type_idx": [0]}
    return config, {**arguments, **control, "control_type": torch.eye(6)[:1].expand(2, -1), "added_cond_kwargs": added}


@model("SparseControlNetModel", image="controlnet_cond", axes="bcfhw")
def sparse():
    config = {name: value for name, value in unets.BLOCKS.items() if name != "sample_size"}
    config |= {"cross_attention_dim": 6, "attention_head_dim": 2, "motion_num_attention_heads": 2}
    config |= {"down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion")}
    config |= {"conditioning_embedding_out_channels": (4, 4)}
    arguments = {**unets.latents(2, 4, 2, 8, 16), "encoder_hidden_states": randn(4, 5, 6)}
    return config, {
        **arguments,
        "controlnet_cond": randn(2, 4, 2, 8, 16),
        "conditioning_mask": torch.ones(2, 1, 2, 8, 16),
    }


@model("UNetControlNetXSModel", image="sample")
def xs():
    config = {**unets.BLOCKS, "cross_attention_dim": 6, "num_attention_heads": 2, **unets.CROSS}
    del config["layers_per_block"]
    config |= {"ctrl_conditioning_embedding_out_channels": (4, 4), "ctrl_block_out_channels": (4, 8)}
    config |= {"ctrl_num_attention_heads": 2, "ctrl_max_norm_num_groups": 4, "upcast_attention": False}
    return config, {**unets.latents(), "controlnet_cond": randn(2, 3, 16, 32)}


@model("HunyuanDiT2DControlNetModel", **images.PATCHED)
def hunyuan():
    config, arguments = images.hunyuan_dit()
    del config["num_layers"]
    return {**config, "transformer_num_layers": 4}, {**arguments, "controlnet_cond": randn(2, 4, 8, 8)}


@model("CosmosControlNetModel", image="latents", axes="bcfhw", patch=(1, 2, 2))
def cosmos():
    config = {"n_controlnet_blocks": 1, "in_channels": 6, "latent_channels": 6, "model_channels": 24}
    config |= {"num_attention_heads": 2, "attention_head_dim": 12, "text_embed_dim": 6, "adaln_lora_dim": 4}
    config |= {"max_size": (4, 4, 6), "rope_scale": (1.0, 1.0, 1.0), "encoder_hidden_states_channels": 6}
    arguments = {"latents": randn(2, 4, 2, 4, 6), "controls_latents": randn(2, 4, 2, 4, 6), **images.TIME}
    arguments |= {"encoder_hidden_states": randn(2, 5, 6), "condition_mask": torch.zeros(2, 1, 2, 4, 6)}
    return config, arguments | {"padding_mask": torch.zeros(1, 1, 4, 6)}


@model("SanaControlNetModel", refused={"transformer_blocks.*.attn1": "no softmax"})
def sana():
    config, arguments = images.sana()
    return config, {**arguments, "controlnet_cond": randn(2, 4, 6, 8)}


@model("ZImageControlNetModel", image="x", axes="cfhw", patch=(1, 2, 2))
def z_image():
    (config, arguments), name = images.z_image(), "ZImageControlNetModel"
    own = {"dim": 16, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "control_in_dim": 4}
    own |= {"control_layers_places": [0], "control_refiner_layers_places": [0]}

    def build() -> torch.nn.Module:
        transformer = load("ZImageTransformer2DModel")(**config)
        return load(name).from_transformer(load(name)(**own), transformer)

    return build, {**arguments, "control_context": arguments["x"]}
