"""Whether published metrics say here what they say elsewhere: a few pictures are scored, and compared with a record."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from symskew.files import read_json, replacing
from symskew.metrics.kinds import SampleMetric, sha256
from symskew.metrics.registry import digests, extractor, find, sources
from symskew.metrics.weights import Site

__all__ = [
    "PUBLISHED",
    "Difference",
    "Published",
    "Record",
    "compare",
    "own_captions",
    "pictures",
    "published",
    "record",
]

SPREAD = {"fp32": 0.01, "fp16": 0.1}
"""How far scores may be apart, in standard deviations of the recorded ones: rounding stays far below, while another
resize, token or layer moves them by a good part of one."""


class Picture(NamedTuple):
    """An image, and what it shows."""

    image: Image.Image
    caption: str


class Published(NamedTuple):
    """Scores that the authors of a metric print for images of theirs; `files` are their names, hashes and scores."""

    metric: str
    where: str
    prompt: str
    files: Mapping[str, tuple[str, float]]
    tolerance: float


PUBLISHED = (
    Published(
        "imagereward/v1.0/fp32@1",
        "the README of github.com/THUDM/ImageReward, whose assets/images has the images",
        "a painting of an ocean with clouds and birds, day time, low depth field effect",
        {
            "1.webp": ("a5fcd126763da8b3fe2a9e620fc1ba03d215d20de36c77bf6770a540a9bc972d", 0.5811622738838196),
            "2.webp": ("dc13919a49a37987d19c8be3ba0c1ef2941570f820f90fb66ac91a9a9db24082", 0.2745276093482971),
            "3.webp": ("ee859bac167e6a04cbcde63454757b6fc7d9b8704429c15725ca8c4accf176e3", -1.4131819009780884),
            "4.webp": ("84faf59d59d9ca7ab298c9acb957d727365ae104768ac1a1ec55ab96be68aaf9", -2.029569625854492),
        },
        0.02,
    ),
)
"""All that is known. The README says that other devices give slightly other numbers."""


def pictures() -> list[Picture]:
    """Six pictures of plain things, the same on every machine, square and not."""
    y, x = np.mgrid[-128:128, -128:128] + 0.5
    tall_y, tall_x = np.mgrid[:320, :200]
    wide_y, _ = np.mgrid[:200, :320]
    rainbow = np.array([(228, 3, 3), (255, 140, 0), (255, 237, 0), (0, 128, 38), (36, 64, 142), (115, 41, 130)])
    drawn = (
        (_two(x**2 + y**2 < 80**2, (220, 20, 20), (255, 255, 255)), "a red circle on a white background"),
        (_two(np.maximum(abs(x), abs(y)) < 75, (30, 60, 220), (250, 220, 40)), "a blue square on a yellow background"),
        (_two((y < 80) & (2 * abs(x) < y + 90), (20, 170, 60), (0, 0, 0)), "a green triangle on a black background"),
        (_two((tall_x // 40 + tall_y // 40) % 2 == 0, (0, 0, 0), (255, 255, 255)), "a black and white chessboard"),
        (rainbow[wide_y * 6 // 200], "horizontal stripes in the colours of the rainbow"),
        (_two(x + 0 * y < 0, (255, 105, 180), (128, 128, 128)), "the left half is pink, the right half is grey"),
    )
    return [Picture(Image.fromarray(pixels.astype(np.uint8)), caption) for pixels, caption in drawn]


def _two(mask: np.ndarray, inside: Sequence[int], outside: Sequence[int]) -> np.ndarray:
    return np.where(mask[..., None], inside, outside)


@dataclass(frozen=True)
class Record:
    """What metrics said of `pictures`, and with what.

    Attributes:
        scores: by the id of the metric, a row for each caption, a column for each picture.
        weights: the SHA-256 of the weights, by name.
        pictures: the SHA-256 of all pixels and captions.
        made_with: versions and device.
    """

    scores: Mapping[str, Sequence[Sequence[float]]]
    weights: Mapping[str, str]
    pictures: str
    made_with: Mapping[str, str]

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        with replacing(path) as partial:
            partial.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Record:
        """A record that was written.

        Raises:
            ValueError: it is none.
            OSError: it cannot be read.
        """
        try:
            return cls(**read_json(path))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path} is no record of metrics; symskew metrics verify --record FILE writes one"
            ) from error


def record(names: Iterable[str], site: Site) -> Record:
    """Score the pictures.

    Raises:
        ValueError: a metric that is unknown, or not of single images; weights that are damaged.
        FileNotFoundError: weights that are not here.
    """
    shown = pictures()
    images, captions = [each.image for each in shown], [each.caption for each in shown]
    metrics = find(names, site)
    scores: dict[str, list[list[float]]] = {}
    seen: dict[str, dict[str, np.ndarray]] = {}
    for metric in metrics:
        if not (isinstance(metric, SampleMetric) and sources(metric, site)):
            raise ValueError(f"{metric.quantities[0].id}: only metrics of single images, from published weights")
        eye = _eye(metric, site)
        if eye.id not in seen:
            seen[eye.id] = eye.extract(images)
        rows = [metric.score(seen[eye.id], [caption] * len(images)) for caption in captions]
        scores[metric.id] = [[round(float(value), 6) for value in row] for row in rows]
    libraries = ("symskew", "torch", "torchvision", "transformers", "open_clip_torch", "pillow")
    made_with = {name: version(name) for name in libraries} | {"device": site.device, "machine": platform.machine()}
    return Record(scores, digests(metrics, site), _digest(shown), made_with)


def _eye(metric: Any, site: Site) -> Any:
    return extractor(metric.extractor, site)


def _digest(shown: Sequence[Picture]) -> str:
    total = hashlib.sha256()
    for image, caption in shown:
        total.update(np.asarray(image).tobytes() + caption.encode())
    return total.hexdigest()


class Difference(NamedTuple):
    """How far a metric is from what was recorded, at most: in its unit, in spreads, and whether that is near enough."""

    metric: str
    largest: float
    spreads: float
    agrees: bool
    why: str = ""


def compare(found: Record, reference: Record) -> list[Difference]:
    """Metric by metric, those that both have.

    Raises:
        ValueError: they are of other pictures, or have no metric in common.
    """
    if found.pictures != reference.pictures:
        raise ValueError("the record is of other pictures than those of this version of symskew; make it anew")
    rows = []
    for name, values in found.scores.items():
        if name not in reference.scores:
            continue
        here, there = np.array(values), np.array(reference.scores[name])
        spread, largest = float(there.std()), float(abs(here - there).max())
        limit = SPREAD[name.rpartition("/")[2].partition("@")[0]]
        others = [each for each, sha in found.weights.items() if reference.weights.get(each, sha) != sha]
        why = f"other weights may be why: those of {', '.join(others)} differ" if others else ""
        rows.append(Difference(name, largest, largest / (spread or 1), largest <= limit * spread, why))
    if not rows:
        raise ValueError(f"the record has none of these metrics; it has {', '.join(reference.scores)}")
    return rows


def own_captions(found: Record) -> dict[str, int]:
    """For each metric that reads the prompt, how many pictures fit their own caption best; by chance, one in six."""
    best = {name: np.array(values) for name, values in found.scores.items()}
    return {
        name: int((values.argmax(0) == np.arange(values.shape[1])).sum())
        for name, values in best.items()
        if np.ptp(values, 0).any()
    }


def published(case: Published, folder: Path, site: Site) -> list[tuple[str, float, float]]:
    """The file, the score here, and the published one, of the authors' images in a folder.

    Raises:
        FileNotFoundError: an image is not there.
        ValueError: it is another image.
    """
    images = []
    for name, (digest, _) in case.files.items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{case.metric}: {path} is not there; published scores are of {case.where}")
        if sha256(path) != digest:
            raise ValueError(f"{case.metric}: {path} is not the image that its authors scored; see {case.where}")
        with Image.open(path) as opened:
            images.append(opened.copy())
    [metric] = find([case.metric], site)
    assert isinstance(metric, SampleMetric)
    scores = metric.score(_eye(metric, site).extract(images), [case.prompt] * len(images))
    return [(name, float(score), known) for (name, (_, known)), score in zip(case.files.items(), scores, strict=True)]
