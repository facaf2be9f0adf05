"""Fold tokens back to where they are in the image: the grid of a layer, and its image tokens among others."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from symskew.layers import IMAGE_FIRST, TEXT_FIRST, Layer

Grid = tuple[int, ...]
"""(height, width), or (frames, height, width) for video; (tokens,) for a text."""

RAGGED = ("Lumina2", "BriaFibo2")
"""Models that place each image right after its own text, as long as that is."""


def find_grids(root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Grid]:
    """The grids that a model's layers may work on, given its arguments; the finest first, empty if unknown or a text.

    From the latents' own height and width: halved again and again for a UNet, divided by the patch size for a
    transformer. Models that are given packed tokens say where each belongs (`img_ids`, `position_ids`, `img_shapes`),
    or how many there are (`height`, `width`, `num_frames`).

    Raises:
        ValueError: where the texts of a batch differ in length, and each image begins where its text ends.
    """
    kind = type(root).__name__
    mask = kwargs.get("encoder_attention_mask")
    if kind.startswith(RAGGED) and isinstance(mask, Tensor) and mask.sum(-1).unique().numel() > 1:
        raise ValueError(
            f"symskew: where the tokens of the images are cannot be known: {kind} places them after their texts, which "
            "differ in length within this batch; generate them one by one, or leave maps out."
        )
    for find in (_by_ids, _by_shapes, _by_sizes):
        if grid := find(kwargs):
            return [grid]
    if (codes := kwargs.get("input_ids")) is not None and codes.ndim == 3:  # of an image
        return _halved(tuple(codes.shape[1:]))
    if codes is not None and "input_img_latents" not in kwargs:
        return []
    return _by_latents(root, args, kwargs)


def _by_ids(kwargs: dict[str, Any]) -> Grid | None:
    """From the place of every token: (time, row, column), and what more the columns may say."""
    ids, tokens = kwargs.get("img_ids"), kwargs.get("hidden_states")
    if ids is None:  # those of text and image together
        ids = kwargs.get("position_ids")
    if not isinstance(ids, Tensor) or ids.shape[-1] < 3 or not isinstance(tokens, Tensor) or tokens.ndim != 3:
        return None
    ids = (ids[0] if ids.ndim == 3 else ids)[-tokens.shape[1] :]
    if (role := kwargs.get("indicator")) is not None:
        ids = ids[role[0] == role[0, -1]]
    sizes = tuple(int(n) for n in (ids[:, :3].amax(0) - ids[:, :3].amin(0) + 1).tolist())
    return sizes[1 if sizes[0] == 1 else 0 :]


def _by_shapes(kwargs: dict[str, Any]) -> Grid | None:
    if not (shape := kwargs.get("img_shapes") or kwargs.get("shape_list")):
        return None
    while isinstance(shape[0], (list, tuple)):
        shape = shape[0]
    return tuple(int(n) for n in shape[-3:])[1 if shape[0] == 1 else 0 :]


def _by_sizes(kwargs: dict[str, Any]) -> Grid | None:
    sizes = [kwargs.get(name) for name in ("num_frames", "height", "width")]
    return None if None in sizes else tuple(int(size) for size in sizes if size is not None)


def _by_latents(root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Grid]:
    values = [*args, *(value for name, value in kwargs.items() if "mask" not in name)]
    # One image of a list is without its batch.
    images = (v[0][None] if isinstance(v, list) and v and isinstance(v[0], Tensor) else v for v in values)
    latents = next((v for v in images if isinstance(v, Tensor) and v.ndim in (4, 5)), None)
    config = getattr(root, "config", None)
    if latents is None:
        hidden = next((v for v in values if isinstance(v, Tensor)), None)
        side = 0 if hidden is None or hidden.ndim != 3 else math.isqrt(hidden.shape[1])
        # A layer of its own; the tokens of a model may be anything.
        return [(side, side)] if config is None and hidden is not None and side and side**2 == hidden.shape[1] else []
    sizes = tuple(latents.shape[2:])
    channels = getattr(config, "in_channels", None)
    if latents.ndim == 5 and latents.shape[2] == channels:  # frames before channels
        sizes = (latents.shape[1], *latents.shape[3:])
    elif hasattr(config, "in_visual_dim"):  # channels last
        sizes = tuple(latents.shape[1:4])
    patch = getattr(config, "patch_size", None) or next(iter(getattr(config, "all_patch_size", [])), None)
    if patch is not None:
        patches = (patch,) * len(sizes) if isinstance(patch, int) else tuple(patch)
        if isinstance(patch, int) and len(sizes) == 3:
            patches = (getattr(config, "patch_size_t", None) or 1, patch, patch)
        grid = tuple(size // part for size, part in zip(sizes, patches[-len(sizes) :], strict=True))
        return [grid, grid[1:]] if len(grid) == 3 else [grid]  # frames may be part of the batch
    return _halved(sizes[-2:])  # frames are part of the batch in a UNet's spatial layers


def _halved(sizes: Grid) -> list[Grid]:
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
