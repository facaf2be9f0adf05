"""Pipelines without weights: settings are checked against them, and operations counted, before anything is loaded.

A denoiser and an autoencoder on torch's meta device have shapes and no numbers: they take no memory, and a pass through
them no time. Their configurations are read from a model's folder, or are those that a few models were published with.
"""

from __future__ import annotations

import importlib
import inspect
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from symskew.files import read_json
from symskew.layers import find_denoisers, find_layers
from symskew.models import Model, ModelFiles

Configs = dict[str, tuple[str, dict[str, Any]]]
"""Of a pipeline's parts, by name: their class in diffusers, and its configuration."""

_EULER = {
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "interpolation_type": "linear",
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0, "skip_prk_steps": True,
    "steps_offset": 1, "timestep_spacing": "leading", "use_karras_sigmas": False,
}  # fmt: skip
_VAE = {
    "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4, "layers_per_block": 2, "sample_size": 1024,
}  # fmt: skip
_SDXL = {
    "sample_size": 128, "block_out_channels": [320, 640, 1280], "layers_per_block": 2,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": [5, 10, 20], "cross_attention_dim": 2048,
    "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
_SD3 = {
    "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
    "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096, "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A model on the hub, as its authors state it.

    Attributes:
        pipeline: the class of diffusers.
        parts: the configurations of its parts.
        size: of the files that are downloaded, in bytes, about.
        licence: its name; `gated` where it must be accepted on the model's page first.
    """

    pipeline: str
    parts: Configs
    size: float
    licence: str
    gated: bool = False


PUBLISHED = {
    "stabilityai/stable-diffusion-xl-base-1.0": Published(
        "StableDiffusionXLPipeline",
        {
            "unet": ("UNet2DConditionModel", _SDXL),
            "vae": ("AutoencoderKL", {**_VAE, "scaling_factor": 0.13025}),
            "scheduler": ("EulerDiscreteScheduler", _EULER),
        },
        14e9,
        "CreativeML Open RAIL++-M",
    ),
    "stabilityai/stable-diffusion-3-medium-diffusers": Published(
        "StableDiffusion3Pipeline",
        {
            "transformer": ("SD3Transformer2DModel", _SD3),
            "vae": (
                "AutoencoderKL",
                {**_VAE, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
            ),
            "scheduler": ("FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 1000, "shift": 3.0}),
        },
        16e9,
        "Stability AI Community License",
        gated=True,
    ),
}
"""Models whose parts are known here, so that a study of them can be checked where they are not."""


@dataclass(frozen=True)
class Work:
    """What a pipeline does for an image, in multiplications and additions, twice each pair (FLOP).

    Attributes:
        forward: of one pass of the denoiser, for one image and one branch of guidance.
        attention: the part of it in which self-attention weighs and mixes: 4 L²C for each layer of L tokens, width C.
        by_heads: the same, each layer as often as it has heads.
        decode: of the autoencoder, once for an image.
    """

    forward: float
    attention: float
    by_heads: float
    decode: float


def skeleton(files: ModelFiles | str) -> Model | None:
    """A model without weights, to check requests against.

    Args:
        files: of a model that is on this disk, or the hub id of one of `PUBLISHED`.

    Returns:
        None where its pipeline is of a kind that cannot be put together like this.
    """
    if isinstance(files, str):
        if files not in PUBLISHED:
            return None
        kind, parts = PUBLISHED[files].pipeline, PUBLISHED[files].parts
        files = ModelFiles(files, Path(), "none: not on this disk")
    else:
        kind, parts = _read(files.folder)
    diffusers: Any = importlib.import_module("diffusers")
    try:
        with torch.device("meta"):
            made = {name: getattr(diffusers, of).from_config(config).eval() for name, (of, config) in parts.items()
                    if name != "scheduler"}  # fmt: skip
        of, config = parts["scheduler"]
        made["scheduler"] = getattr(diffusers, of).from_config(config)
        pipeline = getattr(diffusers, kind)
        if not issubclass(pipeline, diffusers.DiffusionPipeline):
            return None
        needed = [p.name for p in inspect.signature(pipeline).parameters.values() if p.default is p.empty]
        pipe = pipeline(**{name: made.get(name) for name in {*needed, *made}})
        find_denoisers(pipe)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return Model(files, pipe, "float16", "meta")


def count_work(model: Model, size: tuple[int, int]) -> Work | None:
    """The operations of a model without weights for an image of (width, height), counted by torch as it passes.

    Returns:
        None for denoisers whose inputs are not known here.
    """
    [(_, root), *others] = find_denoisers(model.pipe).items()
    scale = int(getattr(model.pipe, "vae_scale_factor", 8))
    inputs = _inputs(root, size[1] // scale, size[0] // scale)
    vae = getattr(model.pipe, "vae", None)
    if inputs is None or others or vae is None:
        return None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        root(**inputs)
    name = type(root).__name__
    found = counter.get_flop_counts()
    attention = by_heads = 0.0
    for layer in find_layers(root):
        own = found.get(f"{name}.{layer.name}", {})
        flops = 0 if layer.aside else sum(count for of, count in own.items() if re.search("attention|bmm", str(of)))
        attention, by_heads = attention + flops, by_heads + flops * (layer.heads or 1)
    with torch.no_grad(), FlopCounterMode(display=False) as decoding:
        vae.decode(torch.empty(1, vae.config.latent_channels, size[1] // scale, size[0] // scale, device="meta"))
    return Work(counter.get_total_flops(), attention, by_heads, decoding.get_total_flops())


def stages_of(model: Model) -> list[str]:
    """The stages of the layers that a diagnosis of the model sees."""
    layers = [layer for root in find_denoisers(model.pipe).values() for layer in find_layers(root) if not layer.aside]
    return list(dict.fromkeys(layer.stage for layer in layers))


def _inputs(root: Any, height: int, width: int) -> dict[str, Any] | None:
    config = root.config
    latents = torch.empty(1, getattr(config, "in_channels", 0), height, width, device="meta")
    time = torch.empty(1, device="meta")
    if type(root).__name__ == "UNet2DConditionModel":
        inputs = {"sample": latents, "timestep": time, "return_dict": False}
        inputs["encoder_hidden_states"] = torch.empty(1, 77, config.cross_attention_dim, device="meta")
        if config.addition_embed_type == "text_time":
            ids = 6 * config.addition_time_embed_dim
            pooled = config.projection_class_embeddings_input_dim - ids
            inputs["added_cond_kwargs"] = {
                "text_embeds": torch.empty(1, pooled, device="meta"),
                "time_ids": torch.empty(1, 6, device="meta"),
            }
        return inputs
    if type(root).__name__ == "SD3Transformer2DModel":
        return {
            "hidden_states": latents,
            "timestep": time,
            # CLIP's tokens, then T5's.
            "encoder_hidden_states": torch.empty(1, 77 + 256, config.joint_attention_dim, device="meta"),
            "pooled_projections": torch.empty(1, config.pooled_projection_dim, device="meta"),
            "return_dict": False,
        }
    return None


def _read(folder: Path) -> tuple[str, Configs]:
    """The pipeline's class and the configurations of its parts, from a folder in diffusers' format."""
    index = read_json(folder / "model_index.json")
    parts: Configs = {}
    for name in ("unet", "transformer", "vae", "scheduler"):
        with suppress(FileNotFoundError, TypeError, ValueError):
            _, of = index.get(name) or (None, None)
            file = "scheduler_config.json" if name == "scheduler" else "config.json"
            if of:
                parts[name] = str(of), read_json(folder / name / file)
    return str(index.get("_class_name")), parts
