"""Tiny random pipelines as folders on disk, made offline."""

import json
from pathlib import Path

import tiny
from symskew.ensemble.build import make_pipeline


def ensemble_folder(path: Path, **info) -> Path:
    """An untrained Ensemble pipeline of 64×64 images, shipped like the real one: two steps at guidance 3."""
    make_pipeline("tiny").save_pretrained(path)
    (path / "symskew.json").write_text(json.dumps({"defaults": {"steps": 2, "guidance": 3.0}} | info))
    return path


def plain_folder(path: Path) -> Path:
    """A pipeline of another family, which says nothing of itself."""
    tiny.pipeline_sd15().save_pretrained(path)
    return path
