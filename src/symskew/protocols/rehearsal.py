"""Which tables a study allows, found out before it is run: every protocol is carried out on made-up numbers.

Nothing of what tables need is written down a second time: the protocols are asked themselves.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from symskew import ensemble, metrics
from symskew.generation import Request
from symskew.metrics.judging import ID
from symskew.metrics.real import RealImages
from symskew.protocols.contract import BRANCHES, MEASURES, STAGES
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocols, run
from symskew.study.definition import Study
from symskew.study.run import passes
from symskew.study.scorers import metric_names
from symskew.table import need

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = need("pandas", "study")

PROMPTS, SEEDS = 12, 2
"""How many of a set, and of a role, are rehearsed at most: more of them need more time and nothing else."""


class Rehearsed(NamedTuple):
    """A table, and why the study does not allow it; empty where it does."""

    name: str
    about: str
    missing: str


def rehearse(study: Study, stages: Sequence[str] = STAGES) -> list[Rehearsed]:
    """What each table lacks in a study that went well.

    Args:
        study: planned; its prompts may be standing in.
        stages: that the model's layers are of.
    """
    if not metric_names(study):
        why = "metrics: without any, images are made and measured, and not judged"
        return [Rehearsed(each.name, each.about, why) for each in protocols().values()]
    evidence = invented(study, stages)
    found = []
    for each in protocols().values():
        missing = ""
        try:
            run(each.name, evidence)
        except MissingError as error:
            missing = str(error).removeprefix(f"{each.name}: ")
        found.append(Rehearsed(each.name, each.about, missing))
    return found


def invented(study: Study, stages: Sequence[str] = STAGES) -> Evidence:
    """Evidence of the shape that a study will have, its first prompts and seeds, with numbers that mean nothing."""
    rng = np.random.default_rng(0)
    known = pd.DataFrame(metrics.describe(metric_names(study)))
    frame, diagnosed = _frame(study, rng, list(known.loc[known["kind"] == "sample", "metric"]))
    pairs = _pairs(frame, rng, list(known.loc[known["kind"] == "pair", "metric"]))
    places = {key: place for place, key in enumerate(frame["sample_id"])}
    arrays = _arrays(rng, len(frame))

    def features(wanted: Sequence[str], extractor: str | None) -> dict[str, np.ndarray]:
        rows = [places[key] for key in wanted]
        return {name: array[rows] for name, array in arrays.items()}

    seen = any(metrics.extractor(name).kept for name in known["extractor"].dropna())
    about = {"count": 200, "extractor": ID, "weights": ""}
    real = {ID: RealImages(_arrays(rng, 200), about)} if study.model in ensemble.MODELS else {}
    measures = _measures(diagnosed, stages, rng)
    return Evidence(frame, _settings(study), measures, known, pairs, features if seen else None, real, study.seeds)


def _frame(study: Study, rng: np.random.Generator, scores: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """The samples, and the ids of those that are diagnosed."""
    rows: dict[str, tuple[Any, ...]] = {}
    diagnosed: dict[str, None] = {}
    for each in study.runs:
        ids = study.prompts[each.prompts].ids()[: each.limit][:PROMPTS]
        for role in each.roles:
            for seed in study.seeds[role][: each.each][:SEEDS]:
                for name in each.settings:
                    for prompt_id, text in ids:
                        key = f"{name}/{prompt_id}/{seed}"
                        family = study.settings[name].family
                        rows[key] = (key, name, name, family, each.prompts, prompt_id, text, seed, role)
                        if each.diagnose is not None:
                            diagnosed[key] = None
    columns = ["sample_id", "setting_id", "setting", "family", "prompts", "prompt_id", "prompt", "seed", "role"]
    frame = pd.DataFrame(list(rows.values()), columns=columns)
    for name in scores:
        frame[name] = rng.standard_normal(len(frame))
    return frame, list(diagnosed)


def _settings(study: Study) -> pd.DataFrame:
    rows = []
    for name, setting in study.settings.items():
        request = setting.request("", 0, study.common)
        description = {"model": study.model, **_description(request)}
        control = description.get("circulation") or description.get("baseline", {})
        numbers = {knob: control.get(knob, 1.0) for knob in ("alpha", "beta")}
        rows.append({
            "setting_id": name, "setting": name, "family": setting.family,
            **{knob: value if isinstance(value, int | float) else np.nan for knob, value in numbers.items()},
            "guidance": request.guidance, "passes": passes(request, {"guidance": request.guidance or 2.0}),
            "json": json.dumps(description),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _description(request: Request) -> dict[str, Any]:
    """What tables look at of a setting's exact description, which only the model can give."""
    found: dict[str, Any] = {}
    if not request.circulation.is_identity:
        found["circulation"] = request.circulation.to_dict()
        found |= {"layers": request.layers, "start": request.start, "stop": request.stop}
    if request.baseline is not None:
        found["baseline"] = request.baseline.to_dict()
    return found


def _measures(diagnosed: Sequence[str], stages: Sequence[str], rng: np.random.Generator) -> pd.DataFrame:
    keys = [(key, stage, branch) for key in diagnosed for stage in stages for branch in BRANCHES]
    found = pd.DataFrame(keys, columns=["sample_id", "stage", "branch"])
    found["states"] = "input"
    for name in MEASURES:
        found[name] = rng.standard_normal(len(found))
    return found


def _pairs(frame: pd.DataFrame, rng: np.random.Generator, names: Sequence[str]) -> pd.DataFrame:
    """Diversity, of the prompts that have several images of eval seeds."""
    eval_seeds = frame[frame["role"] == "eval"]
    sizes = Counter(zip(eval_seeds["setting_id"], eval_seeds["prompt_id"], strict=True))
    keys = [(*key, name) for key, count in sizes.items() if count > 1 for name in names]
    found = pd.DataFrame(keys, columns=["setting_id", "prompt_id", "metric"])
    found["value"] = 1 + rng.random(len(found))
    return found


def _arrays(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Of any extractor: one vector for an image, which is also six objects' as Ensemble's judge has them."""
    vector = rng.standard_normal((count, 48)).astype(np.float32)
    return {"features": vector, "embedding": vector, "log_probabilities": rng.standard_normal((count, 6, 11))}
