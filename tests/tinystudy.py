"""A tiny study on an untrained model, for the tests of running one."""

from pathlib import Path
from typing import Any

from folders import ensemble_folder
from symskew.study import Options, Study

ONE = Options(workers=1, batch=2)


def tiny_model(path: Path) -> Path:
    """An untrained pipeline whose generations take two steps."""
    return ensemble_folder(path)


def tiny_study(folder: Path | str, **changes: Any) -> Study:
    """Five prompts, four seeds, three settings, 42 samples in units of at most three."""
    written: dict[str, Any] = {
        "name": "tiny",
        "model": str(folder),
        "chunk": 3,
        "prompts": {"tuning": ["a red three", "a blue seven"], "held-out": {"ensemble": {"count": 3, "seed": 1}}},
        "seeds": {"select": "0", "eval": "1-2", "placebo": "3"},
        "settings": {"vanilla": {}, "static": {"alpha": [1.5, 3], "beta": 2}},
        "runs": [
            {"prompts": "all", "settings": "vanilla"},
            {"prompts": "held-out", "seeds": "eval", "settings": "static", "diagnose": {"features": 8}},
            {"prompts": "tuning", "seeds": "eval", "settings": "static", "each": 1},
        ],
        "metrics": ["ensemble/all-right", "ensemble/log-likelihood", "ensemble/diversity-features"],
    }
    return Study.of(written | changes)
