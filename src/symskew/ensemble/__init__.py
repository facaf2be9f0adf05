"""Ensemble: an embedded benchmark of coloured handwritten digits, and miniature models trained on it.

Images hold one to four handwritten digits in different colours; a judge reads every one of them, so that a model's
mistakes (missing, doubled, leaked, fused objects) can be counted exactly.

>>> from symskew import ensemble
>>> ensemble.parse_caption("a red three and a blue seven")  # doctest: +SKIP
frozenset({ColouredDigit(colour='red', digit=3), ColouredDigit(colour='blue', digit=7)})
>>> pipeline = DiffusionPipeline.from_pretrained(ensemble.path("ensemble-sdxl"))  # doctest: +SKIP
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symskew.ensemble.judge import Judge, Reading
    from symskew.ensemble.prompts import Prompt, caption, make_prompts, parse_caption
    from symskew.ensemble.verdict import FAILURES, Failure, Verdict, compare, failure_counts
    from symskew.ensemble.vocabulary import COLOURS, DIGIT_WORDS, ColouredDigit

__all__ = [
    "COLOURS",
    "DIGIT_WORDS",
    "FAILURES",
    "MODELS",
    "ColouredDigit",
    "Failure",
    "Judge",
    "Prompt",
    "Reading",
    "Verdict",
    "caption",
    "compare",
    "defaults",
    "failure_counts",
    "make_prompts",
    "parse_caption",
    "path",
]

MODELS: tuple[str, ...] = ("ensemble-sdxl", "ensemble-sd3")
"""The shipped models."""

_HOMES = {
    "judge": ("Judge", "Reading"),
    "prompts": ("Prompt", "caption", "make_prompts", "parse_caption"),
    "verdict": ("FAILURES", "Failure", "Verdict", "compare", "failure_counts"),
    "vocabulary": ("COLOURS", "DIGIT_WORDS", "ColouredDigit"),
}


def path(name: str) -> Path:
    """The folder of a shipped model, for `DiffusionPipeline.from_pretrained`.

    Raises:
        ValueError: no model of this name is shipped; names those that are.
        FileNotFoundError: the model's files are missing from the installation.
    """
    if name not in MODELS:
        raise ValueError(f"ensemble.path: no shipped model is called {name!r}; there are: {', '.join(MODELS)}")
    folder = Path(__file__).parent / "models" / name
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"ensemble.path: {folder} is empty; the package may be damaged: install it again")
    return folder


def defaults(model: str | Path) -> dict[str, Any]:
    """The settings a model is tested and shown at: `{"steps": 30, "guidance": …}`.

    `model` is a shipped model's name or a pipeline's folder; from its `symskew.json`. A folder without one gets 30
    steps at guidance 3.
    """
    folder = path(model) if isinstance(model, str) and model in MODELS else Path(model)
    file = folder / "symskew.json"
    return {"steps": 30, "guidance": 3.0, **(json.loads(file.read_text())["defaults"] if file.is_file() else {})}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"symskew.ensemble.{module}"), name)
    raise AttributeError(f"module 'symskew.ensemble' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
