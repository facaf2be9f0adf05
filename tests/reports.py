"""Reports of studies that never ran: simulated evidence, and images whose colour says which sample they are."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

import evidence as simulated
from symskew.protocols.evidence import Evidence
from symskew.report import Claim, write_report
from symskew.report.samples import KEYS


def hashed(found: Evidence, texts: Sequence[str] = ()) -> Evidence:
    """The same with ids of samples as they are outside of simulations, and other texts for the first prompts."""

    def rename(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(sample_id=[hashlib.sha256(name.encode()).hexdigest()[:16] for name in frame["sample_id"]])

    frame = rename(found.frame)
    others = dict(zip(frame["prompt_id"].unique(), texts, strict=False))
    frame["prompt"] = [others.get(i, text) for i, text in zip(frame["prompt_id"], frame["prompt"], strict=True)]
    return replace(found, frame=frame, measures=rename(found.measures), features=None, references={})


def small(texts: Sequence[str] = ()) -> Evidence:
    """Vanilla, four static settings and an adaptive one on two sets of prompts."""
    knobs = simulated.sweep([1.5, 2], [1, 3], effect=lambda strength: 0.3 - 0.1 * strength, prompts=("heldout",))
    knobs.append(simulated.Knob("adaptive α=2 β=1", "adaptive", 2, 1, effect=0.2, diversity=0.05))
    return hashed(
        simulated.simulate(
            knobs, prompts={"tuning": 6, "heldout": 14}, seeds={"select": 1, "eval": 2, "placebo": 1}, tie=0.5
        ),
        texts,
    )


def colour(place: int) -> tuple[int, int, int]:
    """Of the image of the sample with this place in the frame."""
    return place % 16 * 16, place // 16 % 16 * 16, place // 256 % 32 * 8


def png(place: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """Of one colour, but for a disc in the middle that tells nothing."""
    image = Image.new("RGB", size, colour(place))
    middle, radius = (size[0] // 2, size[1] // 2), min(size) // 5
    ImageDraw.Draw(image).circle(middle, radius, "#ffffff")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def conflict(name: str) -> dict[str, np.ndarray]:
    """A map of two stages: conflict at the left, none at the right."""
    return {"mid": np.array([[0.5, 0.0]]), "up": np.tile(np.linspace(0.6, 0, 8), (8, 1))}


def failed(found: Evidence, count: int, error: str = "ValueError: layer up.0 is not finite") -> pd.DataFrame:
    """Samples of the last setting that could not be made, with seeds that nothing else has."""
    frame = found.frame[found.frame["setting_id"] == found.settings["setting_id"].iloc[-1]].head(count)
    ids = [f"failed{place}" for place in range(len(frame))]
    return frame[list(KEYS)].assign(sample_id=ids, seed=frame["seed"] + 1000, error=error)


def write(folder: Path, found: Evidence, size: tuple[int, int] = (64, 64), **more: Any) -> Path:
    """A report with an image for each sample; `more` is as for `write_report`."""
    places = {name: place for place, name in enumerate(found.frame["sample_id"])}
    given: dict[str, Any] = {"title": "A study", "provenance": {"model": "tiny", "weights": "0123456789abcdef"}} | more
    tables = given.pop("tables", [])
    return write_report(folder, found, tables, lambda name: png(places[name], size), **given)


CLAIMS = [
    Claim("Adaptive control makes more images right on held-out prompts.", "holds", "+0.07 (+0.01 to +0.13)"),
    Claim("Diversity is kept.", "open", "−0.01 (−0.05 to +0.03)"),
]
