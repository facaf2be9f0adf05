"""The query and key projections in a checkpoint's files, found by name and read one layer at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from symskew.files import read_json
from symskew.layers import CROSS, DENOISERS

PAIRS = (
    *(("to_q", "to_k"), ("q_proj", "k_proj"), ("query", "key"), ("q_lin", "k_lin"), ("q", "k"), ("wq", "wk")),
    *(("query_proj", "key_proj"), ("linear_q", "linear_k")),
)
FUSED = ("to_qkv", "qkv", "qkv_proj", "Wqkv", "c_attn", "query_key_value", "in_proj_weight")
PARTS = (*DENOISERS, "prior", *(f"text_encoder{i}" for i in ("", "_2", "_3")), "image_encoder")
"""The parts of a diffusers pipeline that are looked into; never its autoencoder."""
_HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head")
# Families that keep q, k and v of each head together, under a name that others fuse in another order.
_BY_HEAD = ("gpt_neox", "gpt_neox_japanese", "bloom")
_IN_BLOCKS = ("chatglm", "glm")


class Heads(NamedTuple):
    """What is stated of the heads of all layers, before what a configuration says."""

    number: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class Site:
    """One self-attention layer in a file: where its projections are."""

    name: str
    q: str
    k: str | None
    """None where `q` holds both, fused."""


@dataclass(frozen=True)
class Part:
    """A model, or a part of a pipeline: its configuration, and which file holds which tensor."""

    name: str
    config: dict[str, Any]
    files: dict[str, Path] = field(repr=False)
    stated: Heads

    def sites(self) -> list[Site]:
        """Its self-attention layers in the order they run."""
        return sorted(_find_sites(self.files, self.config), key=lambda site: _order(site.name))

    def read(self, site: Site) -> tuple[Tensor, Tensor]:
        """W_Q (heads, head_dim, features) and W_K (key heads, head_dim, features) of one layer.

        Raises:
            ValueError: they are no plain numbers, or how they are fused is unknown.
        """
        q, k = self._unfuse(site) if site.k is None else (self._tensor(site.q), self._tensor(site.k))
        heads = self.heads(site, q.shape[0])
        if q.shape[1] != k.shape[1]:
            raise ValueError(f"queries {tuple(q.shape)} and keys {tuple(k.shape)} are not of one input")
        if heads is None and q.shape != k.shape:
            raise ValueError(f"how many heads share its {k.shape[0]} rows of keys is unknown; state heads or head_dim")
        heads = heads or 1
        width = q.shape[0] // heads
        if q.shape[0] % heads or k.shape[0] % width or heads % (k.shape[0] // width):
            raise ValueError(f"queries {tuple(q.shape)} and keys {tuple(k.shape)} are not those of {heads} heads")
        return q.unflatten(0, (heads, width)), k.unflatten(0, (-1, width))

    def heads(self, site: Site, rows: int) -> int | None:
        """How many query heads a layer with so many rows of queries has; None where nothing says."""
        number, width = self.stated
        known = number or _config_heads(self.config, site.name)
        if known or not width:
            return known
        if rows % width:
            raise ValueError(f"its {rows} rows of queries are not those of heads {width} wide")
        return rows // width

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
        weight, kind, config = self._tensor(site.q), self.config.get("model_type"), _side(self.config, site.name)
        if site.q.endswith("c_attn.weight") and weight.shape[1] > weight.shape[0]:  # GPT-2 holds its own transposed
            weight = weight.T
        rows, heads = weight.shape[0], self.heads(site, weight.shape[0] // 3)
        by_head = site.q.endswith("query_key_value.weight") and kind not in _IN_BLOCKS
        keys = config.get("num_key_value_heads") or (1 if config.get("multi_query") else heads)
        if heads is None and rows == 3 * weight.shape[1]:
            heads = keys = 1
        if heads is None or keys is None or kind == "codegen" or (by_head and kind not in _BY_HEAD):
            raise ValueError(f"how {kind or 'this model'} fuses its {rows} rows of queries, keys and values is unknown")
        if rows % (heads + 2 * keys):
            raise ValueError(f"its {rows} rows are not those of {heads} heads and {keys} key heads")
        if by_head:
            both = weight.unflatten(0, (heads, 3, -1))
            return both[:, 0].flatten(0, 1), both[:, 1].flatten(0, 1)
        width = rows // (heads + 2 * keys)
        return weight[: heads * width], weight[heads * width : (heads + keys) * width]


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

    config, tensors = folder / "config.json", {}
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                tensors |= dict.fromkeys(file.keys(), path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"symskew: {path} cannot be read, it may be damaged: {error}") from error
    return Part(name, read_json(config) if config.is_file() else {}, tensors, stated)


def _find_sites(names: dict[str, Path], config: dict[str, Any]) -> Iterator[Site]:
    for name in names:
        *path, last = name.removesuffix(".weight").split(".")
        if any(CROSS.fullmatch(part) or (part == "attn2" and "dual_attention_layers" not in config) for part in path):
            continue
        if last in FUSED and (name.endswith(".weight") or last == "in_proj_weight"):
            yield Site(".".join(path) or last, name, None)
        for query, key in PAIRS:
            other = ".".join([*path, key, "weight"])
            if last == query and name.endswith(".weight") and other in names:
                yield Site(".".join(path) or last, name, other)


def _order(name: str) -> tuple[Any, ...]:
    block = re.search(r"(?:^|\.)(?:(down_block|input_block)|(mid)|(up_block|output_block))", name)
    later = bool(re.search(r"(?:^|\.)(decoder|single_)", name))
    natural = tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))
    return block.lastindex if block else 0, later, natural


def _side(config: dict[str, Any], layer: str) -> dict[str, Any]:
    """The configuration of the half of a model that a layer is in."""
    halves = ("vision_config", "text_config") if "vision" in layer or "visual" in layer else ("text_config",)
    return next((config[half] for half in halves if isinstance(config.get(half), dict)), config)


def _config_heads(config: dict[str, Any], layer: str) -> int | None:
    config = _side(config, layer)
    for side in ("encoder", "decoder"):
        if f"{side}_attention_heads" in config and re.search(rf"(?:^|\.){side}\.", layer):
            return config[f"{side}_attention_heads"]
    names = _HEADS
    if str(config.get("_class_name", "")).startswith("UNet"):
        names = ("num_attention_heads", "attention_head_dim")  # by which it means the number of heads
    found = next((config[name] for name in names if config.get(name)), None)
    if isinstance(found, list):
        block = re.search(r"(down|up)_blocks\.(\d+)", layer)
        found = found[-1] if block is None else found[:: 1 if block[1] == "down" else -1][int(block[2])]
    return found
