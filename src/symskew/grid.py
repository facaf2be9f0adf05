"""Fold tokens back to where they are in the image: the grid of a layer, and its image tokens among others."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from symskew.layers import IMAGE_FIRST, TEXT_FIRST, Layer

Grid = tuple[int, ...]
"""(height, width), or (frames, height, width) for video; (tokens,) for a text."""


def find_grids(root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Grid]:
    """The grids that a model's layers may work on, given its arguments; the finest first, empty if unknown or a text.

    From the latents' own height and width: halved again and again for a UNet, divided by the patch size for a
    transformer. Models that are given packed tokens say where each belongs (`img_ids`, `img_shapes`).
    """
    if (ids := kwargs.get("img_ids")) is not None:
        ids = ids[0] if ids.ndim == 3 else ids
        return [tuple(int(n) for n in (ids[:, -2:].amax(0) - ids[:, -2:].amin(0) + 1).tolist())]
    if shapes := kwargs.get("img_shapes"):
        shape = shapes[0]
        while isinstance(shape[0], (list, tuple)):
            shape = shape[0]
        return [tuple(int(n) for n in shape[-3:])[1 if shape[0] == 1 else 0 :]]
    named = {**dict(enumerate(args)), **kwargs}
    images = (v for name, v in named.items() if isinstance(v, Tensor) and v.ndim in (4, 5) and "mask" not in str(name))
    latents = next(images, None)
    if latents is None or kwargs.get("input_ids") is not None:
        return []
    sizes = tuple(latents.shape[2:])
    patch = getattr(getattr(root, "config", None), "patch_size", None)
    if patch is not None:
        patches = (patch,) * len(sizes) if isinstance(patch, int) else tuple(patch)
        if isinstance(patch, int) and len(sizes) == 3:
            patches = (getattr(root.config, "patch_size_t", None) or 1, patch, patch)
        return [tuple(size // part for size, part in zip(sizes, patches, strict=True))]
    if len(sizes) == 3:  # frames become part of the batch in a UNet's spatial layers
        sizes = sizes[1:]
    grids = [sizes]
    while max(grids[-1]) > 1:
        grids.append(tuple(math.ceil(size / 2) for size in grids[-1]))
    return grids


def locate(layer: Layer, tokens: int, streams: tuple[int, int], grids: list[Grid]) -> tuple[slice, Grid]:
    """Which of a layer's tokens are the image's, and the grid they fold to, row by row.

    Args:
        layer: whose attention it is.
        tokens: of the attention.
        streams: of the layer's own sequence, and of the other one in joint attention (0 where there is none).
        grids: from `find_grids`.

    Raises:
        ValueError: where that cannot be known, naming the layer.
    """
    own, other = streams
    exact = {math.prod(grid): grid for grid in reversed(grids)}
    image = own if other else tokens
    if other == 0 and tokens not in exact and grids and tokens > math.prod(grids[0]):
        image = math.prod(grids[0])  # text and image in one sequence
    grid = exact.get(image)
    if layer.transformers and not grids:
        return slice(0, tokens), (tokens,)
    side = math.isqrt(image)
    if grid is None and not grids and side * side == image:
        grid = (side, side)
    problem = (
        f"{image} image tokens are none of the grids {', '.join('×'.join(map(str, g)) for g in grids) or '(none)'}"
    )
    if grid is not None:
        if image == tokens:
            return slice(0, tokens), grid
        if layer.processor.startswith(TEXT_FIRST):
            return slice(tokens - image, tokens), grid
        if any(family in layer.processor for family in IMAGE_FIRST):
            return slice(0, image), grid
        if layer.transformers and tokens - image <= 2 + getattr(layer.module.config, "num_register_tokens", 0):
            return slice(tokens - image, tokens), grid  # class, distillation and register tokens come first
        problem = f"the order of text and image tokens in {layer.processor} is unknown"
    raise ValueError(
        f"symskew: where the tokens of {layer.name} are in the image cannot be known: {problem}; "
        "leave maps out, or the layer out with layers=."
    )


def fold(values: Tensor, grid: Grid) -> Tensor:
    """(…, tokens) to (…, height, width) or (…, frames, height, width)."""
    return values.unflatten(-1, grid)


def stretch(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(height, width) or (frames, height, width) at another height and width, by bilinear interpolation."""
    layers = image.reshape(-1, 1, *image.shape[-2:])
    spread = torch.nn.functional.interpolate(layers, size=size, mode="bilinear", align_corners=False)
    return spread.reshape(*image.shape[:-2], *size)
