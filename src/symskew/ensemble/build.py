"""Build an untrained `ensemble-sdxl`: SDXL's own parts, in miniature."""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from symskew.ensemble.vocabulary import COLOUR_NAMES, DIGIT_WORDS

__all__ = ["SIZES", "make_autoencoder", "make_pipeline", "make_scheduler", "make_text_config", "make_tokenizer"]

WORDS = ("a", "and", "picture", "of", ",", *COLOUR_NAMES, *DIGIT_WORDS)
TEXT_LENGTH = 24  # the longest caption has 20 tokens with start and end

SIZES: dict[str, dict[str, Any]] = {
    "sdxl": {"channels": (48, 128), "heads": (2, 4), "layers": 1, "text": 64, "text_layers": 3},
    "tiny": {"channels": (8, 16), "heads": (1, 2), "layers": 1, "text": 16, "text_layers": 2},
}
"""Named sizes: the shipped model's, and one for quick tests."""


def make_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-pair tokenizer, in which each word of the caption language is one token; others fall into letters."""
    letters = sorted(ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = _encode(word, merges)
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = _encode(word, merges)
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
        Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=TEXT_LENGTH)


def _encode(word: str, merges: list[tuple[str, str]]) -> list[str]:
    parts = [*word[:-1], word[-1] + "</w>"]
    while True:
        known = [(merges.index(pair), at) for at, pair in enumerate(pairwise(parts)) if pair in merges]
        if not known:
            return parts
        _, at = min(known)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def make_text_config(tokenizer: CLIPTokenizer, width: int, layers: int) -> CLIPTextConfig:
    """The shape of a CLIP text encoder of this width and depth, with heads of 16."""
    start, end = (tokenizer.get_vocab()[token] for token in ("<|startoftext|>", "<|endoftext|>"))
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(2, width // 16),
        max_position_embeddings=TEXT_LENGTH,
        hidden_act="quick_gelu",
        projection_dim=width,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
    )


def make_autoencoder() -> AutoencoderKL:
    """An untrained autoencoder of factor 4 (0.4 M parameters), without attention: strokes are local."""
    return AutoencoderKL(
        # diffusers declares one-element tuples here and takes any length
        block_out_channels=(16, 32, 48),  # pyright: ignore[reportArgumentType]
        down_block_types=("DownEncoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def make_scheduler() -> DDIMScheduler:
    """SD's noise schedule stretched to zero terminal SNR, v-prediction.

    The background is black: with the plain schedule the last step still holds the images' mean, which sampling would
    then have to invent. Zero terminal SNR needs v-prediction and trailing steps.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def make_pipeline(
    size: str = "sdxl", autoencoder: AutoencoderKL | None = None, *, seed: int = 0
) -> StableDiffusionXLPipeline:
    """An untrained pipeline of a named size (`SIZES`) around an autoencoder; weights drawn from `seed`."""
    torch.manual_seed(seed)
    shape = SIZES[size]
    tokenizer, width = make_tokenizer(), shape["text"]
    text = make_text_config(tokenizer, width, shape["text_layers"])
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=shape["channels"],
        down_block_types=("CrossAttnDownBlock2D",) * len(shape["channels"]),
        up_block_types=("CrossAttnUpBlock2D",) * len(shape["channels"]),
        layers_per_block=shape["layers"],
        attention_head_dim=shape["heads"],  # diffusers' historical name for the number of heads
        cross_attention_dim=2 * width,
        use_linear_projection=True,
        norm_num_groups=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + width,
    )
    return StableDiffusionXLPipeline(
        vae=autoencoder or make_autoencoder(),
        text_encoder=CLIPTextModel(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer,
        tokenizer_2=make_tokenizer(),
        unet=unet,
        scheduler=make_scheduler(),  # pyright: ignore[reportArgumentType]
        add_watermarker=False,
    )
