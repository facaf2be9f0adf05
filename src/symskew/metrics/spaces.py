"""The published metrics of sets and of diversity: which of them are taken in the features of which network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from symskew.metrics.dinov2 import dinov2
from symskew.metrics.frechet import FrechetDistance
from symskew.metrics.inception import inceptions
from symskew.metrics.kernel import KernelDistance
from symskew.metrics.kinds import Metric, Quantity
from symskew.metrics.neighbours import Neighbourhoods, shares
from symskew.metrics.networks import FeatureNetwork
from symskew.metrics.vendi import GroupVendi, SetVendi
from symskew.metrics.views import of_images
from symskew.metrics.weights import Site

__all__ = ["networks", "spaces"]


def networks(site: Site) -> list[FeatureNetwork]:
    """All there are; references are made with them."""
    return [*inceptions(site), dinov2(site)]


def spaces(eyes: Sequence[FeatureNetwork]) -> list[Metric]:
    """FID in the features of Inception, all else in those of DINOv2.

    Published KD-DINOv2 is a mean over random subsets, which estimates `kd`; and FD-DINOv2 is `fd`, with as many images.
    """
    tf1, clean, dino = eyes
    found: list[Metric] = [
        FrechetDistance(_named(eye, Quantity(name, title, "squared features", False)), eye.id, of_images)
        for eye, name, title in ((tf1, "fid/tf1", "FID (TensorFlow 1)"), (clean, "fid/clean", "FID (clean-fid)"))
    ]
    vendi, vendis = (
        Quantity(f"dinov2-l/{name}", title, "different images", True)
        for name, title in (("vendi", "Vendi score of a prompt's seeds, DINOv2"), ("vendi-set", "Vendi score, DINOv2"))
    )
    fd, kd = (
        Quantity("dinov2-l/fd", "FD-DINOv2", "squared features", False),
        Quantity("dinov2-l/kd", "KD-DINOv2", "squared discrepancy", False),
    )
    return [
        *found,
        FrechetDistance(_named(dino, fd), dino.id, of_images),
        KernelDistance(_named(dino, kd), dino.id, of_images),
        Neighbourhoods(_named(dino, *shares("dinov2-l", "images, DINOv2")), dino.id, of_images),
        GroupVendi(_named(dino, vendi)[0], dino.id, of_images),
        SetVendi(_named(dino, vendis), dino.id, of_images),
    ]


def _named(eye: FeatureNetwork, *quantities: Quantity) -> tuple[Quantity, ...]:
    """Named after the number format and the version of the network too; without these for short."""
    return tuple(
        replace(each, id=f"{each.id}/{eye.dtype}@{eye.version}", version=eye.version, short=each.id)
        for each in quantities
    )
