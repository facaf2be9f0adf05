"""Generate, judge and measure, prompt by prompt; what a folder has already is not made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.progress import track

from symskew.attach import control
from symskew.circulate import Circulation
from symskew.diagnose import diagnose
from symskew.ensemble.judge import Judge
from symskew.ensemble.prompts import Prompt
from symskew.ensemble.verdict import compare
from symskew.files import replacing
from symskew.record import Record
from symskew.statistics import Estimate, grouped_mean

MEASURES = ("energy", "instability", "alignment", "symmetry")
"""What is kept of a diagnosis."""
STATES = ("input", "value")
"""The retrieved states that are measured, all features of each."""
BRANCHES = ("unconditional", "conditional")


class Arm(NamedTuple):
    """A way of generating: vanilla, or under a control; with or without its diagnosis kept."""

    name: str
    circulation: Circulation | None = None
    measured: bool = False


class Sample(NamedTuple):
    """The images of one prompt, one for each seed, as the judge and the diagnosis saw them."""

    prompt: Prompt
    seeds: np.ndarray
    right: np.ndarray
    """Whether entirely right, (seeds,)."""
    objects: np.ndarray
    """Share of the prompt's objects that are right, (seeds,)."""
    likelihood: np.ndarray
    """Log-probability (nats) the judge gives to the prompt's set, (seeds,)."""
    features: np.ndarray
    """The judge's features, (seeds, 768)."""
    measures: np.ndarray | None
    """(seeds, `STATES`, steps, layers, `BRANCHES`, `MEASURES`), where they were kept."""
    alpha: float
    """The mean alpha that acted, over layers, steps and branches; 1 for vanilla."""
    stages: tuple[str, ...]
    """Of the layers."""


def over_prompts(per_prompt: np.ndarray) -> Estimate:
    """The mean of one number per prompt; the interval is of plain percentiles, as that of the published page."""
    return grouped_mean(per_prompt, np.arange(len(per_prompt)), expanded=False)


def collect(
    pipe: Any, arm: Arm, prompts: Sequence[Prompt], seeds: range, folder: Path, *, settings: dict[str, Any], batch: int
) -> list[Sample]:
    """The samples of an arm; each prompt's are a file of the folder, made if it is not there."""
    judge = Judge.load()
    folder = folder / arm.name
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for prompt in track(list(prompts), description=arm.name):
        path = folder / f"{_id(arm, prompt, seeds, settings)}.npz"
        if not path.is_file():
            parts = [seeds[first : first + batch] for first in range(0, len(seeds), batch)]
            found = [_generate(pipe, arm, prompt, part, judge, settings) for part in parts]
            whole = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
            with replacing(path) as partial, partial.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **whole)
        samples.append(_load(path, prompt))
    return samples


def _id(arm: Arm, prompt: Prompt, seeds: range, settings: dict[str, Any]) -> str:
    """The hash of all that changes a sample, but for the model, which the folder is named after."""
    control = None if arm.circulation is None else arm.circulation.to_dict()
    exact = [control, arm.measured, prompt.text, seeds.start, seeds.stop, settings["steps"], settings["guidance"]]
    return hashlib.sha256(json.dumps(exact).encode()).hexdigest()[:16]


def _generate(
    pipe: Any, arm: Arm, prompt: Prompt, seeds: range, judge: Judge, settings: dict[str, Any]
) -> dict[str, Any]:
    with ExitStack() as stack:
        if arm.circulation is not None:
            stack.enter_context(control(pipe, arm.circulation))
        records = [
            stack.enter_context(diagnose(pipe, states=states, features=None))
            for states in (STATES if arm.measured else STATES[1:])
        ]
        images = pipe(
            [prompt.text] * len(seeds),
            num_inference_steps=settings["steps"],
            guidance_scale=settings["guidance"],
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="np",
        ).images
    images = (np.asarray(images) * 255).round().astype(np.uint8)
    verdicts = [compare(reading, prompt.objects) for reading in judge.read(images)]
    found = {
        "seeds": np.array(seeds),
        "right": np.array([verdict.all_right for verdict in verdicts]),
        "objects": np.array([verdict.accuracy for verdict in verdicts]),
        "likelihood": np.array([verdict.log_likelihood for verdict in verdicts]),
        "features": judge.features(images).numpy().astype(np.float16),
        "alpha": np.array(list(records[-1].mean("alpha", by=["sample"]).values())),
        "stages": np.array([[layer.stage for layer in records[0].layers]] * len(seeds)),
    }
    if arm.measured:
        found["measures"] = np.stack([_as_array(record) for record in records], 1)
    return found


def _as_array(record: Record) -> np.ndarray:
    """(samples, steps, layers, branches, measures) of a record of one call."""
    table = record.to_pandas()
    branch = table["branch"].astype(str).map(BRANCHES.index).to_numpy()
    layer = table["layer"].cat.codes.to_numpy()
    where = (table["sample"].to_numpy(), table["step"].to_numpy(), layer, branch)
    out = np.full((*(part.max() + 1 for part in where), len(MEASURES)), np.nan, np.float32)
    out[where] = table[list(MEASURES)].to_numpy()
    return out


def _load(path: Path, prompt: Prompt) -> Sample:
    with np.load(path) as kept:
        return Sample(
            prompt, kept["seeds"], kept["right"], kept["objects"], kept["likelihood"],
            kept["features"].astype(np.float32), kept.get("measures"),
            float(kept["alpha"].mean()), tuple(map(str, kept["stages"][0])),
        )  # fmt: skip
