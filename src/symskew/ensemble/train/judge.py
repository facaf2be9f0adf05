"""Train the judge on scenes, clean and spoilt, seen as a generator would paint them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor

from symskew.ensemble.data import ABSENT, make_scenes
from symskew.ensemble.judge import ABSENT_CLASS, Judge, JudgeNetwork
from symskew.ensemble.mnist import Digits
from symskew.ensemble.proportion import Proportion
from symskew.ensemble.train.autoencoder import to_images, to_tensor
from symskew.ensemble.train.run import Average, Budget, Log, learning_rate
from symskew.ensemble.train.spoil import SPOILS, classes_of, spoil

__all__ = ["augment", "judge_accuracy", "make_examples", "train_judge"]

_ABSENT_KEPT = 0.2  # of the planes without ink, which are easy and more than half of all


def make_examples(
    digits: Digits, *, count: int, seed: int, spoilt: float = 0.3, workers: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Scenes and their classes, a share of them spoilt: (count, 64, 64, 3) and (count, 6)."""
    scenes = make_scenes(count, digits, seed=seed, held_out=None, workers=workers)
    images, classes = scenes.images, classes_of(scenes.labels)
    rng = np.random.default_rng((seed, 1))
    for row in np.flatnonzero(rng.random(count) < spoilt):
        how = str(rng.choice(SPOILS))
        images[row], classes[row] = spoil(rng, images[row], classes[row], digits, how)
    return images, classes


@torch.no_grad()
def round_trip(model: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    """The images as the autoencoder gives them back."""
    model = model.eval()
    parts = []
    for part in to_tensor(images).split(50):
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(to_images(model.decode(model.encode(part).latent_dist.mean).sample))  # pyright: ignore
    return np.concatenate(parts)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images on 0…1 with slight blur, noise, brightness and tint, each drawn per image."""
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    images = torch.lerp(images, blurred, uniform(-0.3, 0.7, 1, 1, 1).clamp(min=0))
    images = images * uniform(0.75, 1.1, 1, 1, 1) * uniform(0.92, 1.08, 3, 1, 1)
    noise = torch.randn(images.shape, generator=generator) * uniform(0, 0.04, 1, 1, 1)
    return (images + noise).clamp(0, 1)


def train_judge(
    digits: Digits,
    folder: Path,
    out: Path,
    *,
    autoencoder: AutoencoderKL | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    images: int = 24_000,
    batch: int = 48,
    peak: float = 3e-3,
    spoilt: float = 0.3,
    start: Path | None = None,
    workers: int = 1,
) -> JudgeNetwork:
    """Train on images of the training digits and write the averaged weights (float16 safetensors) to `out`.

    Where an autoencoder is given, half of the examples go through it, for its way of painting strokes.
    `start` names weights to go on from, with a fresh optimiser. Deterministic for given `steps`.
    """
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    pixels, classes = make_examples(digits, count=images, seed=200 + seed, spoilt=spoilt, workers=workers)
    if autoencoder is not None:
        half = slice(0, images // 2)
        pixels[half] = round_trip(autoencoder, pixels[half])
    network = Judge.load(start).network.train() if start else JudgeNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak, weight_decay=0.02)
    average = Average([*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())], 0.995)
    budget, log, step = Budget(minutes=minutes, steps=steps), Log(folder / "judge.jsonl"), 0
    with Progress() as progress:
        task = progress.add_task("judge", total=1.0)
        while (share := budget.share(step)) < 1:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(share, peak, flat=0.3)
            rows = rng.integers(images, size=batch)
            seen = augment(torch.from_numpy(pixels[rows]).permute(0, 3, 1, 2).float() / 255, generator)
            wanted = torch.from_numpy(classes[rows]).flatten()
            used = (wanted != ABSENT_CLASS) | (torch.rand(len(wanted), generator=generator) < _ABSENT_KEPT)
            planes = network.planes(seen).flatten(0, 1)[used]
            with torch.autocast("cpu", torch.bfloat16):
                logits = network.read_planes(planes)
            loss = torch.nn.functional.cross_entropy(logits.float(), wanted[used], label_smoothing=0.01)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            average.update(step)
            step += 1
            if step % 50 == 0:
                right = (logits.argmax(-1) == wanted[used]).float().mean().item()
                log(step=step, seconds=budget.spent, loss=loss.item(), right=right)
            progress.update(task, completed=share)
    average.swap()
    network.eval()
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({n: v.half().contiguous() for n, v in network.state_dict().items() if v.is_floating_point()}, out)
    return network


def judge_accuracy(judge: Judge, digits: Digits, *, count: int = 4000, seed: int = 5) -> dict[str, str]:
    """How many clean images of `digits` are read entirely right, how many colours and objects, with 95% intervals."""
    scenes = make_scenes(count, digits, seed=seed, held_out=None)
    right = judge.log_probabilities(scenes.images).argmax(-1).numpy() == classes_of(scenes.labels)
    shares = {"images all right": right.all(1), "colours right": right, "objects right": right[scenes.labels != ABSENT]}
    return {name: f"{Proportion.of(int(x.sum()), x.size)} of {x.size}" for name, x in shares.items()}
