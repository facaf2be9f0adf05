"""Maps of a record as images: values in colours, under the outlines of what was generated."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFilter
from torch import Tensor

from symskew.grid import stretch
from symskew.table import need

Ends = tuple[float, float]
"""The values at the two ends of the colours."""


class Look(NamedTuple):
    """How a map is shown."""

    colours: str
    """A colour map of matplotlib's whose steps are even, for the colour-blind and in grey too."""
    most: float
    """What the scale reaches up to at least, from 0."""
    title: str
    unit: str


LOOKS = {
    "conflict": Look("inferno", 0.5, "in conflict", "share of features with λ < 0; ½ is chance"),
    "agreement": Look("viridis", 0.0, "supported", "λ, mean over features, in units of q·k"),
}


def ends_of(map: Tensor, measure: str, scale: Ends | None = None) -> Ends:
    """The scale of a map: as given, or 0 (or less) to its largest value, or ValueError."""
    if measure not in LOOKS:
        raise ValueError(f"symskew: {measure!r} is no map; there are {', '.join(LOOKS)}.")
    if not map.isfinite().all():
        raise ValueError(f"symskew: a map of {measure} with values that are not finite cannot be shown.")
    least = min(0.0, map.min().item())
    low, high = scale or (least, max(LOOKS[measure].most, map.max().item(), least + 1e-6))
    if not low < high:
        raise ValueError(f"symskew: scale is the least value and the largest, got {scale}.")
    return low, high


def lay(image: Image.Image, map: Tensor, measure: str, ends: Ends) -> Image.Image:
    """A map in colours, at the size of the image, whose outlines are drawn over it in white."""
    if map.ndim != 2:
        video = "; it is of a video: lay a frame of it, map[0], over an image of your own" if map.ndim == 3 else ""
        raise ValueError(f"symskew: a map to lay over an image is (height, width), got {tuple(map.shape)}{video}.")
    spread = stretch(map.detach().float().cpu(), (image.height, image.width)).numpy()
    colours = need("matplotlib", "plots").colormaps[LOOKS[measure].colours]((spread - ends[0]) / (ends[1] - ends[0]))
    lines = 0.8 * _outlines(image)[..., None]
    return Image.fromarray((255 * (lines + (1 - lines) * colours[..., :3])).round().astype(np.uint8))


def _outlines(image: Image.Image) -> np.ndarray[Any, Any]:
    """Where an image changes, 0 to 1, in its own measure."""
    smooth = image.convert("RGB").filter(ImageFilter.GaussianBlur(max(image.size) / 400))
    padded = np.pad(np.asarray(smooth, np.float32), ((1, 1), (1, 1), (0, 0)), "edge")
    down, right = padded[2:, 1:-1] - padded[:-2, 1:-1], padded[1:-1, 2:] - padded[1:-1, :-2]
    change = np.hypot(down, right).max(-1)
    return (change / max(np.percentile(change, 99), 1.0)).clip(0, 1)
