"""Ship a trained pipeline: half-precision weights under diffusers' own names, with the settings to use it at."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors.torch import load_file, save_file

from symskew.ensemble.train.run import load_checkpoint, parameters_of

__all__ = ["read_checkpoint", "ship"]


def read_checkpoint(pipeline: Any, folder: Path, run: str) -> dict[str, Any]:
    """Fill an untrained pipeline with the averaged weights of the training in `folder`, finished or not.

    Returns:
        How far it has come: `step`, `minutes`.

    Raises:
        FileNotFoundError: there is no checkpoint of this run.
    """
    state = load_checkpoint(folder / f"{run}.pt")
    if state is None:
        raise FileNotFoundError(f"read_checkpoint: {folder} holds no {run}.pt; train it first")
    denoiser = pipeline.transformer if hasattr(pipeline, "transformer") else pipeline.unet
    weights = parameters_of(denoiser, pipeline.text_encoder, pipeline.text_encoder_2)
    with torch.no_grad():
        for weight, shadow in zip(weights, state["average"], strict=True):
            weight.copy_(shadow)
    return {"step": state["step"], "minutes": round(state["spent"] / 60, 1)}


def ship(pipeline: DiffusionPipeline, out: Path, notes: dict[str, Any]) -> None:
    """Save the pipeline to `out` in diffusers' layout, weights in float16, and `symskew.json`: `notes` and hashes.

    The files keep their standard names, so that `from_pretrained` without a `variant` finds them; it converts to
    float32. Half precision halves the package and moves no image by more than rounding does.
    """
    pipeline.save_pretrained(out)
    for file in out.glob("*/*.safetensors"):
        save_file({name: value.half() for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
        file.chmod(0o644)
    for file in out.glob("*/config.json"):
        settings = json.loads(file.read_text())
        # Where the parts were loaded from while training says nothing to a reader.
        settings.pop("_name_or_path", None)
        if "dtype" in settings:
            settings["dtype"] = "float32"
        file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    for folder in out.glob("tokenizer*"):
        _lay_out_tokenizer(folder)
    index = out / "model_index.json"
    # transformers 4 has two T5 tokenizers, and of SD3's the one that reads these files; 5 takes both names for one.
    index.write_text(index.read_text().replace('"T5Tokenizer"', '"T5TokenizerFast"'))
    weights = sorted(out.glob("*/*.safetensors"))
    hashes = {file.relative_to(out).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in weights}
    (out / "symskew.json").write_text(json.dumps({**notes, "sha256": hashes}, indent=2) + "\n")


def _lay_out_tokenizer(folder: Path) -> None:
    """Add a byte-pair tokenizer's vocabulary and merges in files of their own, all that transformers 4 reads."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    if "merges" in model:
        (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False) + "\n")
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    file = folder / "tokenizer_config.json"
    settings = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("is_local", "local_files_only")}
    file.write_text(json.dumps(settings, indent=2) + "\n")
