"""A trained miniature SDXL as the teacher of a rectified flow: its prediction at a point of the flow, as velocity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from jaxtyping import Float, Int
from torch import Tensor

from symskew.ensemble.train.unet import encode_text, size_conditions

__all__ = ["Teacher"]


class Teacher:
    """A miniature SDXL that names the velocity at any point of the flow between its latents and noise.

    A point of the flow, (1 − σ) x + σ ε, is one of the teacher's own noisy latents, √a x + √(1 − a) ε, but for a
    factor: √a : √(1 − a) = 1 − σ : σ says at which timestep, between two of its thousand as a rule. From the teacher's
    v-prediction there follow its x and ε, and from these the velocity ε − x. It is the mean of what the data would say,
    as far as the teacher knows it, without the chance of one image and one draw of noise.

    Args:
        folder: the teacher's; v-prediction, latents normalised per channel as the student's, the same tokens.
        compiled: use `torch.compile`.
    """

    def __init__(self, folder: Path, *, compiled: bool = True) -> None:
        self.pipeline = StableDiffusionXLPipeline.from_pretrained(folder)
        self.unet: Any = torch.compile(self.pipeline.unet) if compiled else self.pipeline.unet
        scheduler: Any = self.pipeline.scheduler
        self.alphas = scheduler.alphas_cumprod.double().numpy()
        self.empty: Tensor = self.pipeline.tokenizer("", padding="max_length", return_tensors="pt").input_ids

    @torch.no_grad()
    def __call__(
        self,
        points: Float[Tensor, "batch 4 height width"],
        sigmas: Float[Tensor, " batch"],
        tokens: Int[Tensor, "batch tokens"],
    ) -> Float[Tensor, "batch 4 height width"]:
        """The velocity at points of these noise levels (0 to 1); the empty caption is the teacher's unconditional."""
        levels = sigmas.double().numpy()
        wanted = (1 - levels) ** 2 / ((1 - levels) ** 2 + levels**2)
        steps = np.interp(wanted, self.alphas[::-1], np.arange(len(self.alphas))[::-1])
        alphas = torch.from_numpy(np.interp(steps, np.arange(len(self.alphas)), self.alphas)).float().view(-1, 1, 1, 1)
        noisy = points / ((1 - sigmas) ** 2 + sigmas**2).sqrt().view(-1, 1, 1, 1)
        text, pooled = encode_text(self.pipeline, tokens)
        kept = (tokens != self.empty).any(-1).float()
        conditions = {"text_embeds": pooled * kept[:, None], "time_ids": size_conditions(self.pipeline, len(points))}
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self.unet(
                noisy,
                torch.from_numpy(steps).float(),
                text * kept[:, None, None],
                added_cond_kwargs=conditions,
                return_dict=False,
            )[0].float()
        signal, noise = alphas.sqrt(), (1 - alphas).sqrt()
        return (noise - signal) * noisy + (noise + signal) * predicted
