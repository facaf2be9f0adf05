"""Evidence of studies that never ran: frames with known reliability, effects, placebo and ties between measures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from symskew.metrics.real import RealImages
from symskew.protocols.contract import BRANCHES, STAGES
from symskew.protocols.evidence import Evidence

Effect = float | Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Knob:
    """A setting of a simulated study.

    `effect` is a shift of the latent quality, in standard deviations, or a function of the prompts' ease (standard
    normal, easy prompts positive); `effects` gives metrics their own. `kept` is the share of the variance between seeds
    that is that of the vanilla image with the same seed. `stability` shifts every measure towards stable, in standard
    deviations, `diversity` scales the diversity (0.1: a tenth more), `strength` is the distance of its features from
    vanilla's. It is run on some sets of `prompts`, with only the first eval seeds of those sets that `each` names, and
    `drop` of its samples failed.
    """

    name: str
    family: str
    alpha: float = math.nan
    beta: float = math.nan
    effect: Effect = 0.0
    effects: Mapping[str, Effect] = field(default_factory=dict)
    kept: float = 0.6
    stability: float = 0.0
    diversity: float = 0.0
    strength: float = 0.5
    passes: float = 2.0
    prompts: tuple[str, ...] | None = None
    each: Mapping[str, int] = field(default_factory=dict)
    drop: int = 0


@dataclass(frozen=True)
class Metric:
    """A simulated metric: `mean + sd · quality`, turned round where lower is better; or whether quality is above 0."""

    id: str
    mean: float = 0.0
    sd: float = 1.0
    higher_is_better: bool = True
    binary: bool = False


VANILLA = Knob("vanilla", "vanilla", kept=1.0, strength=0.0)
METRICS = (
    Metric("ensemble/log-likelihood", -6.0, 3.0),
    Metric("ensemble/all-right", binary=True),
    Metric("ensemble/realism", 0.8, 0.1),
)
PAIRS = ("diversity/features",)
EXTRACTOR = "toy/fp32@1"


def real_images(features, extractor=EXTRACTOR) -> RealImages:
    return RealImages(features, {"count": len(features["features"]), "extractor": extractor, "weights": ""})


def simulate(
    knobs: Sequence[Knob] = (),
    *,
    vanilla: Knob = VANILLA,
    prompts: Mapping[str, int] | None = None,
    seeds: Mapping[str, int] | None = None,
    metrics: Sequence[Metric] = METRICS,
    reliability: float = 0.5,
    tie: float = 0.0,
    diversity_tie: float = 0.0,
    common: float = 0.7,
    diagnosed: Sequence[str] | None = None,
    width: int = 6,
    with_features: bool = True,
    reference: int = 400,
    seed: int = 0,
) -> Evidence:
    """A world where the quality of an image is √ρ · ease of its prompt + √(1 − ρ) · luck of its seed + effect.

    Args:
        knobs: settings besides vanilla.
        vanilla: only for where it is run.
        prompts: how many in each set; 100 held-out ones by default.
        seeds: how many of each role; 2, 4 and 4 by default. Only vanilla is drawn with others than `eval`.
        metrics: what scores images.
        reliability: ρ, the correlation between two seeds of a prompt.
        tie: correlation of every measure of stability with the quality of its image.
        diversity_tie: correlation of a prompt's diversity with its ease.
        common: correlation between metrics of one image.
        diagnosed: families whose eval and select samples were measured; all by default.
        width: of the features.
        with_features: whether there are features and a reference.
        reference: how many reference images.
        seed: of the world.
    """
    rng = np.random.default_rng(seed)
    sets = dict(prompts or {"heldout": 100})
    roles = {"select": 2, "eval": 4, "placebo": 4} if seeds is None else dict(seeds)
    count, drawn = sum(sets.values()), sum(roles.values())
    set_of = np.repeat(list(sets), list(sets.values()))
    role_of = np.repeat(list(roles), list(roles.values()))
    ids = np.array([f"p{i:05d}" for i in range(count)])
    normal = rng.standard_normal
    ease, luck = normal(count), normal((count, drawn))
    eases = math.sqrt(common) * ease[:, None] + math.sqrt(1 - common) * normal((count, len(metrics)))
    lucks = math.sqrt(common) * luck[..., None] + math.sqrt(1 - common) * normal((count, drawn, len(metrics)))
    homes, wander = normal((count, width)), normal((count, drawn, width))
    frames, measured, pairs, vectors = [], [], [], {}
    for knob in (vanilla, *knobs):
        there = np.ones((count, drawn), bool) if knob is vanilla else np.tile(role_of == "eval", (count, 1))
        for name, most in knob.each.items():
            there[set_of == name] &= np.isin(np.arange(drawn), np.flatnonzero(role_of == "eval")[:most])
        if knob.prompts is not None:
            there &= np.isin(set_of, knob.prompts)[:, None]
        for place in rng.permutation(np.flatnonzero(there))[: knob.drop]:
            there.flat[place] = False
        at_prompt, at_seed = np.nonzero(there)
        size = len(at_prompt)
        fresh = normal((size, len(metrics) + 1))
        fresh[:, :-1] = math.sqrt(common) * fresh[:, -1:] + math.sqrt(1 - common) * fresh[:, :-1]
        columns: dict[str, Any] = {
            "sample_id": [f"{knob.name}/{p}/{s}" for p, s in zip(at_prompt, at_seed, strict=True)],
            "setting_id": knob.name.replace(" ", "-"),
            "setting": knob.name,
            "family": knob.family,
            "prompts": set_of[at_prompt],
            "prompt_id": ids[at_prompt],
            "prompt": [f"prompt {i}" for i in at_prompt],
            "seed": at_seed,
            "role": role_of[at_seed],
        }
        keep, renew = math.sqrt(knob.kept), math.sqrt(1 - knob.kept)
        for i, metric in enumerate(metrics):
            noise = keep * lucks[at_prompt, at_seed, i] + renew * fresh[:, i]
            quality = math.sqrt(reliability) * eases[at_prompt, i] + math.sqrt(1 - reliability) * noise
            quality = quality + _effect(knob.effects.get(metric.id, knob.effect), ease)[at_prompt]
            turned = quality if metric.higher_is_better else -quality
            columns[metric.id] = (quality > 0).astype(float) if metric.binary else metric.mean + metric.sd * turned
        frame = pd.DataFrame(columns)
        frames.append(frame)
        if diagnosed is None or knob.family in diagnosed:
            latent = math.sqrt(reliability) * ease[at_prompt]
            latent = latent + math.sqrt(1 - reliability) * (keep * luck[at_prompt, at_seed] + renew * fresh[:, -1])
            measured.append(_measured(frame["sample_id"], latent, tie, knob.stability, rng))
        own = -diversity_tie * ease + math.sqrt(1 - diversity_tie**2) * normal(count)
        some = np.unique(at_prompt)
        pairs += [
            pd.DataFrame({
                "setting_id": knob.name.replace(" ", "-"),
                "prompt_id": ids[some],
                "metric": metric,
                "value": (0.4 + 0.05 * own[some]) * (1 + knob.diversity),
            })
            for metric in PAIRS
        ]  # fmt: skip
        if with_features:
            step = normal((size, width))
            step *= knob.strength / np.linalg.norm(step, axis=1, keepdims=True)
            vectors.update(zip(frame["sample_id"], homes[at_prompt] + wander[at_prompt, at_seed] + step, strict=True))
    settings = pd.DataFrame([
        {"setting_id": k.name.replace(" ", "-"), "setting": k.name, "family": k.family, "alpha": k.alpha,
         "beta": k.beta, "guidance": 5.0, "passes": k.passes, "json": '{"model": "ensemble-sdxl"}'}
        for k in (vanilla, *knobs)
    ])  # fmt: skip
    kinds = [(m.id, m.higher_is_better, "sample") for m in metrics] + [(m, True, "pair") for m in PAIRS]
    known = pd.DataFrame([
        {"metric": name, "title": name.split("/")[-1].replace("-", " "), "higher_is_better": higher, "unit": "",
         "kind": kind, "version": "1", "dtype": "float32", "weights": ""}
        for name, higher, kind in kinds
    ])  # fmt: skip
    empty = pd.DataFrame(columns=["sample_id", "stage", "branch", "energy", "instability", "alignment", "symmetry"])
    return Evidence(
        pd.concat(frames, ignore_index=True),
        settings,
        pd.concat(measured, ignore_index=True) if measured else empty,
        known,
        pd.concat(pairs, ignore_index=True),
        (lambda wanted, _=None: {"features": np.stack([vectors[name] for name in wanted])}) if with_features else None,
        {EXTRACTOR: real_images({"features": normal((reference, width)) * math.sqrt(2)})} if with_features else {},
    )


def sweep(alphas: Sequence[float], betas: Sequence[float], family: str = "static", **changes: Any) -> list[Knob]:
    """The knobs of a grid; what is callable among `changes` is called with the strength β·(α − 1)."""

    def at(strength: float) -> dict[str, Any]:
        return {name: value(strength) if callable(value) else value for name, value in changes.items()}

    return [
        Knob(f"{family} α={alpha:g} β={beta:g}", family, alpha, beta, **at(beta * (alpha - 1)))
        for alpha in alphas
        for beta in betas
    ]


def _effect(effect: Effect, ease: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.asarray(effect(ease) if callable(effect) else effect, float), ease.shape)


def _measured(
    sample_ids: pd.Series, latent: np.ndarray, tie: float, shift: float, rng: np.random.Generator
) -> pd.DataFrame:
    """A row for each sample, stage and branch; all measures lean on the same latent, each with noise of its own."""
    parts = []
    for stage in STAGES:
        for branch in BRANCHES:
            z = [tie * latent + math.sqrt(1 - tie**2) * rng.standard_normal(len(latent)) + shift for _ in range(4)]
            parts.append(pd.DataFrame({
                "sample_id": sample_ids, "stage": stage, "branch": branch, "energy": -3000 - 100 * z[0],
                "instability": 0.3 - 0.03 * z[1], "alignment": 0.6 + 0.05 * z[2], "symmetry": 0.66 + 0.01 * z[3],
            }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def scheduled(evidence: Evidence, setting: str, alpha: Any, beta: Any = 1.0) -> Evidence:
    """The same evidence, of a study where this setting's α and β are as given, in plain values: of a null or not."""
    null = setting in evidence.family("null")
    control = {"alpha": alpha, "beta": beta}
    description = {"baseline": {"name": "null", **control}} if null else {"circulation": control}
    settings = evidence.settings.copy()
    place = settings["setting_id"] == setting
    settings.loc[place, ["alpha", "beta"]] = [
        each if isinstance(each, int | float) else math.nan for each in (alpha, beta)
    ]
    settings.loc[place, "json"] = json.dumps(description)
    return replace(evidence, settings=settings)
