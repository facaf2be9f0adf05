"""Tiny random models and pipelines, built offline from diffusers' own configurations."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

# diffusers resolves its names lazily, out of sight of a type checker.
diffusers: Any = importlib.import_module("diffusers")
TEXT = 16  # width of the text features the UNets see, per encoder


def seeded(build: Callable[[], Any], seed: int = 0) -> Any:
    """A model in evaluation mode with its own random weights, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
        for name, parameter in model.named_parameters():
            # Norm gains of exactly one would hide a forgotten or doubled QK-norm.
            if "norm" in name and name.endswith("weight"):
                parameter.data.uniform_(0.7, 1.3)
    return model.eval()


def unet_sd15(seed=0, **changes):
    """A UNet of the Stable Diffusion 1.5 kind: convolution projections, one cross-attention width."""
    config: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "cross_attention_dim": TEXT,
        "attention_head_dim": 4,  # diffusers reads this as the number of heads
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return seeded(lambda: diffusers.UNet2DConditionModel(**config | changes), seed)


def unet_sdxl(seed=0, **changes):
    """A UNet of the SDXL kind: linear projections, heads growing with the width, two transformer blocks below."""
    config: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "cross_attention_dim": 2 * TEXT,
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + TEXT,
    }
    return seeded(lambda: diffusers.UNet2DConditionModel(**config | changes), seed)


def sd3(seed=0, **changes):
    """A Stable Diffusion 3.5 kind of transformer: joint attention, dual attention in the first block, QK-norm."""
    config: dict[str, Any] = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 3,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": TEXT,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 12,
        "pos_embed_max_size": 8,
        "dual_attention_layers": (0,),
        "qk_norm": "rms_norm",
    }
    return seeded(lambda: diffusers.SD3Transformer2DModel(**config | changes), seed)


def flux(seed=0, **changes):
    """A FLUX kind of transformer: double and single stream blocks, rotary positions, QK-norm."""
    config: dict[str, Any] = {
        "patch_size": 1,
        "in_channels": 16,
        "num_layers": 2,
        "num_single_layers": 3,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": TEXT,
        "pooled_projection_dim": 12,
        "axes_dims_rope": (4, 4, 8),
    }
    return seeded(lambda: diffusers.FluxTransformer2DModel(**config | changes), seed)


def pixart(seed=0, **changes):
    """A PixArt kind of transformer: self- and cross-attention blocks, adaptive norm."""
    config: dict[str, Any] = {
        "sample_size": 8,
        "num_layers": 3,
        "patch_size": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "in_channels": 4,
        "out_channels": 8,
        "cross_attention_dim": 16,
        "caption_channels": TEXT,
        "norm_type": "ada_norm_single",
        "use_additional_conditions": False,
    }
    return seeded(lambda: diffusers.PixArtTransformer2DModel(**config | changes), seed)


def _noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(model: Any, batch=2, text=5, size=8, seed=1, time: Any = 500.0):
    """The keyword arguments of one forward of a tiny denoiser."""
    name = type(model).__name__
    time = torch.full((batch,), float(time))
    if name == "FluxTransformer2DModel":
        side = size // 2
        grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).reshape(-1, 2)
        return {
            "hidden_states": _noise(batch, side * side, 16, seed=seed),
            "encoder_hidden_states": _noise(batch, text, TEXT, seed=seed + 1),
            "pooled_projections": _noise(batch, 12, seed=seed + 2),
            "timestep": time / 1000,
            "img_ids": torch.cat([torch.zeros(side * side, 1), grid], 1).float(),
            "txt_ids": torch.zeros(text, 3),
            "return_dict": False,
        }
    if name == "SD3Transformer2DModel":
        return {
            "hidden_states": _noise(batch, 4, size, size, seed=seed),
            "encoder_hidden_states": _noise(batch, text, TEXT, seed=seed + 1),
            "pooled_projections": _noise(batch, 12, seed=seed + 2),
            "timestep": time,
            "return_dict": False,
        }
    if name == "PixArtTransformer2DModel":
        return {
            "hidden_states": _noise(batch, 4, size, size, seed=seed),
            "encoder_hidden_states": _noise(batch, text, TEXT, seed=seed + 1),
            "timestep": time,
            "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
            "return_dict": False,
        }
    width = model.config.cross_attention_dim
    arguments: dict[str, Any] = {
        "sample": _noise(batch, 4, size, size, seed=seed),
        "timestep": time[0],
        "encoder_hidden_states": _noise(batch, text, width, seed=seed + 1),
        "return_dict": False,
    }
    if model.config.addition_embed_type == "text_time":
        arguments["added_cond_kwargs"] = {
            "text_embeds": _noise(batch, TEXT, seed=seed + 2),
            "time_ids": torch.ones(batch, 6),
        }
    return arguments


@torch.no_grad()
def run(model: Any, **changes):
    """One forward of a tiny denoiser on its standard inputs (or those of `batch`, `text`, `size`, `seed`)."""
    return model(**inputs(getattr(model, "_orig_mod", model), **changes) if changes else inputs_of(model))[0]


def inputs_of(model: Any):
    """The standard inputs of a tiny denoiser, compiled or not."""
    return inputs(getattr(model, "_orig_mod", model))


def vae(channels=4):
    """An autoencoder whose mid blocks hold `Attention` modules of the very class the denoisers use."""
    config: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": channels,
        "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
        "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
        "sample_size": 16,
    }
    return seeded(lambda: diffusers.AutoencoderKL(**config))


def tokenizer():
    """A byte-level CLIP tokenizer over single letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,."
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    return CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=12)


def text_encoder(projection=False):
    """A one-layer CLIP text encoder."""
    config = CLIPTextConfig(
        vocab_size=100,
        hidden_size=TEXT,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        projection_dim=TEXT,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return seeded(lambda: (CLIPTextModelWithProjection if projection else CLIPTextModel)(config))


def ddim() -> Any:
    """The DDIM scheduler with the settings the pipelines expect."""
    return diffusers.DDIMScheduler(steps_offset=1, clip_sample=False)


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pipeline_sdxl(scheduler: Any = None, seed=0, kind: Any = diffusers.StableDiffusionXLPipeline, **changes):
    """A whole tiny SDXL pipeline: two tokenizers, two text encoders, UNet, autoencoder."""
    pipe = kind(
        vae=vae(),
        text_encoder=text_encoder(),
        text_encoder_2=text_encoder(projection=True),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet_sdxl(seed, **changes),
        scheduler=scheduler or ddim(),
        add_watermarker=False,
        **({"pag_applied_layers": ["mid"]} if "PAG" in kind.__name__ else {}),
    )
    return _quiet(pipe)


def pipeline_sd15(scheduler: Any = None, seed=0):
    """A whole tiny Stable Diffusion 1.5 pipeline without a safety checker."""
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        unet=unet_sd15(seed),
        scheduler=scheduler or ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _quiet(pipe)


def pipeline_sd3(seed=0):
    """A tiny Stable Diffusion 3 pipeline without text encoders: give it `prompt_embeds`."""
    nothing: dict[str, Any] = dict.fromkeys(("text_encoder", "text_encoder_2", "text_encoder_3"))
    nothing |= dict.fromkeys(("tokenizer", "tokenizer_2", "tokenizer_3"))
    return _quiet(
        diffusers.StableDiffusion3Pipeline(
            transformer=sd3(seed), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=vae(), **nothing
        )
    )


def pipeline_flux(seed=0):
    """A tiny FLUX pipeline without text encoders: give it `prompt_embeds`."""
    nothing: dict[str, Any] = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    return _quiet(
        diffusers.FluxPipeline(
            transformer=flux(seed), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=vae(), **nothing
        )
    )


def pipeline_pixart(seed=0):
    """A tiny PixArt pipeline without text encoder: give it `prompt_embeds`."""
    return _quiet(
        diffusers.PixArtAlphaPipeline(
            transformer=pixart(seed), scheduler=ddim(), vae=vae(), text_encoder=None, tokenizer=None
        )
    )


def generate(pipe: Any, steps=3, seed=0, batch=1, size=16, **changes):
    """The final latents of a tiny pipeline on a fixed prompt; deterministic."""
    arguments: dict[str, Any] = {
        "num_inference_steps": steps,
        "height": size,
        "width": size,
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(seed),
    }
    name = type(pipe).__name__
    if name.startswith("StableDiffusion3"):
        arguments |= {
            "prompt_embeds": _noise(batch, 5, TEXT, seed=5),
            "pooled_prompt_embeds": _noise(batch, 12, seed=6),
            "negative_prompt_embeds": _noise(batch, 5, TEXT, seed=7),
            "negative_pooled_prompt_embeds": _noise(batch, 12, seed=8),
        }
    elif name.startswith("Flux"):
        arguments |= {
            "prompt_embeds": _noise(batch, 5, TEXT, seed=5),
            "pooled_prompt_embeds": _noise(batch, 12, seed=6),
        }
    elif name.startswith("PixArt"):
        arguments |= {
            "prompt": None,
            "negative_prompt": None,
            "prompt_embeds": _noise(batch, 5, TEXT, seed=5),
            "prompt_attention_mask": torch.ones(batch, 5),
            "negative_prompt_embeds": _noise(batch, 5, TEXT, seed=7),
            "negative_prompt_attention_mask": torch.ones(batch, 5),
            "use_resolution_binning": False,
        }
    else:
        arguments["prompt"] = ["a red seven"] * batch
    return pipe(**arguments | changes).images
