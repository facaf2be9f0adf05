"""Train the autoencoder: 64×64 RGB to 16×16 latents of four channels and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from rich.progress import Progress
from torch import Tensor

from symskew.ensemble.build import make_autoencoder
from symskew.ensemble.data import make_scenes
from symskew.ensemble.mnist import Digits
from symskew.ensemble.train.run import Average, Budget, Log, learning_rate

__all__ = ["to_images", "to_tensor", "train_autoencoder"]


def to_tensor(images: np.ndarray) -> Tensor:
    """8-bit images (count, h, w, 3) as float32 (count, 3, h, w) on −1…1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(tensor: Tensor) -> np.ndarray:
    """The reverse of `to_tensor`, clipped and rounded."""
    return ((tensor.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def train_autoencoder(
    digits: Digits,
    folder: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    images: int = 20_000,
    batch: int = 64,
    peak: float = 2.5e-3,
    workers: int = 2,
) -> AutoencoderKL:
    """Train on random 32×32 crops (the network is local, so a quarter of the pixels teaches the same).

    Loss: absolute error with strokes weighted 4 to 1 (most of an image is background), and 1e-3 KL so that latents stay
    near a unit Gaussian. Ends by setting `scaling_factor` so that scaled latents have unit standard deviation, and
    saves to `folder/vae`. Deterministic for given `steps`.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    scenes = make_scenes(images, digits, seed=seed + 1, workers=workers).images
    model = make_autoencoder().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-4)
    average = Average(model.parameters(), 0.99)
    budget, log, step = Budget(minutes=minutes, steps=steps), Log(folder / "autoencoder.jsonl"), 0

    @torch.compile
    def loss_of(pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            moments = model.quant_conv(model.encoder(pixels)).float()  # pyright: ignore[reportOptionalCall]
            mean, variance = moments.chunk(2, 1)
            variance = variance.clamp(-30, 20)
            latents = mean + torch.exp(0.5 * variance) * noise
            decoded = model.decoder(model.post_quant_conv(latents)).float()  # pyright: ignore[reportOptionalCall]
        weight = 1 + 3 * (pixels.amax(1, keepdim=True) > -0.8).float()
        error = ((decoded - pixels).abs() * weight).mean()
        divergence = 0.5 * (mean**2 + variance.exp() - 1 - variance).mean()
        return error + 1e-3 * divergence, error, divergence

    with Progress() as progress:
        task = progress.add_task("autoencoder", total=1.0)
        while (share := budget.share(step)) < 1:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(share, peak, warmup=0.1)
            rows = rng.integers(len(scenes), size=batch)
            tops, lefts = rng.integers(0, 33, size=(2, batch))
            crops = np.stack([scenes[r, t : t + 32, x : x + 32] for r, t, x in zip(rows, tops, lefts, strict=True)])
            pixels = to_tensor(crops).contiguous(memory_format=torch.channels_last)
            loss, error, divergence = loss_of(pixels, torch.randn(batch, 4, 8, 8))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            average.update(step)
            step += 1
            if step == 1:
                budget.restart()  # what went before was compilation
            if step % 50 == 0:
                log(step=step, seconds=budget.spent, error=error.item(), kl=divergence.item())
            progress.update(task, completed=share, description=f"autoencoder · error {error.item():.3f}")
    average.swap()
    _finish(model, scenes[:1000], log)
    model.save_pretrained(folder / "vae")
    return model


@torch.no_grad()
def _finish(model: AutoencoderKL, scenes: np.ndarray, log: Log) -> None:
    model.eval()
    pixels = to_tensor(scenes)
    latents = torch.cat([model.encode(part).latent_dist.mean for part in pixels.split(100)])  # pyright: ignore
    decoded = torch.cat([model.decode(part).sample for part in latents.split(100)])  # pyright: ignore
    model.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    log(mean_absolute_error=(decoded - pixels).abs().mean().item(), std=latents.std().item())
