"""How well an image fits its prompt, by the cosine of two towers: CLIPScore, PickScore, HPS v2.1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from symskew.metrics.kinds import Features, SampleMetric
from symskew.metrics.towers import Towers, quantity

__all__ = ["VARIANTS", "Alignment", "Variant", "alignments"]

Cosines = Float[np.ndarray, " images"]


class Variant(NamedTuple):
    """A number made of the cosine: its name after that of the network, and how it is made of cosine and logit scale."""

    name: str
    short: str
    title: str
    unit: str
    of: Callable[[Cosines, Towers], Cosines]
    prefix: str = ""


class Alignment(SampleMetric):
    """A variant of the cosine between an image and its prompt; the image's embedding is stored, the text's is not."""

    def __init__(self, variant: Variant, eye: Towers) -> None:
        found = quantity(variant.name, variant.title, variant.unit, eye, short=variant.short)
        self.quantities, self.extractor = (found,), eye.id
        self._variant, self._eye = variant, eye

    def score(self, features: Features, prompts: Sequence[str]) -> Cosines:
        """From `embedding`; prompts are cut to 77 tokens, as by the authors of all these metrics."""
        images = features["embedding"].astype(np.float64)
        if len(images) != len(prompts):
            raise ValueError(
                f"{self.id}: expected a prompt for each image, got {len(prompts)} for {len(images)} images"
            )
        if not len(images):
            return np.zeros(0)
        texts = self._eye.texts([self._variant.prefix + prompt for prompt in prompts])
        return self._variant.of((images * texts).sum(1), self._eye)


def _plain(cosine: Cosines, eye: Towers) -> Cosines:
    return cosine


def _of_clip(name: str, model: str) -> tuple[Variant, ...]:
    return (
        Variant(f"{name}/cos", name, f"CLIPScore {model}", "cosine", _plain),
        Variant(
            f"{name}/x100",
            f"{name}/x100",
            f"CLIPScore {model} × 100",
            "100 max(cosine, 0)",
            lambda cosine, _: 100 * cosine.clip(0),
        ),
        Variant(
            f"{name}/hessel",
            f"{name}/hessel",
            f"CLIPScore {model} of Hessel et al.",
            "2.5 max(cosine, 0)",
            lambda cosine, _: 2.5 * cosine.clip(0),
            "A photo depicts ",
        ),
    )


VARIANTS: dict[str, tuple[Variant, ...]] = {
    "clip-l": _of_clip("clip-l", "ViT-L/14"),
    "clip-b32": _of_clip("clip-b32", "ViT-B/32"),
    "pickscore": (
        Variant("pickscore/cos", "pickscore", "PickScore (cosine)", "cosine", _plain),
        Variant(
            "pickscore/logit",
            "pickscore/logit",
            "PickScore (logit)",
            "cosine × logit scale",
            lambda cosine, eye: cosine * eye.scale,
        ),
    ),
    "hps": (Variant("hps/v2.1", "hps", "HPS v2.1", "cosine", _plain),),
}
"""By the networks' names.

Hessel et al. (2021) put "A photo depicts" before the caption and used ViT-B/32. Published values of PickScore are
logits, about a hundred times the cosine, which is what the paper prints.
"""


def alignments(eyes: Iterable[Towers]) -> list[SampleMetric]:
    """All variants of all networks."""
    return [Alignment(variant, eye) for eye in eyes for variant in VARIANTS[eye.id.partition("/")[0]]]
