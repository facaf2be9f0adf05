"""Make the training set once: scenes drawn, encoded and kept as a memory-mapped array outside the repository."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from rich.progress import Progress

from symskew.ensemble.data import CHUNK, iterate_scenes
from symskew.ensemble.mnist import Digits
from symskew.ensemble.train.autoencoder import to_tensor

__all__ = ["Latents", "encode_scenes", "load_latents"]


class Latents(NamedTuple):
    """A training set: normalised latents (float16, memory-mapped) and the labels of their scenes."""

    latents: np.ndarray  # (count, 4, 16, 16)
    labels: np.ndarray  # (count, 6)


@torch.no_grad()
def encode_scenes(
    model: AutoencoderKL, digits: Digits, folder: Path, *, count: int = 150_000, seed: int = 100, workers: int = 2
) -> Latents:
    """Draw `count` training scenes and keep their encodings in `folder`, normalised per channel.

    The mean and standard deviation of each channel go into the autoencoder's config (`latents_mean`, `latents_std`),
    where diffusers' pipeline looks for them when it decodes; `scaling_factor` is 1; a
    config that has them already is kept to. Encodings are the posterior's mean.
    """
    model = model.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    latents = np.lib.format.open_memmap(folder / "latents.partial.npy", "w+", np.float16, (count, 4, 16, 16))
    labels = np.empty((count, 6), np.int8)
    mean = std = torch.zeros(4)
    with Progress() as progress:
        for at, scenes in enumerate(iterate_scenes(count, digits, seed=seed, workers=workers)):
            rows = slice(at * CHUNK, at * CHUNK + len(scenes.labels))
            pixels = to_tensor(scenes.images).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                encoded = torch.cat([model.encode(part).latent_dist.mean.float() for part in pixels.split(50)])  # pyright: ignore
            if at == 0:
                if model.config.get("latents_mean") is None:
                    mean, std = encoded.mean((0, 2, 3)), encoded.std((0, 2, 3))
                    model.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist(), scaling_factor=1.0)
                else:
                    mean, std = (torch.tensor(model.config[key]) for key in ("latents_mean", "latents_std"))
                task = progress.add_task("latents", total=count)
            latents[rows] = ((encoded - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)).half().numpy()
            labels[rows] = scenes.labels
            progress.update(task, advance=len(scenes.labels))  # pyright: ignore[reportPossiblyUnboundVariable]
    latents.flush()
    (folder / "latents.partial.npy").replace(folder / "latents.npy")
    np.save(folder / "labels.npy", labels)
    model.save_pretrained(folder / "vae")
    return load_latents(folder)


def load_latents(folder: Path) -> Latents:
    """The training set that `encode_scenes` wrote; `FileNotFoundError` names the command that makes it."""
    if not (folder / "latents.npy").is_file() or not (folder / "labels.npy").is_file():
        raise FileNotFoundError(f"load_latents: {folder} holds no latents; run `train latents` first")
    return Latents(np.load(folder / "latents.npy", mmap_mode="r"), np.load(folder / "labels.npy"))
