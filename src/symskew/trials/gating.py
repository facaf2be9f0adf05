"""Does it help to control only where the retrieval is unstable? On hard and on easy prompts, beside a placebo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from symskew.circulation import Circulation
from symskew.gate import Gate
from symskew.statistics import Estimate
from symskew.trials.collect import MEASURES, STATES, Arm, Sample, over_prompts

ALPHA, BETA = 2.0, 1.0
"""The control that `symskew generate --compare` starts with; not tuned on any prompt."""


def thresholds(samples: Sequence[Sample], layers: Sequence[str], quantile: float) -> dict[str, float]:
    """Per layer, the alignment below which this share of its vanilla retrievals lies: values, all steps, branches."""
    place = MEASURES.index("alignment")
    values = np.stack(
        [sample.measures[:, STATES.index("value"), ..., place] for sample in samples if sample.measures is not None]
    )
    per_layer = np.moveaxis(values, 3, 0).reshape(len(layers), -1)
    return {name: round(float(np.quantile(row, quantile)), 4) for name, row in zip(layers, per_layer, strict=True)}


def arms(gate: dict[str, float]) -> list[Arm]:
    """Everything that is compared; the placebo is made apart, since it differs by its seeds only."""
    return [
        Arm("vanilla"),
        Arm("static", Circulation(ALPHA, BETA)),
        Arm("adaptive", Circulation(ALPHA, BETA, adaptive="sample")),
        Arm("gated", Circulation(ALPHA, BETA, gate=Gate("alignment", gate))),
    ]


def split(samples: Sequence[Sample], share: float) -> tuple[list[int], list[int]]:
    """The hardest and the easiest prompts by the mean log-likelihood over the seeds of selection, by number."""
    order = np.argsort([sample.likelihood.mean() for sample in samples])
    count = max(1, round(share * len(order)))
    return order[:count].tolist(), order[-count:].tolist()


class Change(NamedTuple):
    """An arm against vanilla on some prompts."""

    right: Estimate
    right_change: Estimate
    objects_change: Estimate
    likelihood_change: Estimate


def change(arm: Sequence[Sample], vanilla: Sequence[Sample], prompts: Sequence[int]) -> Change:
    """Means over seeds within each prompt, then over prompts."""

    def means(samples: Sequence[Sample], name: str) -> np.ndarray:
        return np.array([getattr(samples[index], name).mean() for index in prompts])

    return Change(
        over_prompts(means(arm, "right")),
        *(over_prompts(means(arm, name) - means(vanilla, name)) for name in ("right", "objects", "likelihood")),
    )
