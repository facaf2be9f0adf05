"""Train the UNet and the text encoders of a miniature pipeline on encoded scenes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from symskew.ensemble.data import draw_caption
from symskew.ensemble.train.latents import Latents
from symskew.ensemble.train.loop import DROPOUT, fit, sample_grid
from symskew.ensemble.train.run import parameters_of

__all__ = ["Batch", "draw_batch", "encode_text", "loss_weights", "size_conditions", "timestep_shares", "train_unet"]


def loss_weights(alphas_cumprod: Tensor, limit: float = 5.0) -> Tensor:
    """Weight of each timestep's v-loss: min(snr + 1, limit) / (snr + 1), Min-SNR for v-prediction.

    Nearly clean latents, which teach little, count less; pure noise (snr 0), where the layout is decided, keeps 1.
    """
    plus_one = 1 / (1 - alphas_cumprod).clamp(min=1e-6)
    return plus_one.clamp(max=limit) / plus_one


def timestep_shares(count: int = 1000) -> np.ndarray:
    """How often each timestep is drawn, summing to one: a logit-normal bump, and a fifth spread evenly.

    Where signal and noise are comparable, digits and their colours are decided and a step teaches most. Near pure noise
    almost all of the loss is the layout's own entropy, and near none what is left is grain; both still get their share.
    """
    place = (np.arange(count) + 0.5) / count
    logit = np.log(place / (1 - place))
    bump = np.exp(-0.5 * (logit - 0.5) ** 2) / (place * (1 - place))
    return 0.8 * bump / bump.sum() + 0.2 / count


def encode_text(pipeline: StableDiffusionXLPipeline, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What the pipeline's `encode_prompt` makes of token ids, with gradients: (batch, 24, 128), pooled (batch, 64)."""
    with sdpa_kernel(SDPBackend.MATH):  # as for the UNet's attention in `train_unet`
        first = pipeline.text_encoder(tokens, output_hidden_states=True)  # pyright: ignore[reportCallIssue]
        second = pipeline.text_encoder_2(tokens, output_hidden_states=True)  # pyright: ignore[reportCallIssue]
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1), second.text_embeds


def size_conditions(pipeline: StableDiffusionXLPipeline, batch: int) -> Tensor:
    """What the pipeline says of images made at its default size: original size, crop, target size; (batch, 6)."""
    size = float(pipeline.unet.config.sample_size * pipeline.vae_scale_factor)  # pyright: ignore[reportAttributeAccessIssue]
    return torch.tensor([[size, size, 0.0, 0.0, size, size]]).repeat(batch, 1)


_DRAWN = np.cumsum(timestep_shares())


class Batch:
    """One step's data, a function of the seed and the step alone, so that a resumed run continues exactly."""

    def __init__(self, latents: Tensor, tokens: Tensor, noise: Tensor, steps: Tensor, dropped: Tensor) -> None:
        self.latents, self.tokens, self.noise, self.steps, self.dropped = latents, tokens, noise, steps, dropped


def draw_batch(data: Latents, tokenize: Callable[[list[str]], Tensor], *, size: int, seed: int, step: int) -> Batch:
    """Scenes, captions in fresh words, noise, timesteps (stratified, to steady the loss) and dropped captions."""
    rng = np.random.default_rng((seed, step))
    rows = rng.integers(len(data.labels), size=size)
    strata = (np.arange(size) + rng.random(size)) / size
    return Batch(
        torch.from_numpy(data.latents[rows].astype(np.float32)),
        tokenize([draw_caption(rng, data.labels[row]) for row in rows]),
        torch.from_numpy(rng.standard_normal((size, *data.latents.shape[1:]), dtype=np.float32)),
        torch.from_numpy(np.searchsorted(_DRAWN, strata).clip(max=len(_DRAWN) - 1)),
        torch.from_numpy(rng.random(size) < DROPOUT),
    )


def train_unet(
    pipeline: StableDiffusionXLPipeline,
    data: Latents,
    folder: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    stop: int | None = None,
    batch: int = 64,
    peak: float = 1e-3,
    seed: int = 0,
    every: float = 300.0,
    compiled: bool = True,
    report: int = 25,
    grid: int = 24,
    run: str = "unet",
) -> StableDiffusionXLPipeline:
    """Train in place and leave the averaged weights in the pipeline; the arguments are those of `fit`.

    `grid` is the number of images of a sample grid, a multiple of 8; 0 for none.
    """
    # On CPUs the backward pass of the fused attention costs up to twenty times that of plain products and softmax at
    # these sizes. The results are the same, and the pipeline gets its usual processors back at the end.
    pipeline.unet.set_attn_processor(AttnProcessor())
    alphas = pipeline.scheduler.alphas_cumprod  # pyright: ignore[reportAttributeAccessIssue]
    loss_of, per_step = _make_loss(pipeline, batch), loss_weights(alphas)
    loss_of = torch.compile(loss_of) if compiled else loss_of

    def tokenize(texts: list[str]) -> Tensor:
        return pipeline.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids

    def loss_at(step: int) -> Tensor:
        drawn = draw_batch(data, tokenize, size=batch, seed=seed, step=step)
        text, pooled = encode_text(pipeline, drawn.tokens)
        kept = (~drawn.dropped).float()
        return loss_of(drawn.latents, drawn.noise, drawn.steps, alphas[drawn.steps], per_step[drawn.steps],
                       text * kept[:, None, None], pooled * kept[:, None])  # fmt: skip

    weights = parameters_of(pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2)  # pyright: ignore[reportArgumentType]
    show = partial(sample_grid, pipeline, count=grid) if grid else None
    fit(weights, loss_at, folder, run=run, batch=batch, peak=peak, minutes=minutes, steps=steps, stop=stop, every=every,
        report=report, show=show)  # fmt: skip
    pipeline.unet.set_attn_processor(AttnProcessor2_0())
    return pipeline


def _make_loss(pipeline: StableDiffusionXLPipeline, batch: int) -> Callable[..., Tensor]:
    unet = pipeline.unet
    times = size_conditions(pipeline, batch)

    def loss_of(
        latents: Tensor, noise: Tensor, steps: Tensor, alphas: Tensor, weight: Tensor, text: Tensor, pooled: Tensor
    ) -> Tensor:
        signal, sigma = alphas.sqrt().view(-1, 1, 1, 1), (1 - alphas).sqrt().view(-1, 1, 1, 1)
        noisy = signal * latents + sigma * noise
        with torch.autocast("cpu", torch.bfloat16):
            conditions = {"text_embeds": pooled, "time_ids": times}
            predicted = unet(noisy, steps, text, added_cond_kwargs=conditions, return_dict=False)[0]
        error = (predicted.float() - (signal * noise - sigma * latents)).square().mean((1, 2, 3))
        return (weight * error).mean()

    return loss_of
