"""Caches of attention, blocks and branches, which compute some steps and guess the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import tiny
from combinations.adapters import ALONE, JOINT
from combinations.case import COMPUTED, MEASURED, REFUSED, Case, Live, images, noise, proved
from combinations.guidance import APART

diffusers = tiny.diffusers
RANGE = {"spatial_attention_block_skip_range": 2, "spatial_attention_timestep_skip_range": (0, 900)}


def flux(config: Any, guided: bool = False) -> Live:
    """FLUX with a cache enabled, with a forward for each branch or without guidance."""
    pipe = tiny.pipeline_flux()
    if not isinstance(
        config, diffusers.MagCacheConfig | diffusers.TaylorSeerCacheConfig | diffusers.FirstBlockCacheConfig
    ):
        config.current_timestep_callback = lambda: pipe.current_timestep
    pipe.transformer.enable_cache(config)
    given: dict[str, Any] = {}
    if guided:
        given = {"negative_prompt_embeds": noise(1, 5, tiny.TEXT, seed=9), "true_cfg_scale": 3.0}
        given |= {"negative_pooled_prompt_embeds": noise(1, 12, seed=10)}
    return Live(pipe, images(pipe, steps=4, **given), JOINT, APART if guided else ALONE, steps=4)


def within(config: Callable[[Any], Any]) -> Live:
    """A cache that comes after one image and goes after the next."""
    pipe = tiny.pipeline_flux()
    once = images(pipe, steps=4)

    def run() -> Any:
        first = once()
        pipe.transformer.enable_cache(config(pipe))
        second = once()
        pipe.transformer.disable_cache()
        return torch.cat([first, second, once()])

    return Live(pipe, run, JOINT, ALONE, steps=4, generations=3)


def _watched(pipe: Any) -> dict[str, float]:
    """The denoiser's timestep of the moment, for pipelines that do not say."""
    now: dict[str, float] = {}

    def note(module: Any, args: Any, kwargs: Any) -> None:
        now["time"] = float(torch.as_tensor(kwargs["timestep"] if "timestep" in kwargs else args[1]).flatten()[0])

    (getattr(pipe, "unet", None) or pipe.transformer).register_forward_pre_hook(note, with_kwargs=True)
    return now


def _anew(pipe: Any, **given: Any) -> Any:
    """A run that begins with empty caches; the pipelines of models that cannot `enable_cache` do not see to it."""
    model, run = getattr(pipe, "unet", None) or pipe.transformer, images(pipe, steps=4, **given)

    def begin() -> Any:
        diffusers.HookRegistry.check_if_exists_or_initialize(model).reset_stateful_hooks()
        return run()

    return begin


def pyramid_unet() -> Live:
    """Pyramid attention broadcast of a UNet, put on by hand."""
    pipe = tiny.pipeline_sd15()
    now = _watched(pipe)
    config = diffusers.PyramidAttentionBroadcastConfig(**RANGE, current_timestep_callback=lambda: now["time"])
    diffusers.apply_pyramid_attention_broadcast(pipe.unet, config)
    return Live(pipe, _anew(pipe), steps=4)


def faster_guided() -> Live:
    """FasterCache under guidance: in some steps the denoiser computes the conditional branch alone."""
    pipe = tiny.pipeline_pixart()
    now = _watched(pipe)
    config = diffusers.FasterCacheConfig(
        tensor_format="BCHW", unconditional_batch_skip_range=2, unconditional_batch_timestep_skip_range=(-1, 900),
        spatial_attention_block_skip_range=2, spatial_attention_timestep_skip_range=(-1, 300),
        current_timestep_callback=lambda: now["time"], attention_weight_callback=lambda _: 0.5,
    )  # fmt: skip
    diffusers.apply_faster_cache(pipe.transformer, config)
    return Live(pipe, _anew(pipe, batch=2), steps=4, samples=2, spared="unconditional")


def wan() -> Any:
    """A tiny Wan pipeline without text encoder."""
    vae = tiny.seeded(
        lambda: diffusers.AutoencoderKLWan(
            base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
            latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
        )
    )  # fmt: skip
    transformer = tiny.seeded(
        lambda: diffusers.WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=tiny.TEXT,
            freq_dim=8, ffn_dim=16, num_layers=2, rope_max_seq_len=32,
        )
    )  # fmt: skip
    pipe = diffusers.WanPipeline(
        tokenizer=None, text_encoder=None, vae=vae, transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sea() -> Live:
    """SeaCache, of which Wan is one of two models that say what it has to know."""
    pipe = wan()
    pipe.transformer.enable_cache(diffusers.SeaCacheConfig(threshold=100.0, max_consecutive_cached=1, residual_order=0))

    def run() -> Any:
        return pipe(
            prompt_embeds=noise(1, 5, tiny.TEXT), negative_prompt_embeds=noise(1, 5, tiny.TEXT, seed=2), height=64,
            width=64, num_frames=1, num_inference_steps=4, guidance_scale=3.0, output_type="latent",
            generator=torch.Generator().manual_seed(0),
        ).frames  # fmt: skip

    return Live(pipe, run, r".*\.attn1", APART, steps=4)


def nucleus() -> Live:
    """Keys and values of the text kept from step to step, of the one model that has such a cache."""
    transformer = tiny.seeded(
        lambda: diffusers.NucleusMoEImageTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, num_layers=2, in_channels=16, out_channels=4,
            joint_attention_dim=tiny.TEXT, axes_dims_rope=(2, 2, 4), moe_enabled=False, num_key_value_heads=1,
        )
    )  # fmt: skip
    nothing: dict[str, Any] = dict.fromkeys(("vae", "text_encoder", "processor"))
    pipe = diffusers.NucleusMoEImagePipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        **nothing,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.transformer.enable_cache(diffusers.TextKVCacheConfig())
    given = {"prompt_embeds": noise(1, 5, tiny.TEXT), "prompt_embeds_mask": torch.ones(1, 5), "guidance_scale": 1.0}
    return Live(pipe, lambda: pipe(
        **given, num_inference_steps=2, height=64, width=64, output_type="latent",
        generator=torch.Generator().manual_seed(0),
    ).images)  # fmt: skip


def _taylor(**given: Any) -> Any:
    return diffusers.TaylorSeerCacheConfig(
        cache_interval=2, disable_cache_before_step=2, taylor_factors_dtype=torch.float32, **given
    )


_NOTE = "a cached step repeats what was computed, controlled or not, also past the ends of a window"
_MAG = {"mag_ratios": [1.0] * 4, "num_inference_steps": 4, "retention_ratio": 0.25, "max_skip_steps": 1}


def _cached(name: str, build: Any, note: str = _NOTE) -> Case:
    return Case("Caches", name, build, COMPUTED, MEASURED, note)


CASES = [
    _cached("pyramid attention broadcast (FLUX)", lambda: flux(diffusers.PyramidAttentionBroadcastConfig(**RANGE))),
    _cached("pyramid attention broadcast (UNet)", pyramid_unet),
    _cached("FasterCache (FLUX)", lambda: flux(diffusers.FasterCacheConfig(
        tensor_format="BCHW", is_guidance_distilled=True, attention_weight_callback=lambda _: 0.5, **RANGE))),
    _cached("FasterCache under guidance (PixArt)", faster_guided,
            "rows of an unconditional branch that it guesses are not controlled, and not in the record"),
    _cached("first block cache (FLUX)", lambda: flux(diffusers.FirstBlockCacheConfig(threshold=10.0))),
    _cached("first block cache, a forward for each branch (FLUX)",
            lambda: flux(diffusers.FirstBlockCacheConfig(threshold=10.0), guided=True)),
    _cached("MagCache (FLUX)", lambda: flux(diffusers.MagCacheConfig(threshold=1.0, **_MAG))),
    _cached("TaylorSeer (FLUX)", lambda: flux(_taylor())),
    _cached("TaylorSeer, lite (FLUX)", lambda: flux(_taylor(use_lite_mode=True))),
    _cached("SeaCache (Wan)", sea),
    _cached("pyramid attention broadcast that comes and goes under control",
            lambda: within(lambda pipe: diffusers.PyramidAttentionBroadcastConfig(
                **RANGE, current_timestep_callback=lambda: pipe.current_timestep))),
    _cached("first block cache that comes and goes under control",
            lambda: within(lambda _: diffusers.FirstBlockCacheConfig(threshold=10.0))),
    Case("Caches", "`TextKVCache` (Nucleus-MoE-Image)", nucleus, REFUSED, REFUSED,
         "an error: with the cache or without, its image attends to a text that has no queries",
         refusal="has queries for some of its tokens only"),
    proved("Caches", "a window of cached steps alone",
           "test_attach_traps::test_a_window_that_opens_on_a_cached_step", control=REFUSED, diagnosis="–",
           note="an error that names the cache: widen the window, or take the cache off"),
    proved("Caches", "a weak branch (`weaken`, `symskew.guider`)", "test_weak::test_a_cache_is_refused",
           "test_guider::test_what_cannot_be_weak_is_an_error", control=REFUSED, diagnosis="–",
           note="it would take the weak pass for a step"),
]  # fmt: skip
