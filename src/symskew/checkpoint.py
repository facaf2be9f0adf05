"""The query and key projections in a checkpoint's files, found by name and read one layer at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from symskew.configured import Heads, configured_heads
from symskew.files import read_json
from symskew.layers import DENOISERS
from symskew.projections import WITH_MLP, Site, find_projections

PARTS = (*DENOISERS, "prior", *(f"text_encoder{i}" for i in ("", "_2", "_3")), "image_encoder")
"""The parts of a diffusers pipeline that are looked into; never its autoencoder."""
# Families that keep q, k and v of each head together, under names that others fuse in another order.
_BY_HEAD = ("gpt_neox", "gpt_neox_japanese", "bloom")
# And those that do, unless heads share their keys.
_SHARING = {"chatglm": "multi_query_attention", "gpt_bigcode": "multi_query"}


@dataclass(frozen=True)
class Part:
    """A model, or a part of a pipeline: its configuration, and which file holds which tensor."""

    name: str
    config: dict[str, Any]
    files: dict[str, Path] = field(repr=False)
    shapes: dict[str, tuple[int, ...]] = field(repr=False)
    stated: Heads
    """What the caller says of the heads of all layers, before what the configuration does."""

    def find(self) -> tuple[list[Site], dict[str, str]]:
        """Its self-attention layers in the order they run, and why other weights of queries or keys are none."""
        return find_projections(self.shapes, self.config)

    def read(self, site: Site) -> tuple[Tensor, Tensor]:
        """W_Q (heads, head_dim, features) and W_K (key heads, head_dim, features) of one layer.

        Raises:
            ValueError: they are no plain numbers, or how they are fused is unknown.
        """
        q, k = self._unfuse(site) if site.k is None else (self._tensor(site.q), self._tensor(site.k))
        heads = self.heads(site, q.shape[0])
        if heads is None and q.shape != k.shape:
            raise ValueError(f"how many heads share its {k.shape[0]} rows of keys is unknown; state heads or head_dim")
        heads = heads or 1
        width = q.shape[0] // heads
        if q.shape[0] % heads or k.shape[0] % width or heads % (k.shape[0] // width):
            raise ValueError(f"queries {tuple(q.shape)} and keys {tuple(k.shape)} are not those of {heads} heads")
        return q.unflatten(0, (heads, width)), k.unflatten(0, (-1, width))

    def heads(self, site: Site, rows: int) -> int | None:
        """How many query heads a layer with so many rows of queries has; None where nothing says.

        A configuration says nothing of a layer that has not as many rows as its heads would have.
        """
        if self.stated.number:
            return self.stated.number
        if width := self.stated.width:
            if rows % width:
                raise ValueError(f"its {rows} rows of queries are not those of heads {width} wide")
            return rows // width
        number, width, _ = configured_heads(self.config, site.name)
        number = number or (rows // width if width else None)
        return number if number and rows == number * (width or rows // number) else None

    def _tensor(self, name: str) -> Tensor:
        from safetensors import safe_open

        with safe_open(self.files[name], "pt") as file:
            kind = file.get_slice(name).get_dtype()
            if kind not in ("F64", "F32", "F16", "BF16"):
                raise ValueError(f"its weights are quantized ({kind}); inspect the checkpoint they were made from")
            tensor = file.get_tensor(name)
        if tensor.ndim != 2:
            raise ValueError(f"its weights {tuple(tensor.shape)} are no matrix")
        return tensor

    def _unfuse(self, site: Site) -> tuple[Tensor, Tensor]:
        weight, kind = self._tensor(site.q), self.config.get("model_type")
        last = site.q.removesuffix(".weight").rpartition(".")[2]
        if last == "c_attn" and weight.shape[1] > weight.shape[0]:  # GPT-2 holds its own transposed
            weight = weight.T
        rows, features = weight.shape
        number, width, keys = configured_heads(self.config, site.name)
        inner = number * width if number and width else features
        heads = self.heads(site, inner)
        shared = inner * keys // heads if keys and heads else inner
        by_head = kind in _BY_HEAD or (kind in _SHARING and not self.config.get(_SHARING[kind]))
        known = last != "query_key_value" or by_head or kind in ("chatglm", "glm")
        fits = rows > 3 * inner if last in WITH_MLP else rows == inner + 2 * shared
        if not known or not fits or kind == "codegen" or (by_head and not heads):
            raise ValueError(f"how {kind or 'this model'} fuses its {rows} rows of queries, keys and values is unknown")
        if by_head and heads:
            both = weight.unflatten(0, (heads, 3, -1))
            return both[:, 0].flatten(0, 1), both[:, 1].flatten(0, 1)
        return weight[:inner], weight[inner : inner + shared]


def find_parts(source: str | Path, stated: Heads) -> list[Part]:
    """The parts of a checkpoint: of a diffusers folder, a transformers folder, a file, or a hub id on this disk.

    Raises:
        ValueError: there is no such checkpoint, or its weights are in another format.
    """
    path = _locate(str(source))
    if path.is_file():
        return [_part("", [path], path.parent, stated)]
    if (path / "model_index.json").is_file():
        index = read_json(path / "model_index.json")
        names = [name for name in PARTS if name in index and (path / name).is_dir()]
        return [_part(name, _weights(path / name), path / name, stated) for name in names]
    return [_part("", _weights(path), path, stated)]


def _locate(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_dir() or path.suffix == ".safetensors":
        if path.exists():
            return path
    elif re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(snapshot_download(source, local_files_only=True))
        except LocalEntryNotFoundError as error:
            raise ValueError(f"symskew: {source} is not on this disk; first: hf download {source}") from error
    raise ValueError(f"symskew: there is no checkpoint {source!r}: give a folder, a .safetensors file or a hub id.")


def _weights(folder: Path) -> list[Path]:
    indices = sorted(folder.glob("*.safetensors.index.json"), key=lambda file: len(file.name))
    if indices:
        names = set(_mapping(read_json(indices[0]).get("weight_map"), indices[0]).values())
        if strange := [name for name in names if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]*", name)]:
            raise ValueError(f"symskew: {indices[0]} names the file {strange[0]!r:.80}, which is none beside it.")
        return sorted(folder / name for name in names)
    files = sorted(folder.glob("*.safetensors"), key=lambda file: (len(file.name), file.name))
    if not files:
        others = [file.name for file in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth"))]
        found = f"only {', '.join(others)}" if others else "no weights"
        raise ValueError(
            f"symskew: expected .safetensors files in {folder}, found {found}; load the model and save_pretrained it."
        )
    shards = [file for file in files if re.search(r"-\d+-of-\d+\.", file.name)]
    # Otherwise the shortest name is the plain one; others are variants (.fp16, .non_ema) or the same weights again.
    return [file for file in files if file not in shards][:1] or shards


def _mapping(written: Any, path: Path) -> dict[str, Any]:
    if not isinstance(written, dict):
        raise ValueError(f"symskew: {path} has no weight_map with names of files.")
    return written


def _part(name: str, files: list[Path], folder: Path, stated: Heads) -> Part:
    from safetensors import SafetensorError, safe_open

    config, held, shapes = folder / "config.json", {}, {}
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                names = file.keys()
                held |= dict.fromkeys(names, path)
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in names}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"symskew: {path} cannot be read, it may be damaged: {error}") from error
    return Part(name, read_json(config) if config.is_file() else {}, held, shapes, stated)
