"""What the configuration of a checkpoint says of the heads of a layer; nothing where it does not speak of it."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_NUMBERS = ("num_attention_heads", "attention_heads", "num_heads", "n_heads", "n_head", "nheads", "nhead", "dit_heads")
_WIDTHS = ("attention_head_dim", "head_dim", "kv_channels", "d_kv")
_BLOCK = re.compile(r"(?:^|\.)(down|mid|up)_block(?:s\.(\d+))?\b")
# In the transformer blocks of these `attention_head_dim` is the number of heads; in other attention, their width.
_MISNAMED = (
    *("UNet2DConditionModel", "UNetFlatConditionModel", "AudioLDM2UNet2DConditionModel", "DreamLiteUNetModel"),
    *("ControlNetModel", "ControlNetUnionModel", "SparseControlNetModel"),
)
_NAMED = ("UNet3DConditionModel", "I2VGenXLUNet")  # where it is what it says in these, too


class Heads(NamedTuple):
    """How many query heads a layer has, how wide they are, and how many of keys there are; None is unknown."""

    number: int | None = None
    width: int | None = None
    keys: int | None = None


def configured_heads(config: dict[str, Any], layer: str) -> Heads:
    """What a configuration says of the heads of a layer, by the layer's name.

    >>> configured_heads({"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16}, "layers.0.self_attn")
    Heads(number=8, width=16, keys=2)
    >>> unet = {"_class_name": "UNet2DConditionModel", "down_block_types": [], "attention_head_dim": [5, 10, 20]}
    >>> configured_heads(unet, "up_blocks.0.attentions.1.transformer_blocks.0.attn1").number
    20
    """
    config = _half(config, layer)
    number, width = _said(config, layer)
    if axes := config.get("axes_dims_a" if "audio" in layer else "axes_dims"):  # of rotary positions, in one head
        width = width or sum(axes)
    if "down_block_types" in config:  # a UNet, whose heads are those of its blocks
        if not _BLOCK.search(layer) and not layer.startswith("transformer_in."):
            return Heads()
        kind = config.get("_class_name")
        if "transformer_blocks" in layer and kind not in _NAMED:
            number, width = number or (width if kind in _MISNAMED else None), None
    return Heads(number, width, _keys(config))


def _half(config: dict[str, Any], layer: str) -> dict[str, Any]:
    """The configuration of the half of a model that a layer is in."""
    halves = ("vision_config", "text_config") if "vision" in layer or "visual" in layer else ("text_config",)
    return next((config[half] for half in halves if isinstance(config.get(half), dict)), config)


def _said(config: dict[str, Any], layer: str) -> tuple[int | None, int | None]:
    """Number and width: those of the part that the layer's name tells (text_…, motion_…, encoder_…), or any."""
    for prefix in (*(f"{word}_" for word in re.findall("[a-z]+", layer)), ""):
        number, width = (
            next((found for name in names if (found := _at(config.get(prefix + name), layer))), None)
            for names in (_NUMBERS, _WIDTHS)
        )
        if number or (width and not prefix):
            return number, width
    return None, None


def _at(value: Any, layer: str) -> int | None:
    """A number, or that of the layer's block where there is a list of them."""
    if isinstance(value, list):
        block = _BLOCK.search(layer)
        if block is None or not (block[1] == "mid" or block[2]):
            return None
        ordered = value[::-1] if block[1] == "up" else value
        place = int(block[2] or -1)
        value = ordered[place] if place < len(ordered) else None
    return value if type(value) is int and value > 0 else None


def _keys(config: dict[str, Any]) -> int | None:
    names = (
        "num_key_value_heads",
        "num_kv_heads",
        *(["multi_query_group_num"] * bool(config.get("multi_query_attention"))),
    )
    found = next((config[name] for name in names if config.get(name)), None)
    return found or (1 if config.get("multi_query") else None)
