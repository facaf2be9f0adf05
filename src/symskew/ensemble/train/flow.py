"""Train the transformer and the text encoders of a miniature SD3 on encoded scenes, by rectified flow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from symskew.ensemble.data import draw_caption
from symskew.ensemble.train.latents import Latents
from symskew.ensemble.train.loop import DROPOUT, fit, sample_grid
from symskew.ensemble.train.run import parameters_of
from symskew.ensemble.train.teacher import Teacher

__all__ = [
    "FlowBatch",
    "FlowSteps",
    "PlainJointAttention",
    "draw_flow_batch",
    "encode_sd3_text",
    "noise_levels",
    "train_sd3",
]

MOST_ZEROS = 256  # that the pipeline puts in T5's place, unless its caller says otherwise


class PlainJointAttention:
    """Joint attention by plain products and softmax, with a bias on each key.

    On CPUs the backward pass of the fused attention costs up to twenty times that of these. And the bias makes one zero
    in T5's place do the work of many: SD3's text has no positions but CLIP's own, so n zeros stay alike through all
    layers, and attending to n alike keys is attending to one whose score is log n higher.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "batch image width"],
        encoder_hidden_states: Float[Tensor, "batch text width"],
        attention_mask: Float[Tensor, "batch 1 1 tokens"] | None = None,
    ) -> tuple[Float[Tensor, "batch image width"], Float[Tensor, "batch text width"]]:
        """The attention of image and text tokens, in this order, to all; `attention_mask` is added to the scores."""
        parts: Any = attn
        image = (parts.to_q, parts.to_k, parts.to_v, parts.norm_q, parts.norm_k)
        text = (parts.add_q_proj, parts.add_k_proj, parts.add_v_proj, parts.norm_added_q, parts.norm_added_k)
        joined = []
        for states, (to_q, to_k, to_v, norm_q, norm_k) in (hidden_states, image), (encoder_hidden_states, text):
            q, k, v = (to(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for to in (to_q, to_k, to_v))
            joined.append((norm_q(q) if norm_q else q, norm_k(k) if norm_k else k, v))
        q, k, v = (torch.cat(pair, 2) for pair in zip(*joined, strict=True))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if attention_mask is not None:
            scores = scores + attention_mask
        attended = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)
        image_out, text_out = attended.split([hidden_states.shape[1], encoder_hidden_states.shape[1]], 1)
        return parts.to_out[0](image_out), text_out if parts.context_pre_only else parts.to_add_out(text_out)


class FlowBatch(NamedTuple):
    """One step's data: clean latents, caption tokens, noise, how much of it (0 to 1), and zeros in T5's place."""

    latents: Float[Tensor, "batch 4 16 16"]
    tokens: Int[Tensor, "batch 24"]
    noise: Float[Tensor, "batch 4 16 16"]
    sigmas: Float[Tensor, " batch"]
    zeros: Float[Tensor, " batch"]

    @property
    def points(self) -> Float[Tensor, "batch 4 16 16"]:
        """The points of the flow at which the velocity is learned."""
        share = self.sigmas.view(-1, 1, 1, 1)
        return (1 - share) * self.latents + share * self.noise


def noise_levels(places: np.ndarray) -> np.ndarray:
    """Noise levels from numbers uniform in 0 to 1: four fifths logit-normal (SD3, §3.1) about 0.65, a fifth uniform.

    There the layout is decided and each digit's shape, which the caption says most about: what is left below a half is
    how it was written.
    """
    sigmas = np.linspace(0, 1, 2001)[1:-1]
    logit = np.log(sigmas / (1 - sigmas))
    bump = np.exp(-0.5 * (logit - 0.6) ** 2) / (sigmas * (1 - sigmas))
    shares = np.cumsum(0.8 * bump / bump.sum() + 0.2 / len(sigmas))
    return np.interp(places, shares, sigmas)


def draw_flow_batch(
    data: Latents, tokenize: Callable[[list[str]], Tensor], *, size: int, seed: int, step: int
) -> FlowBatch:
    """Scenes, captions in fresh words or dropped, noise, noise levels (stratified) and numbers of zeros.

    A dropped caption is the empty one, which SD3's pipeline encodes for its unconditional branch. Half of the samples
    see as many zeros as the pipeline takes when nothing is said, the others any number: images come out alike whatever
    `max_sequence_length` is.
    """
    rng = np.random.default_rng((seed, step))
    rows = rng.integers(len(data.labels), size=size)
    dropped = rng.random(size) < DROPOUT
    words = ["" if drop else draw_caption(rng, data.labels[row]) for row, drop in zip(rows, dropped, strict=True)]
    strata = (np.arange(size) + rng.random(size)) / size
    zeros = np.where(rng.random(size) < 0.5, MOST_ZEROS, MOST_ZEROS ** rng.random(size))
    return FlowBatch(
        torch.from_numpy(data.latents[rows].astype(np.float32)),
        tokenize(words),
        torch.from_numpy(rng.standard_normal((size, *data.latents.shape[1:]), dtype=np.float32)),
        torch.from_numpy(noise_levels(strata).astype(np.float32)),
        torch.from_numpy(zeros.astype(np.float32)),
    )


class FlowSteps(Dataset[tuple[FlowBatch, Tensor]]):
    """Batches and the velocities to learn at their points, by step: the data's own, or those a teacher names.

    It takes the teacher's folder, so that a process beside the training can read the teacher for itself.
    """

    def __init__(
        self,
        data: Latents,
        tokenize: Callable[[list[str]], Tensor],
        *,
        size: int,
        seed: int,
        teacher: Path | None = None,
        compiled: bool = True,
    ) -> None:
        self.draw = partial(draw_flow_batch, data, tokenize, size=size, seed=seed)
        self.folder, self.compiled = teacher, compiled

    @cached_property
    def teacher(self) -> Teacher | None:
        """The teacher, read when it is first asked."""
        return Teacher(self.folder, compiled=self.compiled) if self.folder else None

    def __getitem__(self, step: int) -> tuple[FlowBatch, Float[Tensor, "batch 4 16 16"]]:
        """A step's batch and velocities."""
        drawn = self.draw(step=step)
        if self.teacher is None:
            return drawn, drawn.noise - drawn.latents
        return drawn, self.teacher(drawn.points, drawn.sigmas, drawn.tokens)


def encode_sd3_text(
    pipeline: StableDiffusion3Pipeline, tokens: Int[Tensor, "batch tokens"], zeros: int = 1
) -> tuple[Float[Tensor, "batch text width"], Float[Tensor, "batch pooled"]]:
    """What the pipeline's `encode_prompt` makes of token ids at this `max_sequence_length`, with gradients."""
    with sdpa_kernel(SDPBackend.MATH):  # its backward pass is the faster one here too
        encoders: Any = (pipeline.text_encoder, pipeline.text_encoder_2)
        outputs = [encoder(tokens, output_hidden_states=True) for encoder in encoders]
    text = torch.cat([output.hidden_states[-2] for output in outputs], -1)
    pooled = torch.cat([output.text_embeds for output in outputs], -1)
    return torch.nn.functional.pad(text, (0, 0, 0, zeros)), pooled


def train_sd3(
    pipeline: StableDiffusion3Pipeline,
    data: Latents,
    folder: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    stop: int | None = None,
    batch: int = 128,
    peak: float = 2e-3,
    seed: int = 0,
    every: float = 300.0,
    compiled: bool = True,
    report: int = 25,
    grid: int = 24,
    run: str = "sd3",
    teacher: Path | None = None,
) -> StableDiffusion3Pipeline:
    """Train in place and leave the averaged weights in the pipeline; the arguments are those of `fit`.

    `grid` is the number of images of a sample grid, a multiple of 8; 0 for none. With the folder of a `teacher`
    (`Teacher`) its velocities are learned instead of the data's; it works in a process of its own, a few steps ahead.
    """
    transformer: Any = pipeline.transformer
    transformer.set_attn_processor(PlainJointAttention())
    loss_of = torch.compile(_loss(pipeline)) if compiled else _loss(pipeline)

    dataset = FlowSteps(data, partial(_tokenize, pipeline.tokenizer), size=batch, seed=seed, teacher=teacher,
                        compiled=compiled)  # fmt: skip
    ahead: Iterator[tuple[FlowBatch, Tensor]] | None = None

    def loss_at(step: int) -> Tensor:
        nonlocal ahead
        if ahead is None:
            steps_left = range(step, sys.maxsize)
            beside = 1 if teacher else 0  # processes: drawing alone costs next to nothing
            ahead = iter(DataLoader(dataset, batch_size=None, sampler=steps_left, num_workers=beside))
        drawn, velocity = next(ahead)
        text, pooled = encode_sd3_text(pipeline, drawn.tokens)
        return loss_of(drawn.points, velocity, drawn.sigmas, drawn.zeros, text, pooled)

    def show(path: Path) -> None:
        transformer.set_attn_processor(JointAttnProcessor2_0())
        sample_grid(pipeline, path, count=grid, max_sequence_length=pipeline.tokenizer_max_length)
        transformer.set_attn_processor(PlainJointAttention())

    weights = parameters_of(*(getattr(pipeline, part) for part in ("transformer", "text_encoder", "text_encoder_2")))
    fit(weights, loss_at, folder, run=run, batch=batch, peak=peak, minutes=minutes, steps=steps, stop=stop,
        every=every, report=report, show=show if grid else None)  # fmt: skip
    transformer.set_attn_processor(JointAttnProcessor2_0())
    return pipeline


def _loss(pipeline: StableDiffusion3Pipeline) -> Callable[..., Tensor]:
    transformer: Any = pipeline.transformer
    image_tokens = (transformer.config.sample_size // transformer.config.patch_size) ** 2

    def loss_of(
        points: Tensor, velocity: Tensor, sigmas: Tensor, zeros: Tensor, text: Tensor, pooled: Tensor
    ) -> Tensor:
        before = image_tokens + text.shape[1] - 1  # the one zero stands last
        bias = torch.nn.functional.pad(zeros.log().view(-1, 1, 1, 1), (before, 0))
        with torch.autocast("cpu", torch.bfloat16):
            predicted = transformer(
                points,
                text,
                pooled,
                1000 * sigmas,
                joint_attention_kwargs={"attention_mask": bias},
                return_dict=False,
            )[0]
        return (predicted.float() - velocity).square().mean()

    return loss_of


def _tokenize(tokenizer: Any, texts: list[str]) -> Int[Tensor, "batch tokens"]:
    return tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
