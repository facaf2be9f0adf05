"""Every scheduler of the installed diffusers: with the pipelines it samples for, or why with none."""

from __future__ import annotations

from typing import Any

import torch

import tiny
from combinations.adapters import JOINT
from combinations.case import BOTH, Case, Live
from combinations.videos import MADE, STEPS

diffusers = tiny.diffusers
DIFFUSION = (
    *("CMStochasticIterativeScheduler", "CogVideoXDDIMScheduler", "CosineDPMSolverMultistepScheduler"),
    *("DDIMInverseScheduler", "DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler"),
    *("DEISMultistepScheduler", "DPMSolverMultistepInverseScheduler", "DPMSolverMultistepScheduler"),
    *("DPMSolverSDEScheduler", "DPMSolverSinglestepScheduler", "EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"),
    *("EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler", "IPNDMScheduler"),
    *("KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler"),
    *("PNDMScheduler", "SASolverScheduler", "TCDScheduler", "UniPCMultistepScheduler"),
)
FLOW = (
    *("FlowMapEulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"),
    *("FlowMatchLCMScheduler", "LTXEulerAncestralRFScheduler"),
)
OTHERS = {
    "AmusedScheduler": "of discrete tokens",
    "BlockRefinementScheduler": "of discrete tokens",
    "CogVideoXDPMScheduler": "its step needs what the CogVideoX pipeline alone gives it",
    "DDPMWuerstchenScheduler": "of Würstchen alone",
    "DiscreteDDIMScheduler": "of discrete tokens",
    "EntropyBoundScheduler": "of discrete tokens",
    "KarrasVeScheduler": "its step needs what its own pipeline alone gives it",
    "PiflowScheduler": "of policies that a model has to be made for",
    "RFD4ProteinaScheduler": "of proteins",
    "RePaintScheduler": "its step needs an image and a mask from its own pipeline",
    "SCMScheduler": "of two steps, by models distilled for it",
    "ScoreSdeVeScheduler": "has no `step`",
    "UnCLIPScheduler": "of unCLIP alone",
    "VQDiffusionScheduler": "of discrete tokens",
}
"""None of those pipelines can be run with them."""


def sampled(name: str) -> Live:
    """A tiny pipeline with this scheduler; each forward is of one entry of its list of timesteps."""
    if name in MADE:
        return MADE[name]()
    scheduler: Any = getattr(diffusers, name)()
    scheduler.set_timesteps(STEPS)
    plan = tuple((step, BOTH) for step in range(len(scheduler.timesteps)))
    if name in FLOW:
        pipe = tiny.pipeline_sd3()
        pipe.transformer = tiny.sd3(num_layers=1)
    else:
        blocks: dict[str, Any] = {
            "down_block_types": ("CrossAttnDownBlock2D",),
            "up_block_types": ("CrossAttnUpBlock2D",),
        }
        pipe = tiny.pipeline_sd15()
        pipe.unet = tiny.unet_sd15(block_out_channels=(16,), **blocks)
    pipe.scheduler = scheduler

    def run() -> Any:
        with torch.random.fork_rng():  # from which flows draw noise, given a generator or not
            torch.manual_seed(0)
            return tiny.generate(pipe, steps=STEPS)

    return Live(pipe, run, JOINT if name in FLOW else r".*\.attn1", plan=plan)


def _note(name: str) -> str:
    orders = {"Heun": 2, "KDPM2": 2, "PNDM": 3}
    several = any(mark in name for mark in orders) and not name.startswith("IPNDM")
    if name in MADE:
        return "a flow, of Helios" if "Helios" in name else "a flow, of MiniMax-H3"
    kind = "a flow" if name in FLOW else "diffusion"
    return f"{kind}, several forwards for a step" if several else kind


CASES = [
    *(Case("Schedulers", f"`{name}`", lambda name=name: sampled(name), note=_note(name))
      for name in sorted({*DIFFUSION, *FLOW, *MADE})),
    *(Case("Schedulers of other pipelines", f"`{name}`", control="–", diagnosis="–", note=reason)
      for name, reason in OTHERS.items()),
]  # fmt: skip
