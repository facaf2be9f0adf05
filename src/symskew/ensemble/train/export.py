"""Ship a trained pipeline: half-precision weights under diffusers' own names, with the settings to use it at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from symskew.ensemble.build import make_pipeline
from symskew.ensemble.train.run import load_checkpoint, parameters_of

__all__ = ["export_model", "read_checkpoint", "ship"]


def read_checkpoint(
    folder: Path, size: str = "sdxl", run: str = "unet"
) -> tuple[StableDiffusionXLPipeline, dict[str, Any]]:
    """The pipeline with the averaged weights of the training in `folder`, finished or not, and how far it has come.

    `FileNotFoundError` where there is no checkpoint.
    """
    state = load_checkpoint(folder / f"{run}.pt")
    if state is None:
        raise FileNotFoundError(f"read_checkpoint: {folder} holds no {run}.pt; run `train unet` first")
    pipeline = make_pipeline(size, AutoencoderKL.from_pretrained(folder / "vae"))
    weights = parameters_of(pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2)  # pyright: ignore
    with torch.no_grad():
        for weight, shadow in zip(weights, state["average"], strict=True):
            weight.copy_(shadow)
    return pipeline, {"step": state["step"], "minutes": round(state["spent"] / 60, 1)}


def export_model(
    folder: Path, out: Path, *, size: str = "sdxl", run: str = "unet", guidance: float = 3.0, steps: int = 30
) -> None:
    """Write the averaged weights of the training in `folder` as a shipped model to `out` (see `ship`)."""
    pipeline, progress = read_checkpoint(folder, size, run)
    ship(pipeline, out, {"defaults": {"steps": steps, "guidance": guidance}, "training": progress})


def ship(pipeline: StableDiffusionXLPipeline, out: Path, notes: dict[str, Any]) -> None:
    """Save the pipeline to `out` in diffusers' layout, weights in float16, `notes` beside them as `symskew.json`.

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
    (out / "symskew.json").write_text(json.dumps(notes, indent=2) + "\n")


def _lay_out_tokenizer(folder: Path) -> None:
    """Add the vocabulary and merges as SDXL's folders have them: transformers before version 5 reads only these."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False) + "\n")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    file = folder / "tokenizer_config.json"
    settings = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("is_local", "local_files_only")}
    file.write_text(json.dumps(settings, indent=2) + "\n")
