"""Perturbed attention guidance (Ahn et al. 2024, ECCV), by diffusers' own pipelines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from symskew.baselines.base import Attached, Baseline, hashable, number
from symskew.layers import Layer
from symskew.selection import Selector, choose_layers
from symskew.weak import FAMILIES


@dataclass(frozen=True)
class PAG(Baseline):
    """Guidance away from the prediction whose self-attention is the identity.

        guided      u + ω·(c − u) + scale·(c − w)       w: the conditional prediction with identity attention

    Args:
        scale: above 0; 3 is common.
        layers: where attention is perturbed, as in `symskew.control`.

    Raises:
        ValueError: a scale out of range.

    >>> PAG(3).to_dict()
    {'name': 'pag', 'scale': 3.0}
    """

    name: ClassVar[str] = "pag"
    passes: ClassVar[int] = 3
    scale: float
    layers: Selector = "mid"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", number("PAG", "scale", self.scale))
        object.__setattr__(self, "layers", hashable(self.layers))

    def check(self, pipe: Any) -> None:
        """A text-to-image pipeline of `FAMILIES`, and layers that diffusers' perturbed attention computes rightly."""
        kind = type(pipe).__name__
        if kind not in FAMILIES:
            raise TypeError(f"PAG: diffusers' pipelines with it stand in for {', '.join(FAMILIES)}, not for {kind}")
        chosen = self._choose(pipe)
        joint = [layer for layer in chosen if layer.joint]
        if normed := [layer.name for layer in joint if getattr(layer.module, "norm_q", None) is not None]:
            raise TypeError(
                f"PAG: diffusers' perturbed attention leaves out the QK-norm that {normed[0]} has, as in Stable "
                "Diffusion 3.5, so its images would differ by more than the guidance; models without can be guided"
            )
        if kind.startswith("StableDiffusion3") and (odd := [layer.name for layer in chosen if not layer.joint]):
            raise ValueError(f"PAG: {odd[0]} is no joint attention, which is all diffusers perturbs in {kind}")

    @contextmanager
    def attach(self, pipe: Any, seeds: Sequence[int] = (0,)) -> Iterator[Attached]:
        """Diffusers' pipeline with perturbed attention guidance around the same models."""
        self.check(pipe)
        from diffusers.pipelines.auto_pipeline import AutoPipelineForText2Image

        chosen = {layer.module for layer in self._choose(pipe)}
        denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
        # Its patterns are looked for anywhere in a name; these match one name each, as a compiled model spells it.
        names = [f"^{re.escape(name)}$" for name, module in denoiser.named_modules() if module in chosen]
        extra = {"add_watermarker": pipe.watermark is not None} if hasattr(pipe, "watermark") else {}
        modules = [layer.module for _, layers in choose_layers(pipe) for layer in layers]
        processors = [module.processor for module in modules]
        try:
            other = AutoPipelineForText2Image.from_pipe(pipe, enable_pag=True, pag_applied_layers=names, **extra)
            other.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
            yield Attached(other, {"pag_scale": self.scale})
        finally:
            # A call that was broken off leaves its own behind.
            for module, processor in zip(modules, processors, strict=True):
                module.processor = processor

    def _choose(self, pipe: Any) -> list[Layer]:
        return [layer for _, layers in choose_layers(pipe, self.layers) for layer in layers]
