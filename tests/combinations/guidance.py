"""Kinds of guidance, callbacks, several images at once, and pipelines of Modular Diffusers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import tiny
from combinations.adapters import ALONE, JOINT, PROMPT
from combinations.case import BOTH, MEASURES, Case, Live, images, noise, proved

diffusers = tiny.diffusers
APART = (("conditional",), ("unconditional",))
THREE = (*BOTH, "perturbed")


def sdxl(passes: Any = (BOTH,), samples: int = 1, **given: Any) -> Live:
    """SDXL with other arguments."""
    pipe = tiny.pipeline_sdxl()
    return Live(pipe, images(pipe, **given), passes=passes, samples=samples)


def split() -> Live:
    """FLUX with a negative prompt: a forward for each branch."""
    pipe = tiny.pipeline_flux()
    negative = {"negative_prompt_embeds": noise(2, 5, tiny.TEXT, seed=9)}
    negative |= {"negative_pooled_prompt_embeds": noise(2, 12, seed=10), "true_cfg_scale": 3.0}
    return Live(pipe, images(pipe, batch=2, **negative), JOINT, APART, samples=2)


def pag(guidance: float = 5.0) -> Live:
    """Perturbed attention guidance of SDXL, by diffusers' own pipeline."""
    pipe = tiny.pipeline_sdxl(kind=diffusers.StableDiffusionXLPAGPipeline)
    branches = THREE if guidance > 1 else THREE[1:]
    return Live(pipe, images(pipe, pag_scale=2.0, guidance_scale=guidance, batch=2), passes=(branches,), samples=2)


def skipped_layers(batch: int = 2) -> Live:
    """Skip-layer guidance of Stable Diffusion 3.5: one more forward for the prompt, without a layer."""
    pipe = tiny.pipeline_sd3()
    run = images(
        pipe, batch=batch, skip_guidance_layers=[1], skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0
    )
    plan = ((0, BOTH), (1, BOTH), (1, ("perturbed",)))
    return Live(pipe, run, JOINT, samples=batch, plan=plan)


def callback(change: Callable[[Any, int, Any], dict[str, Any]], plan: Any, steps: int = 3, **given: Any) -> Live:
    """A callback at the end of each step."""
    pipe = tiny.pipeline_sdxl()
    run = images(pipe, steps=steps, callback_on_step_end=lambda pipe, i, t, state: change(pipe, i, state), **given)
    return Live(pipe, run, plan=plan)


def _brighten(pipe: Any, step: int, state: Any) -> dict[str, Any]:
    return {"latents": state["latents"] * 1.1}


def _stop(pipe: Any, step: int, state: Any) -> dict[str, Any]:
    pipe._interrupt = step == 1
    return {}


def _unguide(pipe: Any, step: int, state: Any) -> dict[str, Any]:
    if step:
        return {}
    pipe._guidance_scale = 0.0
    return {name: value.chunk(2)[-1] for name, value in state.items()}


_CONDITIONS = ["prompt_embeds", "add_text_embeds", "add_time_ids"]


def modular(guider: Any = None) -> Any:
    """A tiny SDXL pipeline of Modular Diffusers."""
    parts = tiny.pipeline_sdxl().components
    pipe = diffusers.StableDiffusionXLAutoBlocks().init_pipeline()
    pipe.update_components(**{name: parts[name] for name in pipe.component_names if name in parts})
    pipe.set_progress_bar_config(disable=True)
    if guider is not None:
        pipe.update_components(guider=guider)
    return pipe


def modular_images(pipe: Any, steps: int = 2) -> torch.Tensor:
    """The final latents of a tiny modular pipeline."""
    given = {"height": 16, "width": 16, "output_type": "latent", "generator": torch.Generator().manual_seed(0)}
    return pipe(num_inference_steps=steps, **given, **PROMPT, output="images")


def modular_guided() -> Live:
    """Classifier-free guidance by a guider: a forward for each branch, by no name but the guider's."""
    pipe = modular()
    return Live(pipe, lambda: modular_images(pipe), passes=APART)


_LAYERS = "in every branch, but not in the perturbed one at the layers of the guidance"
CASES = [
    Case("Guidance", "none", lambda: sdxl(ALONE, guidance_scale=1.0)),
    Case("Guidance", "classifier-free, both branches in one batch", sdxl),
    Case("Guidance", "classifier-free, a forward for each branch (FLUX)", split),
    Case("Guidance", "classifier-free, rescaled", lambda: sdxl(guidance_rescale=0.7)),
    Case("Guidance", "perturbed attention (PAG pipeline)", pag, note=_LAYERS),
    Case("Guidance", "perturbed attention (PAG pipeline), no other guidance", lambda: pag(1.0), note=_LAYERS),
    proved("Guidance", "perturbed attention (PAG pipeline), alpha for each image",
           "test_attach_traps::test_perturbed_attention_guidance", diagnosis="–"),
    Case("Guidance", "skipped layers (Stable Diffusion 3.5)", lambda: skipped_layers(1),
         note="diagnosis calls the further pass perturbed"),
    Case("Guidance", "skipped layers, several prompts", skipped_layers,
         note="diagnosis calls the further pass perturbed"),
    proved("Guidance", "SEG, PAG, circulated: `symskew.weak.weaken`",
           "test_weak::test_a_control_acts_in_the_weak_pass_too_and_counts_steps_once",
           "test_weak::test_a_diagnosis_does_not_see_the_weak_pass", diagnosis=MEASURES,
           note="in the weak pass too, except at its layers; diagnosis does not see that pass"),
    Case("Guidance", "Modular Diffusers: classifier-free", modular_guided),
    proved("Guidance", "Modular Diffusers: perturbed attention",
           "test_combinations::test_the_perturbed_attention_of_a_guider_stays_perturbed", diagnosis=MEASURES,
           note=_LAYERS),
    proved("Guidance", "Modular Diffusers: `symskew.guider`",
           "test_guider::test_a_control_acts_in_every_pass_and_a_diagnosis_tells_them_apart", diagnosis=MEASURES,
           note=_LAYERS),
    Case("Images", "several prompts", lambda: sdxl(samples=3, batch=3)),
    Case("Images", "several images for each prompt", lambda: sdxl(samples=4, batch=2, num_images_per_prompt=2)),
    proved("Images", "alpha and beta for each image",
           "test_attach_vigilance::test_per_sample_alpha_knows_the_blocks_of_guidance", diagnosis="–"),
    Case("Callbacks", "that changes the latents",
         lambda: callback(_brighten, tuple((n, BOTH) for n in range(3)))),
    Case("Callbacks", "that interrupts the generation", lambda: callback(_stop, ((0, BOTH), (1, BOTH)))),
    Case("Callbacks", "that turns guidance off on the way", lambda: callback(
        _unguide, ((0, BOTH), (1, ("conditional",)), (2, ("conditional",))),
        callback_on_step_end_tensor_inputs=_CONDITIONS)),
]  # fmt: skip
