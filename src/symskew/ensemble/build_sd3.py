"""Build an untrained `ensemble-sd3`: SD3's own parts, in miniature."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import nn
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

from symskew.ensemble.build import WORDS, make_autoencoder, make_text_config, make_tokenizer

__all__ = ["SD3_SIZES", "fold_normalisation", "make_sd3_pipeline", "make_silent_t5", "make_t5_tokenizer"]

SD3_SIZES: dict[str, dict[str, Any]] = {
    "sd3": {"layers": 6, "heads": 4, "head": 32, "text": 64, "text_layers": 3},
    "tiny": {"layers": 2, "heads": 2, "head": 8, "text": 16, "text_layers": 2},
}
"""Named sizes: the shipped model's, and one for quick tests."""


def make_sd3_pipeline(
    size: str = "sd3", autoencoder: AutoencoderKL | None = None, *, seed: int = 0
) -> StableDiffusion3Pipeline:
    """An untrained pipeline of a named size (`SD3_SIZES`) around an autoencoder; weights drawn from `seed`.

    SD3 may be used without its third text encoder, T5: the pipeline then puts zeros in its place. As a folder cannot
    say that (`from_pretrained` asks for the encoder), this one's T5 gives zeros itself: see `make_silent_t5`.
    """
    torch.manual_seed(seed)
    shape = SD3_SIZES[size]
    tokenizer, words, width = make_tokenizer(), make_t5_tokenizer(), shape["text"]
    text = make_text_config(tokenizer, width, shape["text_layers"])
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=shape["layers"],
        attention_head_dim=shape["head"],
        num_attention_heads=shape["heads"],
        joint_attention_dim=2 * width,
        caption_projection_dim=shape["heads"] * shape["head"],
        pooled_projection_dim=2 * width,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    _start_as_identity(transformer)
    return StableDiffusion3Pipeline(
        vae=fold_normalisation(autoencoder or make_autoencoder()),
        text_encoder=CLIPTextModelWithProjection(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        text_encoder_3=make_silent_t5(len(words), 2 * width),
        tokenizer=tokenizer,
        tokenizer_2=make_tokenizer(),
        tokenizer_3=words,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),  # as SD3 ships
    )


def make_t5_tokenizer() -> T5Tokenizer:
    """T5's unigram tokenizer, in which each word of the caption language is one token; others are unknown."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(f"▁{word}", -1.0) for word in WORDS if word != ","]
    return T5Tokenizer(vocab=[*special, (",", -1.0), *words], extra_ids=0, additional_special_tokens=[])


def make_silent_t5(tokens: int, width: int) -> T5EncoderModel:
    """A T5 encoder that gives zeros whatever the text: no layers, and embeddings of zero, which T5's norm keeps."""
    model = T5EncoderModel(T5Config(vocab_size=tokens, d_model=width, num_layers=0, num_heads=1, d_kv=1, d_ff=1))
    nn.init.zeros_(model.shared.weight)
    return model.requires_grad_(False)


def _start_as_identity(transformer: SD3Transformer2DModel) -> None:
    """Zero the gates and the output (adaLN-Zero, as in DiT); diffusers, made for trained weights, does not."""
    blocks: Any = transformer.transformer_blocks
    for block in blocks:
        for norm in (block.norm1, block.norm1_context):
            nn.init.zeros_(norm.linear.weight)
            nn.init.zeros_(norm.linear.bias)
    for linear in (transformer.norm_out.linear, transformer.proj_out):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)


@torch.no_grad()
def fold_normalisation(autoencoder: AutoencoderKL) -> AutoencoderKL:
    """A copy of an autoencoder whose latents are normalised by its own weights instead of by its pipeline.

    SDXL's pipeline normalises each latent channel (`latents_mean`, `latents_std`); SD3's knows one factor for all. The
    1×1 convolutions next to the latents can take the channels' own: with z = (x − mean) / std, the encoder's gives z
    and the decoder's takes it. Without a mean in the config there is nothing to fold.
    """
    folded = copy.deepcopy(autoencoder)
    quant: Any = folded.quant_conv
    post: Any = folded.post_quant_conv
    if folded.config.get("latents_mean") is not None:
        mean, std = (torch.tensor(folded.config[key]) for key in ("latents_mean", "latents_std"))
        channels = len(mean)
        post.bias += post.weight[..., 0, 0] @ mean
        post.weight *= std.view(1, -1, 1, 1)
        quant.weight[:channels] /= std.view(-1, 1, 1, 1)
        quant.bias[:channels] = (quant.bias[:channels] - mean) / std
        quant.bias[channels:] -= 2 * std.log()
    folded.register_to_config(latents_mean=None, latents_std=None, scaling_factor=1.0, shift_factor=0.0)
    return folded
