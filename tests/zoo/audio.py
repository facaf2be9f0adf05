"""Transformers of sound, and of what else is a sequence in time."""

from __future__ import annotations

from typing import Any

import torch
from torch import randn

from zoo.entry import model

NO_IMAGE: dict[str, Any] = {"unknown": "its tokens are no image's"}
TIME = {"timestep": torch.tensor([0.5, 0.6])}
SIDES: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8}
MORE = "attends more than once in one forward"


@model("StableAudioDiTModel", **NO_IMAGE)
def stable_audio():
    config = {**SIDES, "sample_size": 16, "in_channels": 4, "num_layers": 2, "num_key_value_attention_heads": 1}
    config |= {"out_channels": 4, "cross_attention_dim": 8, "time_proj_dim": 8, "global_states_input_dim": 6}
    arguments = {"hidden_states": randn(2, 4, 9), **TIME, "encoder_hidden_states": randn(2, 5, 6)}
    rotary = (torch.rand(10, 4), torch.rand(10, 4))
    return {**config, "cross_attention_input_dim": 6}, arguments | {
        "global_hidden_states": randn(2, 1, 6), "rotary_embedding": rotary}  # fmt: skip


@model(
    "StableAudio3DiTModel", refused={"transformer_blocks.*.self_attn": MORE}, note="the difference of two attentions"
)
def stable_audio_3():
    config = {"io_channels": 4, "embed_dim": 64, "depth": 1, "num_heads": 2, "cond_token_dim": 6, "global_cond_dim": 6}
    config |= {"local_add_cond_dim": 3, "timestep_features_dim": 8, "ff_mult": 1.0, "num_memory_tokens": 2}
    arguments = {"hidden_states": randn(2, 4, 9), **TIME, "encoder_hidden_states": randn(2, 5, 6)}
    return config, arguments | {"global_hidden_states": randn(2, 6)}


@model("StableAudio3DiTModel", "without differential attention", **NO_IMAGE)
def stable_audio_3_plain():
    config, arguments = stable_audio_3()
    return {**config, "use_differential_attention": False}, arguments


@model("AceStepTransformer1DModel", **NO_IMAGE)
def ace_step():
    config = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config |= {"num_key_value_heads": 1, "head_dim": 8, "in_channels": 12, "audio_acoustic_hidden_dim": 4}
    arguments = {"hidden_states": randn(2, 14, 4), "context_latents": randn(2, 14, 8), **TIME}
    arguments |= {"timestep_r": torch.tensor([0.4, 0.5]), "encoder_hidden_states": randn(2, 5, 16)}
    return {**config, "sliding_window": 3}, arguments


@model("LongCatAudioDiTTransformer", **NO_IMAGE)
def longcat_audio():
    config = {"dit_dim": 16, "dit_depth": 2, "dit_heads": 2, "dit_text_dim": 6, "latent_dim": 4}
    arguments = {
        "hidden_states": randn(2, 9, 4),
        "encoder_hidden_states": randn(2, 5, 6),
        "latent_cond": randn(2, 9, 4),
    }
    return config, {**arguments, **TIME, "encoder_attention_mask": torch.ones(2, 5).bool()}


@model("MiniMaxMusic3Transformer1DModel", **NO_IMAGE)
def minimax_music():
    config = {**SIDES, "in_channels": 4, "condition_dim": 6, "num_layers": 2, "ff_inner_dim": 16, "rotary_dim": 4}
    arguments = {"hidden_states": randn(2, 4, 9), **TIME, "encoder_hidden_states": randn(2, 9, 6)}
    return {**config, "fourier_embedding_dim": 8}, arguments


@model("MiniMaxMusic3RVQDepthDecoder", **NO_IMAGE)
def depth_decoder():
    config = {"hidden_size": 16, "num_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return config, {"inputs_embeds": randn(2, 9, 16)}


@model("T5FilmDecoder", refused={"decoders.*.layer.*.attention": "it multiplies matrices itself"})
def t5_film():
    config = {
        "input_dims": 4,
        "targets_length": 9,
        "d_model": 16,
        "num_layers": 1,
        "num_heads": 2,
        "d_kv": 8,
        "d_ff": 16,
    }
    arguments = {"encodings_and_masks": [(randn(2, 5, 16), torch.ones(2, 5))], "decoder_input_tokens": randn(2, 9, 4)}
    return config, arguments | {"decoder_noise_time": torch.tensor([0.5, 0.6])}
