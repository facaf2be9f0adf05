"""Image transformers that are given latents, and cut them into patches themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import randn

from zoo.entry import model

SIDES: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8}
PATCHED: dict[str, Any] = {"patch": (2, 2)}
TIME = {"timestep": torch.tensor([500.0, 600.0])}
TEXT_KEYS = "the text has keys, and no queries"
RECTANGULAR = "has queries for some of its tokens only"


def latents(channels: int = 4, text: int = 5, width: int = 6) -> dict[str, Any]:
    """Latents that make 3 × 4 patches, a text, and a time."""
    return {"hidden_states": randn(2, channels, 6, 8), "encoder_hidden_states": randn(2, text, width), **TIME}


def padded(name: str = "encoder_attention_mask", kind: Any = torch.long) -> dict[str, Any]:
    """A text of five tokens, and one of three."""
    return {name: torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).to(kind)}


@model("SD3Transformer2DModel", **PATCHED)
def sd3():
    config = {**SIDES, "sample_size": 8, "in_channels": 4, "out_channels": 4, "num_layers": 2, "joint_attention_dim": 6}
    config |= {"caption_projection_dim": 16, "pooled_projection_dim": 6, "pos_embed_max_size": 8}
    config |= {"dual_attention_layers": (0,), "qk_norm": "rms_norm"}
    return config, {**latents(), "pooled_projections": randn(2, 6)}


@model("AuraFlowTransformer2DModel", **PATCHED)
def aura_flow():
    config = {**SIDES, "sample_size": 8, "num_mmdit_layers": 1, "num_single_dit_layers": 1, "joint_attention_dim": 6}
    return config | {"caption_projection_dim": 16, "pos_embed_max_size": 16}, latents()


@model("PixArtTransformer2DModel", **PATCHED)
def pixart():
    config = {**SIDES, "sample_size": 8, "num_layers": 2, "cross_attention_dim": 16, "caption_channels": 6}
    config |= {"use_additional_conditions": False}
    return config, {**latents(), "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}


@model("DiTTransformer2DModel", **PATCHED)
def dit():
    config = {**SIDES, "sample_size": 8, "num_layers": 2, "in_channels": 4, "num_embeds_ada_norm": 8}
    arguments = {"hidden_states": randn(2, 4, 8, 8), "timestep": torch.tensor([3, 4])}
    return config, arguments | {"class_labels": torch.tensor([1, 2])}


@model("Transformer2DModel", **PATCHED)
def transformer_2d():
    config = {**SIDES, "sample_size": 8, "num_layers": 2, "in_channels": 4, "num_embeds_ada_norm": 8, "patch_size": 2}
    arguments = {"hidden_states": randn(2, 4, 8, 8), "timestep": torch.tensor([3, 4])}
    return config | {"norm_type": "ada_norm_zero"}, arguments | {"class_labels": torch.tensor([1, 2])}


@model("HunyuanDiT2DModel", **PATCHED)
def hunyuan_dit():
    config = {**SIDES, "in_channels": 4, "patch_size": 2, "sample_size": 8, "hidden_size": 16, "num_layers": 2}
    config |= {"cross_attention_dim": 6, "cross_attention_dim_t5": 8, "pooled_projection_dim": 4, "text_len": 5}
    config |= {"text_len_t5": 3, "activation_fn": "gelu-approximate", "use_style_cond_and_image_meta_size": False}
    masks = {"text_embedding_mask": torch.ones(2, 5), "text_embedding_mask_t5": torch.ones(2, 3)}
    return config, {
        **latents(),
        **masks,
        "hidden_states": randn(2, 4, 8, 8),
        "encoder_hidden_states_t5": randn(2, 3, 8),
    }


@model("LuminaNextDiT2DModel", **PATCHED)
def lumina_next():
    config = {"sample_size": 8, "in_channels": 4, "hidden_size": 16, "num_layers": 2, "num_attention_heads": 2}
    config |= {"num_kv_heads": 1, "multiple_of": 4, "cross_attention_dim": 6}
    rotary = torch.polar(torch.ones(384, 384, 4), torch.rand(384, 384, 4))
    return config, {**latents(), **padded("encoder_mask"), "image_rotary_emb": rotary, "cross_attention_kwargs": {}}


@model("Lumina2Transformer2DModel", **PATCHED)
def lumina2():
    config = {"sample_size": 8, "in_channels": 4, "hidden_size": 16, "num_layers": 2, "num_attention_heads": 2}
    config |= {"num_refiner_layers": 1, "num_kv_heads": 1, "multiple_of": 4, "cap_feat_dim": 6}
    config |= {"axes_dim_rope": (2, 2, 4), "axes_lens": (16, 16, 16)}
    return config, {**latents(), "encoder_attention_mask": torch.ones(2, 5).long()}


@model("CogView3PlusTransformer2DModel", **PATCHED)
def cogview3():
    config = {**SIDES, "in_channels": 4, "out_channels": 4, "num_layers": 2, "text_embed_dim": 6, "time_embed_dim": 8}
    config |= {"condition_dim": 2, "pos_embed_max_size": 8, "sample_size": 8}
    sizes = {name: torch.ones(2, 2) for name in ("original_size", "target_size", "crop_coords")}
    return config, {**latents(), **sizes}


@model("CogView4Transformer2DModel", **PATCHED)
def cogview4():
    config = {**SIDES, "in_channels": 4, "out_channels": 4, "num_layers": 2, "text_embed_dim": 6, "time_embed_dim": 8}
    config |= {"condition_dim": 2, "rope_axes_dim": (8, 8)}
    sizes = {name: torch.ones(2, 2) for name in ("original_size", "target_size", "crop_coords")}
    return config, {**latents(), **sizes}


@model("GlmImageTransformer2DModel", **PATCHED)
def glm_image():
    config = {**SIDES, "in_channels": 4, "out_channels": 4, "num_layers": 2, "text_embed_dim": 6, "time_embed_dim": 8}
    config |= {"condition_dim": 2, "prior_vq_quantizer_codebook_size": 9}
    sizes = {name: torch.ones(2, 2) for name in ("target_size", "crop_coords")}
    prior = {"prior_token_id": torch.randint(9, (2, 12)), "prior_token_drop": torch.tensor([False, True])}
    return config, {**latents(), **sizes, **prior, "timestep": torch.tensor([500, 600])}


@model("HiDreamImageTransformer2DModel", **PATCHED)
def hidream():
    config = {**SIDES, "patch_size": 2, "in_channels": 4, "num_layers": 1, "num_single_layers": 1}
    config |= {"caption_channels": [6, 7], "text_emb_dim": 6, "num_routed_experts": 2, "axes_dims_rope": (4, 2, 2)}
    config |= {"max_resolution": (8, 8), "llama_layers": [0, 1], "force_inference_output": True}
    text = {"encoder_hidden_states_t5": randn(2, 5, 6), "encoder_hidden_states_llama3": randn(2, 2, 5, 7)}
    image = {"hidden_states": randn(2, 4, 8, 8), "timesteps": torch.tensor([500.0, 600.0])}
    return config, {**image, **text, "pooled_embeds": randn(2, 6)}


@model("HunyuanImageTransformer2DModel", **PATCHED)
def hunyuan_image():
    config = {**SIDES, "in_channels": 4, "out_channels": 4, "num_layers": 1, "num_single_layers": 1}
    config |= {"num_refiner_layers": 1, "patch_size": (2, 2), "text_embed_dim": 6, "rope_axes_dim": (4, 4)}
    return config, {**latents(), **padded()}


@model("OmniGenTransformer2DModel", **PATCHED)
def omnigen():
    config = {"in_channels": 4, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "num_layers": 2}
    config |= {"intermediate_size": 16, "pad_token_id": 0, "vocab_size": 20, "time_step_dim": 8}
    config |= {"rope_scaling": {"long_factor": [1.0] * 4, "short_factor": [1.0] * 4}, "pos_embed_max_size": 8}
    arguments = {"hidden_states": randn(2, 4, 6, 8), **TIME, "input_ids": torch.randint(20, (2, 5))}
    arguments |= {"input_img_latents": [], "input_image_sizes": {}, "attention_mask": torch.ones(2, 18, 18)}
    return config, arguments | {"position_ids": torch.arange(18).expand(2, -1)}


@model("PRXTransformer2DModel", refused={"blocks.*.attention": RECTANGULAR}, note=TEXT_KEYS, **PATCHED)
def prx():
    config = {"in_channels": 4, "context_in_dim": 6, "hidden_size": 16, "num_heads": 2, "depth": 2}
    return config | {"axes_dim": [4, 4]}, {**latents(), **padded("attention_mask")}


@model("ZImageTransformer2DModel", image="x", axes="cfhw", patch=(1, 2, 2))
def z_image():
    config = {"in_channels": 4, "dim": 16, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2}
    config |= {"cap_feat_dim": 6, "axes_dims": [4, 2, 2], "axes_lens": [128, 16, 16]}
    arguments = {"x": [randn(4, 1, 8, 16), randn(4, 1, 8, 16)], "t": torch.tensor([0.5, 0.6])}
    return config, arguments | {"cap_feats": [randn(40, 6), randn(7, 6)]}


@model("ErnieImageTransformer2DModel", **PATCHED)
def ernie():
    config = {"hidden_size": 16, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 16, "in_channels": 4}
    config |= {"out_channels": 4, "patch_size": 2, "text_in_dim": 6, "rope_axes_dim": (4, 2, 2)}
    arguments = {"hidden_states": randn(2, 4, 6, 8), **TIME, "text_bth": randn(2, 5, 6)}
    return config, arguments | {"text_lens": torch.tensor([5, 3])}


@model("BriaFibo2Transformer2DModel", **PATCHED)
def bria_fibo2():
    config = {"in_channels": 4, "dim": 16, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "cap_feat_dim": 6}
    config |= {"injection_layer_ids": (1,), "perceiver_num_layers": 1, "min_num_gist_tokens": 2, "gist_step": 1}
    config |= {"max_num_gist_tokens": 3, "gist_min_text_len": 2, "gist_max_text_len": 8, "axes_dims": (4, 2, 2)}
    return config | {"axes_lens": (32, 16, 16)}, {**latents(), "encoder_hidden_states": randn(2, 2, 5, 6)}


@model("PriorTransformer", axes="bc", unknown="its tokens are no image's")
def prior():
    config = {**SIDES, "num_layers": 2, "embedding_dim": 6, "num_embeddings": 5, "additional_embeddings": 4}
    arguments = {"hidden_states": randn(2, 6), **TIME, "proj_embedding": randn(2, 6)}
    return config, arguments | {"encoder_hidden_states": randn(2, 5, 6), **padded("attention_mask", torch.bool)}


SANA: dict[str, Any] = {
    "in_channels": 4, "out_channels": 4, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8,
    "num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16,
    "caption_channels": 6, "sample_size": 8,
}  # fmt: skip


@model("SanaTransformer2DModel", refused={"transformer_blocks.*.attn1": "no softmax"})
def sana():
    return SANA, latents()
