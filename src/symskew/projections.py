"""Which weights of a checkpoint are the queries and keys of its self-attention, by their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from symskew.layers import CROSS

PAIRS = (
    *(("to_q", "to_k"), ("q_proj", "k_proj"), ("query", "key"), ("q_lin", "k_lin"), ("q", "k"), ("wq", "wk")),
    *(("query_proj", "key_proj"), ("linear_q", "linear_k"), ("to_query", "to_key")),
)
WITH_MLP = ("to_qkv_mlp_proj", "linear1")
"""Queries, keys, values and the input of an MLP in one."""
FUSED = (
    *("to_qkv", "qkv", "qkv_proj", "Wqkv", "c_attn", "query_key_value", "in_proj_weight"),
    *("img_qkv_proj", "img_attn_qkv", *WITH_MLP),
)
_KEYS = dict(PAIRS)
_QUERIES = {key: query for query, key in PAIRS}
# What any other weight of queries or keys is called.
_ALIKE = re.compile(r"(?:^|_)(?:w?q|w?k|w?qkv?|w?kv|query|key)(?:_|$)", re.IGNORECASE)
_CROSS = re.compile(
    r"(?:^|\.)(?:\w+_cross_att\w*|\w+_to_\w+_attn|face_adapter|(?:down|up)_block\.attention_blocks"
    r"|decoders\.\d+\.layer\.1)(?=\.|$)"
)
_POOLS = re.compile(r"(?:^|\.)(?:pool|pooler|attnpool|add_time_condition|head\.attention)(?=\.|$)")
# Whose second attention is over frames once more, and not over a text.
_TWICE = ("motion_modules", "temp_attentions", "transformer_in")
_TEXT = re.compile(r"(?:^|\.)(?:txt_\w+|context_block\..*|add_[qk]_proj|to_[qk]_t)$|(?:^|\.)txt_attn\.")


@dataclass(frozen=True)
class Site:
    """One self-attention layer in a file: where its projections are."""

    name: str
    q: str
    k: str | None
    """None where `q` holds both, fused."""


def find_projections(
    shapes: Mapping[str, tuple[int, ...]], config: dict[str, Any]
) -> tuple[list[Site], dict[str, str]]:
    """The self-attention layers in the order they run, and of other weights of queries or keys why they are none.

    >>> shapes = dict.fromkeys(["a.attn1.to_q.weight", "a.attn1.to_k.weight", "a.attn2.to_q.weight"], (8, 8))
    >>> sites, others = find_projections(shapes, {})
    >>> [site.name for site in sites], others
    (['a.attn1'], {'a.attn2': 'cross-attention, by its name'})
    """
    sites: list[Site] = []
    others: dict[str, str] = {}
    for name, shape in shapes.items():
        stem = name.removesuffix(".weight")
        path, _, last = stem.rpartition(".")
        query, key = (f"{path}.{side.get(last)}.weight".lstrip(".") for side in (_QUERIES, _KEYS))
        fused = last in FUSED and (last != "linear1" or "single_blocks." in path)
        if len(shape) < 2 or not (fused or _ALIKE.search(last)):
            continue
        if why := _elsewhere(path, config):
            others[path] = why
        elif _TEXT.search(stem):
            others[stem] = "the text's side of joint attention"
        elif fused:
            sites.append(Site(path or last, name, None))
        elif key in shapes:
            if shape[1:] == shapes[key][1:]:
                sites.append(Site(path or last, name, key))
            else:
                others[path or last] = f"queries {shape} and keys {shapes[key]} are not of one input"
        elif query not in shapes:
            others[stem] = "queries or keys in a layout that is unknown"
    return sorted(sites, key=lambda site: _order(site.name)), others


def _elsewhere(path: str, config: dict[str, Any]) -> str | None:
    """Why attention of this name is not that of a sequence with itself."""
    *_, last = parts = path.split(".")
    if _POOLS.search(path):
        return "attention pooling, whose queries are no tokens"
    twice = "dual_attention_layers" in config or config.get("_class_name") == "TransformerTemporalModel"
    if last.endswith("attn2") and not twice and not any(part in _TWICE for part in parts):
        return "cross-attention, by its name"
    named = _CROSS.search(path) or any(CROSS.fullmatch(part) for part in parts)
    return "cross-attention, by its name" if named else None


def _order(name: str) -> tuple[Any, ...]:
    block = re.search(r"(?:^|\.)(?:(down_block|input_block)|(mid)|(up_block|output_block))", name)
    later = bool(re.search(r"(?:^|\.)(decoder|single_)", name))
    natural = tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))
    return block.lastindex if block else 0, later, natural
