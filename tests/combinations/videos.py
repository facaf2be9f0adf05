"""Videos: motion modules, UNets and transformers of space and time, and the schedulers that belong to one family."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torchvision.transforms.functional import to_pil_image as to_pil
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

import tiny
from combinations.adapters import ALONE
from combinations.caches import wan
from combinations.case import BOTH, Case, Live, noise
from combinations.guidance import APART, THREE

diffusers = tiny.diffusers
FRAMES, STEPS = 3, 4
SPATIAL = r"(?!.*(motion_modules|temp_attentions|transformer_in|temporal)).*\.attn1"
BLOCKS: dict[str, Any] = {
    "block_out_channels": (32,), "layers_per_block": 1, "cross_attention_dim": tiny.TEXT, "sample_size": 8,
}  # fmt: skip


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _frames(pipe: Any, **given: Any) -> Any:
    """A run that gives the final latents of a video."""
    given = {"height": 16, "width": 16, "num_frames": FRAMES, "output_type": "latent"} | given
    return lambda: pipe(**given, generator=torch.Generator().manual_seed(0)).frames


def animate_diff(kind: str = "AnimateDiffPipeline", passes: Any = (BOTH,), **given: Any) -> Live:
    """A UNet of images with motion modules in it."""
    unet = tiny.unet_sd15(
        block_out_channels=(16,), down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",)
    )
    adapter = tiny.seeded(
        lambda: diffusers.MotionAdapter(
            block_out_channels=(16,), motion_layers_per_block=1, motion_num_attention_heads=2, motion_norm_num_groups=8,
        )
    )  # fmt: skip
    pipe = tiny.pipeline_sd15()
    parts = {"vae": pipe.vae, "text_encoder": pipe.text_encoder, "tokenizer": pipe.tokenizer, "unet": unet}
    layers = {"pag_applied_layers": ["mid_block.*attn1"]} if "PAG" in kind else {}
    pipe = getattr(diffusers, kind)(**parts, motion_adapter=adapter, scheduler=tiny.ddim(), **layers)
    return Live(
        _quiet(pipe),
        _frames(pipe, prompt="a red seven", num_inference_steps=2, **given),
        SPATIAL,
        passes,
        samples=FRAMES,
    )


def text_to_video() -> Live:
    """A UNet of space and time."""
    config = BLOCKS | {"down_block_types": ("CrossAttnDownBlock3D",), "up_block_types": ("CrossAttnUpBlock3D",)}
    unet = tiny.seeded(lambda: diffusers.UNet3DConditionModel(**config, norm_num_groups=8, attention_head_dim=4))
    parts = {"vae": tiny.vae(), "text_encoder": tiny.text_encoder(), "tokenizer": tiny.tokenizer()}
    pipe = diffusers.TextToVideoSDPipeline(**parts, unet=unet, scheduler=tiny.ddim())
    return Live(_quiet(pipe), _frames(pipe, prompt="a red seven", num_inference_steps=2), SPATIAL, samples=FRAMES)


def image_to_video() -> Live:
    """Stable Video Diffusion, given an image."""
    config = BLOCKS | {
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal",), "num_attention_heads": 2, "in_channels": 8,
        "up_block_types": ("CrossAttnUpBlockSpatioTemporal",), "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24,
    }  # fmt: skip
    unet = tiny.seeded(lambda: diffusers.UNetSpatioTemporalConditionModel(**config))
    vae = tiny.seeded(
        lambda: diffusers.AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32), layers_per_block=1, down_block_types=("DownEncoderBlock2D",) * 2
        )
    )
    sight = CLIPVisionConfig(
        hidden_size=tiny.TEXT, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=224,
        patch_size=56, projection_dim=tiny.TEXT,
    )  # fmt: skip
    eye = tiny.seeded(lambda: CLIPVisionModelWithProjection(sight))
    pipe = diffusers.StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=eye,
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(),
        feature_extractor=CLIPImageProcessor(),
    )
    image = to_pil(noise(3, 16, 16).sigmoid())
    return Live(_quiet(pipe), _frames(pipe, image=image, num_inference_steps=2), SPATIAL, samples=FRAMES)


def helios(scheduler: Any, stages: int = 1) -> Live:
    """Helios, which goes on from the frames it made; by a pyramid, each stage is a schedule of its own."""
    transformer = tiny.seeded(
        lambda: diffusers.HeliosTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=tiny.TEXT,
            freq_dim=8, ffn_dim=16, num_layers=1, rope_dim=(4, 4, 4),
        )
    )  # fmt: skip
    pipe = wan()
    parts = {"tokenizer": None, "text_encoder": None, "vae": pipe.vae}
    kind = "HeliosPyramidPipeline" if stages > 1 else "HeliosPipeline"
    distilled = {"is_distilled": True} if stages > 1 else {}
    pipe = getattr(diffusers, kind)(**parts, transformer=transformer, scheduler=scheduler, **distilled)
    given: dict[str, Any] = {"prompt_embeds": noise(1, 5, tiny.TEXT), "history_sizes": [4, 2, 1]}
    given |= {"negative_prompt_embeds": noise(1, 5, tiny.TEXT, seed=2), "num_latent_frames_per_chunk": 2}
    if stages > 1:
        given |= {"pyramid_num_inference_steps_list": [STEPS] * stages, "guidance_scale": 1.0}
    else:
        given |= {"num_inference_steps": STEPS}
    run = _frames(pipe, **given, height=64, width=64, num_frames=1)
    return Live(_quiet(pipe), run, r".*\.attn1", ALONE if stages > 1 else APART, STEPS, generations=stages)


def minimax_h3() -> Live:
    """The loop of MiniMax-H3, with schedules of its own for the video and the sound."""
    blocks = importlib.import_module("diffusers.modular_pipelines.minimax_h3.denoise")
    transformer = tiny.seeded(
        lambda: diffusers.MiniMaxH3Transformer3DModel(
            num_attention_heads=2, attention_head_dim=12, hidden_size=24, num_layers=2, num_refiner_layers=1,
            ffn_dim=16, in_channels=4, audio_in_channels=3, text_dim=tiny.TEXT, freq_dim=8, time_embed_hidden_dim=8,
            time_embed_dim=8, rope_freq_dim=2,
        )
    )  # fmt: skip
    pipe = blocks.MiniMaxH3DenoiseStep().init_pipeline()
    video, sound = diffusers.MiniMaxH3Scheduler(12.0), diffusers.MiniMaxH3Scheduler(3.0)
    pipe.update_components(transformer=transformer, scheduler=video, audio_scheduler=sound)
    pipe._blocks.set_progress_bar_config(disable=True)
    parts = {"text": torch.arange(5), "video": torch.arange(5, 17), "audio": torch.arange(17, 20)}
    rows: dict[str, Any] = {f"{name}_indices": indices for name, indices in parts.items()}
    rows |= {"token_tags": torch.zeros(20).long(), "position_ids": torch.zeros(20, 3)}

    def run() -> Any:
        for scheduler in (video, sound):
            scheduler.set_timesteps(STEPS + 1)
        plan = []
        for times in zip(video.timesteps, sound.timesteps, strict=True):
            each = torch.full((20,), float(times[0]))
            each[17:] = times[1]
            plan.append(torch.unique(each, return_inverse=True))
        return pipe(
            latents=noise(12, 16), audio_latents=noise(3, 3), prompt_embeds=noise(1, 5, tiny.TEXT),
            timesteps=video.timesteps, audio_timesteps=sound.timesteps, row_timestep_plan=plan,
            denoiser_input_fields=rows, output="latents",
        )  # fmt: skip

    return Live(pipe, run, r"transformer_blocks.*\.attn", ALONE, STEPS)


MADE: dict[str, Callable[[], Live]] = {
    "HeliosScheduler": lambda: helios(diffusers.HeliosScheduler(stages=1, stage_range=[0, 1])),
    "HeliosDMDScheduler": lambda: helios(diffusers.HeliosDMDScheduler(stages=2, stage_range=[0, 0.5, 1], gamma=0.3), 2),
    "MiniMaxH3Scheduler": minimax_h3,
}
"""Schedulers of one family of models alone."""
CASES = [
    Case("Videos", "AnimateDiff: motion modules in a UNet", animate_diff),
    Case("Videos", "AnimateDiff, perturbed attention", lambda: animate_diff("AnimateDiffPAGPipeline", (THREE,))),
    Case("Videos", "a UNet of space and time (text to video)", text_to_video),
    Case("Videos", "a UNet of space and time (Stable Video Diffusion)", image_to_video),
]
