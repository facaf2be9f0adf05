"""Attention modules of transformers: known by their structure, with their heads, kernel and key-value cache."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import nn

_TABLE = "ALL_ATTENTION_FUNCTIONS"
_HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head")


def is_transformers_attention(module: nn.Module) -> bool:
    """Whether the module's forward takes its attention function from transformers' table (`AttentionInterface`)."""
    return _asks_table(type(module))


@functools.cache
def _asks_table(kind: type[nn.Module]) -> bool:
    code = getattr(inspect.unwrap(kind.forward), "__code__", None)
    return code is not None and _TABLE in code.co_names


def implementation(module: nn.Module) -> str:
    """What computes the attention of a transformers module ("sdpa", "eager", …); empty where there is no saying."""
    return str(getattr(getattr(module, "config", None), "_attn_implementation", None) or "")


def head_count(module: nn.Module) -> int | None:
    """How many query heads a transformers module has, by its configuration."""
    config = getattr(module, "config", None)
    numbers = (getattr(config, name, None) for name in _HEADS)
    return next((number for number in numbers if isinstance(number, int)), None)


def cached_tokens(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """How many earlier tokens the key-value cache among a module's arguments holds; None where there is no cache."""
    caches: list[Any] = [value for value in (*args, *kwargs.values()) if hasattr(value, "get_seq_length")]
    return int(caches[0].get_seq_length(getattr(module, "layer_idx", None) or 0)) if caches else None
