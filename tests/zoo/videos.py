"""Video transformers: latents with frames, tokens in the order frames, height, width."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from torch import randn

from zoo.classes import load
from zoo.entry import model

SIDES: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 12}
CHANNELS: dict[str, Any] = {"in_channels": 4, "out_channels": 4}
FRAMES: dict[str, Any] = {"axes": "bcfhw", "patch": (1, 2, 2)}
TIME = {"timestep": torch.tensor([500.0, 600.0])}
PARTLY = "attends once among some of its tokens"
BLOCK_MASK = "has a mask of type BlockMask; only tensor masks can be controlled"


def latents(channels: int = 4, width: int = 6, text: int = 5) -> dict[str, Any]:
    """Latents that make 2 × 2 × 3 patches, a text, and a time."""
    return {"hidden_states": randn(2, channels, 2, 4, 6), "encoder_hidden_states": randn(2, text, width), **TIME}


def padded(name: str = "encoder_attention_mask") -> dict[str, Any]:
    """A text of five tokens, and one of three."""
    return {name: torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])}


@model("CogVideoXTransformer3DModel", axes="bfchw", patch=(1, 2, 2))
def cogvideox():
    config = {**SIDES, **CHANNELS, "time_embed_dim": 8, "text_embed_dim": 6, "num_layers": 2, "sample_width": 6}
    config |= {"sample_height": 4, "sample_frames": 5, "max_text_seq_length": 5, "attention_head_dim": 16}
    return config, {**latents(), "hidden_states": randn(2, 2, 4, 4, 6)}


@model("ConsisIDTransformer3DModel", axes="bfchw", patch=(1, 2, 2))
def consis_id():
    config, arguments = cogvideox()
    config |= {"is_train_face": True, "cross_attn_dim_head": 8, "cross_attn_num_heads": 2, "LFE_id_dim": 6}
    config |= {"LFE_vit_dim": 6, "LFE_depth": 5, "LFE_dim_head": 8, "LFE_num_heads": 2, "LFE_num_id_token": 2}
    config |= {"LFE_num_querie": 4, "LFE_output_dim": 21}
    face = {"id_cond": randn(2, 6), "id_vit_hidden": [randn(2, 7, 6) for _ in range(5)]}
    return config, arguments | face


@model("LTXVideoTransformer3DModel", axes="btc", grid=(2, 2, 3))
def ltx():
    config = {**SIDES, **CHANNELS, "cross_attention_dim": 24, "num_layers": 2, "caption_channels": 6}
    sizes = {"num_frames": 2, "height": 2, "width": 3}
    return config, {**latents(), **padded(), **sizes, "hidden_states": randn(2, 12, 4)}


@model("MochiTransformer3DModel", dtype=torch.float32, **FRAMES)
def mochi():
    config = {**SIDES, "in_channels": 4, "num_layers": 2, "pooled_projection_dim": 8, "text_embed_dim": 8}
    return config | {"time_embed_dim": 4, "max_sequence_length": 5}, {**latents(width=8), **padded()}


@model("AllegroTransformer3DModel", **FRAMES)
def allegro():
    config = {**SIDES, **CHANNELS, "num_layers": 2, "cross_attention_dim": 24, "caption_channels": 6}
    config |= {"sample_height": 4, "sample_width": 6, "sample_frames": 2}
    return config, {**latents(), **padded(), "attention_mask": torch.ones(2, 2, 4, 6)}


@model("LatteTransformer3DModel", **FRAMES)
def latte():
    config = {**SIDES, **CHANNELS, "num_layers": 2, "cross_attention_dim": 24, "caption_channels": 6, "patch_size": 2}
    config |= {"sample_size": 6, "video_length": 2, "norm_type": "ada_norm_single", "num_embeds_ada_norm": 10}
    return config, {**latents(), "hidden_states": randn(2, 4, 2, 6, 6)}


@model("CosmosTransformer3DModel", dtype=torch.float32, **FRAMES)
def cosmos():
    config = {**SIDES, **CHANNELS, "num_layers": 2, "text_embed_dim": 1024, "adaln_lora_dim": 4, "max_size": (4, 4, 6)}
    return config | {"rope_scale": (1.0, 1.0, 1.0), "concat_padding_mask": False}, latents(width=1024)


@model("HunyuanVideoTransformer3DModel", **FRAMES)
def hunyuan_video():
    config = {**SIDES, **CHANNELS, "num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 1}
    config |= {"guidance_embeds": False, "text_embed_dim": 6, "pooled_projection_dim": 6, "rope_axes_dim": (4, 4, 4)}
    return config, {**latents(), **padded(), "pooled_projections": randn(2, 6)}


@model("HunyuanVideoFramepackTransformer3DModel", unknown="past frames come before those of now", **FRAMES)
def framepack():
    config, arguments = hunyuan_video()
    past = {"latents_clean": randn(2, 4, 1, 4, 6), "indices_latents_clean": torch.tensor([0])}
    past |= {"latents_history_2x": randn(2, 4, 2, 4, 8), "indices_latents_history_2x": torch.tensor([0, 1])}
    past |= {"latents_history_4x": randn(2, 4, 4, 8, 8), "indices_latents_history_4x": torch.arange(4)}
    image = {"image_embeds": randn(2, 3, 6), "indices_latents": torch.tensor([1, 2])}
    return {
        **config,
        "has_image_proj": True,
        "image_proj_dim": 6,
        "has_clean_x_embedder": True,
    }, arguments | past | image


@model("HunyuanVideo15Transformer3DModel", axes="bcfhw", patch=(1, 1, 1))
def hunyuan_video15():
    config = {**SIDES, **CHANNELS, "num_layers": 2, "num_refiner_layers": 1, "text_embed_dim": 6}
    config |= {"text_embed_2_dim": 7, "image_embed_dim": 8, "rope_axes_dim": (4, 4, 4)}
    text = {"encoder_hidden_states_2": randn(2, 3, 7), "encoder_attention_mask_2": torch.ones(2, 3)}
    arguments = {**latents(), **padded(), **text, "image_embeds": randn(2, 4, 8)}
    return config, arguments | {"hidden_states": randn(2, 4, 2, 2, 3)}


@model("EasyAnimateTransformer3DModel", **FRAMES)
def easy_animate():
    config = {**SIDES, **CHANNELS, "patch_size": 2, "num_layers": 2, "time_embed_dim": 8, "text_embed_dim": 6}
    return config | {"sample_width": 6, "sample_height": 4, "attention_head_dim": 16}, latents()


@model("MotifVideoTransformer3DModel", dtype=torch.float32, **FRAMES)
def motif():
    config = {**SIDES, **CHANNELS, "num_layers": 1, "num_single_layers": 2, "num_decoder_layers": 1}
    return config | {"text_embed_dim": 6, "rope_axes_dim": (4, 4, 4)}, {**latents(), **padded()}


@model("JoyImageEditTransformer3DModel", **FRAMES)
def joy_image():
    config = {**CHANNELS, "hidden_size": 24, "num_attention_heads": 2, "text_dim": 6, "num_layers": 2}
    return config | {"rope_dim_list": [4, 4, 4]}, latents()


@model("JoyImageEditPlusTransformer3DModel", axes="btc...", grid=(2, 2, 3))
def joy_image_plus():
    config, arguments = joy_image()
    image = {"hidden_states": randn(2, 12, 4, 1, 2, 2), "shape_list": [[(2, 2, 3)]] * 2}
    return config, arguments | image | padded("encoder_hidden_states_mask")


KANDINSKY: dict[str, Any] = {
    "in_visual_dim": 4, "out_visual_dim": 4, "in_text_dim": 6, "in_text_dim2": 6, "time_dim": 8,
    "model_dim": 24, "ff_dim": 16, "num_visual_blocks": 2, "axes_dims": (4, 4, 4),
}  # fmt: skip


@model("Kandinsky5Transformer3DModel", dtype=torch.float32, axes="bfhwc", patch=(1, 2, 2))
def kandinsky5():
    ropes = {"visual_rope_pos": tuple(torch.arange(n) for n in (2, 2, 3)), "text_rope_pos": torch.arange(5)}
    arguments = {**latents(), "hidden_states": randn(1, 2, 4, 6, 4), "pooled_projections": randn(1, 6)}
    arguments |= {"encoder_hidden_states": randn(1, 5, 6), "timestep": torch.tensor([500.0])}
    return {**KANDINSKY, "num_text_blocks": 1}, arguments | ropes


@model("Kandinsky5Transformer3DModel", "with NABLA attention", dtype=torch.float32,
       refused={"visual_transformer_blocks.*.self_attention": BLOCK_MASK})  # fmt: skip
def kandinsky5_sparse():
    config, arguments = kandinsky5()

    def build() -> torch.nn.Module:
        built = load("Kandinsky5Transformer3DModel")(**{**config, "model_dim": 32, "axes_dims": (4, 4, 8)})
        for block in built.visual_transformer_blocks:
            block.self_attention.processor._attention_backend = AttentionBackendName.FLEX
        return built

    sparse = {"to_fractal": True, "sta_mask": torch.ones(1, 1, 1, 1).bool(), "P": 0.9}
    ropes = {"visual_rope_pos": (torch.arange(1), torch.arange(8), torch.arange(8))}
    return build, {**arguments, **ropes, "hidden_states": randn(1, 1, 16, 16, 4), "sparse_params": sparse}


@model("Kandinsky6Transformer3DModel", axes="bfhwc", patch=(1, 2, 2))
def kandinsky6():
    arguments = {**latents(), "hidden_states": randn(2, 2, 4, 6, 9), "pooled_projections": randn(2, 6)}
    config = {**KANDINSKY, "num_text_blocks": 1, "in_audio_dim": 4, "out_audio_dim": 4, "model_dim_a": 12}
    config |= {"time_dim_a": 8, "ff_dim_a": 8, "axes_dims_a": (12,)}
    return config, arguments | {"audio_hidden_states": randn(2, 7, 4), "timestep": torch.tensor([500.0, 600.0])}


@model("Kandinsky6SRTransformer3DModel", refused={"visual_transformer_blocks.*.self_attention": BLOCK_MASK})
def kandinsky6_sr():
    config = {**KANDINSKY, "patch_size": (1, 1, 1), "nabla_window": (1, 1, 1)}
    del config["in_text_dim"], config["in_text_dim2"]
    return config, {"hidden_states": randn(1, 1, 8, 8, 9), "timestep": torch.tensor([500.0])}


@model("MiniMaxH3Transformer3DModel", axes="btc", grid=(2, 2, 3), unknown="text, video and audio are mixed")
def minimax_h3():
    config = {**SIDES, "hidden_size": 24, "num_layers": 2, "num_refiner_layers": 1, "ffn_dim": 16, "in_channels": 4}
    config |= {"audio_in_channels": 3, "text_dim": 6, "freq_dim": 8, "time_embed_hidden_dim": 8, "time_embed_dim": 8}
    parts = {"text": torch.arange(5), "video": torch.arange(5, 17), "audio": torch.arange(17, 20)}
    arguments = {"hidden_states": randn(1, 12, 16), "audio_hidden_states": randn(1, 3, 3)}
    arguments |= {"encoder_hidden_states": randn(1, 5, 6), "timestep": torch.tensor([500.0])}
    arguments |= {"timestep_indices": torch.zeros(20).long(), "token_tags": torch.zeros(20).long()}
    arguments |= {f"{name}_indices": indices for name, indices in parts.items()}
    return {**config, "rope_freq_dim": 2}, arguments | {"position_ids": torch.zeros(20, 3)}


@model("LTX2VideoTransformer3DModel", axes="btc", grid=(2, 2, 3))
def ltx2():
    config = {**SIDES, **CHANNELS, "cross_attention_dim": 24, "num_layers": 2, "caption_channels": 6}
    config |= {f"audio_{name}": value for name, value in {**SIDES, **CHANNELS, "cross_attention_dim": 24}.items()}
    sizes = {"num_frames": 2, "height": 2, "width": 3, "audio_num_frames": 7}
    arguments = {**latents(), **sizes, "hidden_states": randn(2, 12, 4), "audio_hidden_states": randn(2, 7, 4)}
    return config, arguments | {"audio_encoder_hidden_states": randn(2, 5, 6)}


@model("SanaVideoTransformer3DModel", refused={"transformer_blocks.*.attn1": "no softmax"})
def sana_video():
    config = {**SIDES, **CHANNELS, "num_layers": 1, "num_cross_attention_heads": 2, "cross_attention_head_dim": 12}
    return config | {"cross_attention_dim": 24, "caption_channels": 6, "sample_size": 6}, latents()


@model("SanaWMTransformer3DModel", axes="bcfhw", patch=(1, 1, 1), refused={"blocks.0.attn": "no softmax"})
def sana_wm():
    config = {"in_channels": 4, "num_layers": 2, "hidden_size": 24, "num_attention_heads": 2, "softmax_every_n": 2}
    config |= {"linear_head_dim": 12, "caption_channels": 6, "chunk_plucker_channels": 4}
    arguments = {**latents(), "hidden_states": randn(2, 4, 2, 2, 3), **padded()}
    return config, arguments | {"encoder_hidden_states": randn(2, 1, 5, 6), "timestep": torch.full((2, 1, 2), 500.0)}


@model("SanaWMLTX2RefinerTransformer3DModel", unknown="it is not told the size of the video")
def sana_wm_refiner():
    config, arguments = ltx2()
    rotary = (torch.rand(2, 12, 24), torch.rand(2, 12, 24))
    names = ("encoder_hidden_states", "timestep")
    return config, {
        **{name: arguments[name] for name in names},
        "hidden_states": randn(2, 12, 4),
        "video_rotary_emb": rotary,
    }


@model(
    "Cosmos3OmniTransformer",
    refused={"layers.*.self_attn": PARTLY},
    note="a causal text, and a video that attends to both",
)
def cosmos3():
    config = {"head_dim": 12, "hidden_size": 24, "intermediate_size": 16, "latent_channel": 4, "num_attention_heads": 2}
    config |= {"num_hidden_layers": 2, "num_key_value_heads": 1, "patch_latent_dim": 16, "vocab_size": 20}
    parts = {"input_ids": torch.arange(5), "text_indexes": torch.arange(5), "position_ids": torch.zeros(3, 11).long()}
    parts |= {"und_len": 5, "sequence_length": 11, "vision_tokens": [randn(1, 4, 1, 4, 6)]}
    parts |= {"vision_token_shapes": [(1, 2, 3)], "vision_sequence_indexes": torch.arange(5, 11)}
    parts |= {"vision_mse_loss_indexes": torch.arange(5, 11), "vision_timesteps": torch.full((6,), 500.0)}
    return {**config, "rope_axes_dim": (2, 2, 2)}, {**parts, "vision_noisy_frame_indexes": [torch.tensor([0])]}
