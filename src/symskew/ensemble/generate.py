"""Generate from a pipeline in batches in which each sample depends on its own prompt and seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

__all__ = ["iterate_images"]


@torch.inference_mode()
def iterate_images(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    guidance: float,
    batch: int = 50,
    arguments: Mapping[str, Any] | None = None,
) -> Iterator[UInt8[np.ndarray, "batch 64 64 3"]]:
    """Batches of images, in order. Each sample's noise comes from its own CPU generator, so neither the batch size nor
    the order of the prompts changes an image (beyond the last bits of floating-point sums). `arguments` are further
    ones of the pipeline.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"iterate_images: one seed per prompt, got {len(prompts)} prompts and {len(seeds)} seeds")
    pipeline.set_progress_bar_config(disable=True)
    for start in range(0, len(prompts), batch):
        chosen = slice(start, start + batch)
        images = pipeline(
            list(prompts[chosen]),
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds[chosen]],
            output_type="np",
            **(arguments or {}),
        ).images
        yield (np.asarray(images) * 255).round().astype(np.uint8)
