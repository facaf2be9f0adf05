"""The rows of the gallery as columns: what was generated, then what failed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from symskew.protocols.contract import BRANCHES, MEASURES, STAGES
from symskew.protocols.evidence import Evidence, Reading
from symskew.report.pictures import TOGETHER, Picture
from symskew.report.script import packed
from symskew.table import need

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("sample_id", "setting_id", "prompts", "prompt_id", "prompt", "seed", "role")
"""What is known of a sample, made or failed."""
IMAGE, THUMB, MAP = 1, 2, 4
"""What there is of a sample, as bits."""


def sample_columns(
    evidence: Evidence, pictures: Sequence[Picture], failures: pd.DataFrame, stages: Sequence[str]
) -> dict[str, Any]:
    """All that the gallery knows of samples, a column each; places in lists rather than words that repeat.

    Args:
        evidence: what was generated.
        pictures: of the samples of `evidence.frame`, in its order.
        failures: `KEYS` and `error`.
        stages: that there are maps of.
    """
    pandas = need("pandas", "study")
    rows = pandas.concat([evidence.frame[list(KEYS)], failures[list(KEYS)]], ignore_index=True)
    settings = {name: place for place, name in enumerate(evidence.settings["setting_id"])}
    prompts, texts = pandas.factorize(rows["prompt_id"])
    firsts = rows.drop_duplicates("prompt_id").set_index("prompt_id").loc[texts]
    seeds, known_seeds = pandas.factorize(rows["seed"])
    roles, known_roles = pandas.factorize(rows["role"])
    places = rows["setting_id"].map(settings).to_numpy()
    size = np.array([(p.width, p.height) for p in pictures] + [(0, 0)] * len(failures)).reshape(-1, 2)
    has = [IMAGE + THUMB * p.thumb + MAP * p.mapped for p in pictures] + [0] * len(failures)
    whole = {
        "prompt": prompts, "setting": places, "seed": seeds, "role": roles, "width": size[:, 0], "height": size[:, 1],
        "has": has, "partner": _partners(evidence, len(failures)),
    }  # fmt: skip
    return {
        "ids": rows["sample_id"].tolist(),
        "prompts": [
            {"id": str(name), "set": str(of), "text": str(text)}
            for name, of, text in zip(texts, firsts["prompts"], firsts["prompt"], strict=True)
        ],
        # As text: a seed may have more digits than a number of JavaScript's.
        "seeds": [str(seed) for seed in known_seeds],
        "roles": [str(role) for role in known_roles],
        "sets": [str(name) for name in rows["prompts"].unique()],
        "stages": list(stages),
        "together": TOGETHER,
        "errors": {
            str(len(pictures) + place): " ".join(str(text).split()) for place, text in enumerate(failures["error"])
        },
        **{name: packed(values, "i4") for name, values in whole.items()},
        "columns": {name: packed(values, "f4") for name, values in _numbers(evidence, len(failures)).items()},
    }


def vanilla_of(evidence: Evidence) -> str | None:
    """The setting that samples are compared with, None where there is not exactly one of the family vanilla."""
    found = evidence.family("vanilla")
    return found[0] if len(found) == 1 else None


def _partners(evidence: Evidence, failed: int) -> np.ndarray:
    """Of each row, that of the vanilla sample of the same prompt and seed, or −1."""
    frame, vanilla = evidence.frame, vanilla_of(evidence)
    its = frame["setting_id"] == vanilla
    moments = list(zip(frame["prompt_id"], frame["seed"], strict=True))
    known = {moments[row]: row for row in np.flatnonzero(its)}
    found = [-1 if own else known.get(moment, -1) for moment, own in zip(moments, its, strict=True)]
    return np.array(found + [-1] * failed)


def _numbers(evidence: Evidence, failed: int) -> dict[str, np.ndarray]:
    """Scores and measures of each row; NaN where there is none. Measures that nothing has are left out."""
    rest = np.full(failed, np.nan)
    found = {f"metric:{name}": np.append(evidence.values(name), rest) for name in evidence.sample_metrics}
    for stage, branch, measure in product(reversed(STAGES), BRANCHES, MEASURES):
        column = evidence.values(Reading(measure, stage, branch))
        if not np.isnan(column).all():
            found[f"measure:{measure}/{stage}/{branch}"] = np.append(column, rest)
    return found
