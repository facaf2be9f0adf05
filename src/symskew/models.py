"""Find a model by name, folder or hub id, say what it is exactly, and load its pipeline."""

from __future__ import annotations

import difflib
import hashlib
import logging
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from symskew import ensemble
from symskew.files import read_json
from symskew.offline import is_offline
from symskew.pipelines import refuse_code

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Names of the number formats a model may be loaded in."""

STARTING_POINTS: dict[str, dict[str, Any]] = {
    "ensemble-sdxl": {"alpha": 2.0, "beta": 1.0},
    "stabilityai/stable-diffusion-xl-base-1.0": {"alpha": 1.05, "beta": 5.0},
}
"""Controls to begin with, for models that name none themselves; leads, not results. SDXL's is the paper's.

A small model, with few layers to act in, needs a larger alpha. What ensemble-sdxl's did to hard and to easy prompts is
in docs/diagnosis.md: it improved neither.
"""

_WEIGHTS = {".safetensors", ".bin", ".json", ".txt", ".model"}
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Family(NamedTuple):
    """A kind of diffusers pipeline whose denoiser can be controlled, with a hub id as an example of it."""

    name: str
    example: str
    denoiser: str


FAMILIES = (
    Family("Stable Diffusion 1 and 2", "stable-diffusion-v1-5/stable-diffusion-v1-5", "UNet2DConditionModel"),
    Family("Stable Diffusion XL", "stabilityai/stable-diffusion-xl-base-1.0", "UNet2DConditionModel"),
    Family("Stable Diffusion 3", "stabilityai/stable-diffusion-3.5-medium", "SD3Transformer2DModel"),
    Family("FLUX.1", "black-forest-labs/FLUX.1-schnell", "FluxTransformer2DModel"),
    Family("PixArt", "PixArt-alpha/PixArt-XL-2-1024-MS", "PixArtTransformer2DModel"),
)
"""The families that control is tested on, with tiny models of the same classes."""


@dataclass(frozen=True)
class ModelFiles:
    """A model on this disk, not loaded.

    Attributes:
        name: as people call it: a shipped model's name, a hub id, or a folder.
        folder: in diffusers' format.
        revision: what its weights are: a commit of the hub, or a hash over the files of the folder ("sha256:…").
        info: what the model says of itself in `symskew.json`: defaults, licence, accuracy; empty for most.
    """

    name: str
    folder: Path
    revision: str
    info: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def judged(self) -> bool:
        """Whether Ensemble's judge can read this model's images: only Ensemble's models have a `symskew.json`."""
        return bool(self.info)

    @property
    def control(self) -> dict[str, Any] | None:
        """A control to begin with on this model: settings of `Circulation`, layers, start and stop; None if unknown."""
        own = self.info.get("control") or STARTING_POINTS.get(self.name)
        return dict(own) if own else None


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded pipeline, and which weights in which number format are in it."""

    files: ModelFiles
    pipe: Any
    dtype: str
    device: str


def find_model(name: str, *, revision: str | None = None, download: bool = True) -> ModelFiles:
    """The files of a shipped model, of a folder, or of a hub id, which is downloaded if it is not on this disk yet.

    Args:
        name: `"ensemble-sdxl"`, `"./my-model"` or `"stabilityai/stable-diffusion-xl-base-1.0"`.
        revision: of a hub id: a branch or commit.
        download: False takes a hub id from this disk alone, as going offline does.

    Raises:
        ValueError: there is no such model, it is no diffusers pipeline, or its files are damaged.

    Example:
        >>> find_model("ensemble-sdlx")
        Traceback (most recent call last):
        ValueError: there is no model 'ensemble-sdlx'; did you mean ensemble-sdxl? (symskew models lists what there is)
    """
    if name in ensemble.MODELS:
        try:
            folder = ensemble.path(name)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error
    else:
        folder = Path(name).expanduser()
        if not folder.is_dir() and not _HUB_ID.fullmatch(name):
            near = difflib.get_close_matches(name, ensemble.MODELS, n=1)
            hint = f"did you mean {near[0]}?" if near else "give a shipped model's name, a folder or a hub id"
            raise ValueError(f"there is no model {name!r}; {hint} (symskew models lists what there is)")
        if not folder.is_dir():
            folder = _download(name, revision, only_local=not download or is_offline())
        elif not (folder / "model_index.json").is_file():
            raise ValueError(f"the folder {folder} is no diffusers pipeline: it has no model_index.json")
        else:
            folder = folder.resolve()
            name = str(folder)
    info = _read_info(folder)
    if broken := damaged_files(folder, info):
        remedy = "install the package again" if name in ensemble.MODELS else "copy or download them again"
        raise ValueError(f"{name} is damaged, these files are not whole: {', '.join(broken)}; {remedy}")
    # The hub's cache names a snapshot's folder after its commit.
    return ModelFiles(name, folder, folder.name if _COMMIT.fullmatch(folder.name) else hash_folder(folder), info)


def load_model(files: ModelFiles | str, *, dtype: str = "auto", device: str = "auto") -> Model:
    """Load a model's pipeline, ready to generate.

    Args:
        files: from `find_model`, or a name for it.
        dtype: one of `DTYPES`; "auto" is float32 on a CPU and for shipped models, float16 elsewhere.
        device: as torch names it; "auto" is the first accelerator, else the CPU.

    Raises:
        ValueError: an unknown dtype, a device that is not there, or files that cannot be loaded.

    Example:
        >>> model = load_model("ensemble-sdxl")  # doctest: +SKIP
    """
    files = find_model(files) if isinstance(files, str) else files
    device = find_device() if device == "auto" else check_device(device)
    if dtype == "auto":
        dtype = "float32" if device == "cpu" or files.judged else "float16"
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be auto, {', '.join(DTYPES)}, got {dtype!r}")
    with _hushed():
        from diffusers.pipelines import pipeline_utils

    refuse_code(files.name, files.folder)
    # The argument's older name warns from the versions on that know the newer; these resolve it with a function.
    argument = "dtype" if hasattr(pipeline_utils, "_resolve_dtype") else "torch_dtype"
    try:
        pipe: Any = pipeline_utils.DiffusionPipeline.from_pretrained(
            files.folder, local_files_only=True, use_safetensors=True, **{argument: DTYPES[dtype]}
        )
        pipe.to(device)
    except Exception as error:  # whatever a broken file makes the readers of all its formats say
        pickles = any(files.folder.glob("*/*.bin")) or any(files.folder.glob("*/*.ckpt"))
        hint = "; weights are read from safetensors alone: load it with diffusers and save_pretrained it" * pickles
        raise ValueError(
            f"{files.name} cannot be loaded, its files may be damaged: {first_line(error)}{hint}"
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return Model(files, pipe, dtype, device)


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep what libraries say while they are imported, of others that are there too, off the screen; not errors."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def quiet_bars() -> None:
    """Keep the libraries' own bars for loading off the screen, in this process; those for downloads stay."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def find_device() -> str:
    """The accelerator of this machine as torch names it, or "cpu"."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator.type if accelerator else "cpu"


def check_device(device: str) -> str:
    """The device, if it is there.

    Raises:
        ValueError: it is not.

    >>> check_device("cpu")
    'cpu'
    """
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"the device {device!r} cannot be used here: {first_line(error)}") from error
    return device


def hash_folder(folder: Path) -> str:
    """A hash over a pipeline's weights and configurations, whatever the folder is called ("sha256:" and 16 digits)."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        # symskew.json tells about the model and changes no image.
        if path.suffix in _WEIGHTS and name != "symskew.json" and not name.startswith("."):
            total.update(f"{name}\0{hash_file(path)}\n".encode())
    return f"sha256:{total.hexdigest()[:16]}"


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def damaged_files(folder: Path, info: dict[str, Any]) -> list[str]:
    """The files of a pipeline that cannot be whole, by their names in the folder.

    Weights whose length is not what their header says, configurations that are no JSON, and what is missing or differs
    from the hashes that `symskew.json` lists, if it lists any.
    """
    listed: dict[str, str] = info.get("sha256", {})
    broken = [name for name, sha in listed.items() if not (folder / name).is_file() or hash_file(folder / name) != sha]
    for path in sorted([*folder.glob("*/*.safetensors"), *folder.glob("*.json"), *folder.glob("*/*.json")]):
        try:
            if path.suffix == ".json":
                read_json(path, object)
            else:
                with safe_open(path, "pt"):
                    pass
        except (SafetensorError, ValueError, OSError):
            broken.append(path.relative_to(folder).as_posix())
    return list(dict.fromkeys(broken))


def first_line(error: BaseException) -> str:
    """What an exception says, cut to its first line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return textwrap.shorten(lines[0].strip().rstrip(".:"), 240, placeholder=" …")


def _read_info(folder: Path) -> dict[str, Any]:
    file = folder / "symskew.json"
    try:
        info = read_json(file) if file.is_file() else {}
        named = info.get("sha256", {})
        if not isinstance(named, dict) or not all(isinstance(sha, str) for sha in named.values()):
            raise ValueError("sha256 must be names of files with their hashes")
        # Not by what links lead to: the hub's cache is made of them.
        if outside := [name for name in named if Path(name).is_absolute() or ".." in Path(name).parts]:
            raise ValueError(f"{outside[0]} lies outside of the model's folder")
    except (ValueError, OSError) as error:
        raise ValueError(f"{file} is damaged: {first_line(error)}") from error
    return info


def _download(name: str, revision: str | None, *, only_local: bool) -> Path:
    if only_local:
        from huggingface_hub import snapshot_download

        # The pipeline's own way asks the hub even when it is told not to.
        fetch, why = snapshot_download, "is not to be had from the hub now (offline)"
        arguments: dict[str, Any] = {"local_files_only": True}
    else:
        from diffusers.pipelines.pipeline_utils import DiffusionPipeline

        fetch, why = DiffusionPipeline.download, "could not be had from the hub"
        arguments = {"use_safetensors": True}
    try:
        return Path(fetch(name, revision=revision, **arguments))
    except Exception as error:  # network, permission, missing repository, no pipeline in it: each has its own class
        raise ValueError(f"{name} is neither a folder nor on this disk, and {why}: {first_line(error)}") from error
