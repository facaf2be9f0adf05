"""Train the UNet and the text encoders of a miniature pipeline on encoded scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from PIL import Image
from rich.progress import Progress, TextColumn
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from symskew.ensemble.data import draw_caption
from symskew.ensemble.prompts import make_prompts
from symskew.ensemble.train.latents import Latents
from symskew.ensemble.train.run import (
    Average,
    Budget,
    Log,
    learning_rate,
    load_checkpoint,
    parameters_of,
    save_checkpoint,
)

__all__ = ["Batch", "draw_batch", "encode_text", "loss_weights", "timestep_shares", "train_unet"]

DROPOUT = 0.1  # of the captions, replaced by what the pipeline uses as the unconditional branch


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
    """Train in place and leave the averaged weights in the pipeline; goes on from `folder/{run}.pt` if it is there.

    Args:
        minutes: wall-clock budget over all sittings, or
        steps: budget in steps.
        stop: leave off after this step of the budget (to be resumed).
        every: seconds between checkpoints and sample grids.
        report: steps between lines of `folder/{run}.jsonl`, each with the mean loss since the last.
        run: name of the checkpoint, the log and the sample grids.
        grid: images of a sample grid, a multiple of 8; 0 for none.
    """
    modules = (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2)
    weights = parameters_of(*modules)  # pyright: ignore[reportArgumentType]
    optimizer = torch.optim.AdamW(weights, lr=peak, betas=(0.9, 0.99), weight_decay=0.01)
    average = Average(weights, 0.995)  # of the last 200 steps or so: a training has a few thousand
    step, spent = 0, 0.0
    if (state := load_checkpoint(folder / f"{run}.pt")) is not None:
        with torch.no_grad():
            for weight, shadow, kept, kept_shadow in zip(
                weights, average.shadow, state["weights"], state["average"], strict=True
            ):
                weight.copy_(kept)
                shadow.copy_(kept_shadow)
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    budget, log = Budget(minutes=minutes, steps=steps, spent=spent), Log(folder / f"{run}.jsonl")
    alphas = pipeline.scheduler.alphas_cumprod  # pyright: ignore[reportAttributeAccessIssue]
    # On CPUs the backward pass of the fused attention costs up to twenty times that of plain products and softmax at
    # these sizes. The results are the same, and the pipeline gets its usual processors back at the end.
    pipeline.unet.set_attn_processor(AttnProcessor())
    loss_of, per_step = _make_loss(pipeline, batch), loss_weights(alphas)
    loss_of = torch.compile(loss_of) if compiled else loss_of

    def keep() -> None:
        save_checkpoint(folder / f"{run}.pt", weights=[w.detach() for w in weights], average=average.shadow,
                        optimizer=optimizer.state_dict(), step=step, spent=budget.spent)  # fmt: skip
        if grid:
            average.swap()
            sample_grid(pipeline, folder / f"{run}-samples" / f"step-{step:06d}.png", count=grid)
            average.swap()

    def tokenize(texts: list[str]) -> Tensor:
        return pipeline.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids

    recent: list[float] = []
    saved, first, start = budget.spent, True, step
    columns = (*Progress.get_default_columns(), TextColumn("step {task.fields[step]} · loss {task.fields[loss]:.4f}"))
    with Progress(*columns) as progress:
        task = progress.add_task("unet", total=1.0, step=step, loss=float("nan"))
        while (share := budget.share(step)) < 1 and (stop is None or step < stop):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(share, peak, flat=0.5)
            drawn = draw_batch(data, tokenize, size=batch, seed=seed, step=step)
            text, pooled = encode_text(pipeline, drawn.tokens)
            kept = (~drawn.dropped).float()
            loss = loss_of(drawn.latents, drawn.noise, drawn.steps, alphas[drawn.steps], per_step[drawn.steps],
                           text * kept[:, None, None], pooled * kept[:, None])  # fmt: skip
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_([w for w in weights if w.grad is not None], 1.0)
            optimizer.step()
            average.update(step)
            step += 1
            recent.append(loss.item())
            if first:
                first, start = False, step
                budget.restart()  # what went before was compilation
            if step % report == 0:
                speed = (step - start) * batch / max(budget.spent - spent, 1e-9)
                log(step=step, images=step * batch, seconds=budget.spent, loss=float(np.mean(recent)),
                    rate=optimizer.param_groups[0]["lr"], speed=speed)  # fmt: skip
                progress.update(task, step=step, loss=float(np.mean(recent)))
                recent.clear()
            progress.update(task, completed=share)
            if budget.spent - saved > every:
                keep()
                saved = budget.spent
    keep()
    average.swap()
    pipeline.unet.set_attn_processor(AttnProcessor2_0())
    return pipeline


def _make_loss(pipeline: StableDiffusionXLPipeline, batch: int) -> Callable[..., Tensor]:
    unet = pipeline.unet
    size = float(unet.config.sample_size * pipeline.vae_scale_factor)  # pyright: ignore[reportAttributeAccessIssue]
    # What the pipeline says of an image made at its default size: original size, crop, target size.
    times = torch.tensor([[size, size, 0.0, 0.0, size, size]]).repeat(batch, 1)

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


@torch.no_grad()
def sample_grid(pipeline: StableDiffusionXLPipeline, path: Path, *, count: int = 24, guidance: float = 3.0) -> None:
    """A picture of the same few prompts each time (in order of `make_prompts`), for the eye."""
    prompts = [prompt.text for prompt in make_prompts(count, seed=7)]
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(n) for n in range(count)]
    images = pipeline(
        prompts, num_inference_steps=20, guidance_scale=guidance, generator=generators, output_type="np"
    ).images  # pyright: ignore
    rows = np.asarray(images).reshape(-1, 8, 64, 64, 3).transpose(0, 2, 1, 3, 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((rows.reshape(-1, 8 * 64, 3) * 255).round().astype(np.uint8)).save(path)
