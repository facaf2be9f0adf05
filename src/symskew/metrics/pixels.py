"""Images as the networks of published metrics take them, and batches in which no image depends on the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from symskew.table import need

__all__ = ["MEAN", "STD", "Prepare", "converted", "cropped", "in_batches", "padded", "tensors"]

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training images; all networks that were made from it use them."""
_BATCH = 8

Prepare = Callable[[Image, int], Float[Tensor, "3 size size"]]
"""Makes an image of any size what a network takes, square and normalised."""


def cropped(image: Image, size: int) -> Float[Tensor, "3 size size"]:
    """As OpenAI's CLIP: the shorter side to `size` (PIL, bicubic, 8 bits), its middle cut out, then RGB.

    The processors of transformers 5 resize with torchvision by default, which differs by up to two 8-bit levels.
    """
    change, modes = _torchvision()
    resized = change.resize(image, size, interpolation=modes.BICUBIC)
    pixels = change.to_tensor(change.center_crop(resized, size).convert("RGB"))
    return change.normalize(pixels, MEAN, STD)


def converted(image: Image, size: int) -> Float[Tensor, "3 size size"]:
    """As the CLIP processor of transformers 4, which PickScore came with: RGB first, then `cropped`.

    An alpha channel is dropped, and has no part in resizing. Transformers 5 puts such images on white, as nobody did
    before.
    """
    return cropped(image.convert("RGB"), size)


def padded(image: Image, size: int) -> Float[Tensor, "3 size size"]:
    """As HPS v2: the longer side to `size` (floating point, bicubic, antialiased), black around it, then normalised.

    Nothing is cut off, and values beyond black and white, which bicubic interpolation makes, stay. What torchvision did
    without being asked has changed: before 0.17 tensors were not antialiased.
    """
    change, modes = _torchvision()
    pixels = change.to_tensor(image.convert("RGB"))
    height, width = pixels.shape[1:]
    scale = size / max(height, width)
    if scale != 1:
        new = [round(height * scale), round(width * scale)]
        pixels = change.resize(pixels, new, interpolation=modes.BICUBIC, antialias=True)
        top, left = (size - new[0]) // 2, (size - new[1]) // 2
        pixels = change.pad(pixels, [left, top, size - new[1] - left, size - new[0] - top])
    return change.normalize(pixels, MEAN, STD)


def _torchvision():
    need("torchvision", "metrics")
    from torchvision.transforms import InterpolationMode, functional

    return functional, InterpolationMode


def tensors(name: str, images: Sequence[Image], prepare: Prepare, size: int) -> Float[Tensor, "images 3 size size"]:
    """Images, prepared one by one.

    Raises:
        ValueError: an image with more than 8 bits a channel, which would be cut off at white without a word.
    """
    for image in images:
        if image.mode[0] in "IF":
            raise ValueError(
                f"{name}: expected images of 8 bits a channel, got one of {image.size} in mode {image.mode}; scale it "
                "to 0 to 255 and convert it to RGB"
            )
    made = [prepare(image, size) for image in images]
    return torch.stack(made) if made else torch.zeros(0, 3, size, size)


def in_batches(compute: Callable[..., Tensor], *items: Tensor) -> Tensor:
    """Rows for rows, computed eight at a time, always eight: sums then have the same order for every row."""
    parts = []
    # Convolutions would otherwise round to ten bits on newer GPUs, which is not single precision.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for start in range(0, max(len(items[0]), 1), _BATCH):
            some = [each[start : start + _BATCH] for each in items]
            count = len(some[0])
            full = [torch.cat([each, each.new_zeros(_BATCH - count, *each.shape[1:])]) for each in some]
            parts.append(compute(*full)[:count].float().cpu())
    return torch.cat(parts)
