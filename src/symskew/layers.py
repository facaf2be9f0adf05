"""Find, name and choose the self-attention layers of a model."""

from __future__ import annotations

import inspect
import itertools
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from symskew.interface import head_count, is_transformers_attention

DENOISERS = ("unet", "transformer", "transformer_2")
"""Where a diffusers pipeline keeps what may be controlled; never its autoencoder, text encoders or safety checker."""

PROJECTIONS = (
    ("to_q", "to_k", "to_v"),
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("to_qkv",),
    ("qkv", "num_heads"),
    ("qkv", "heads"),
    ("q", "k", "v"),
    ("query_proj", "key_proj", "value_proj"),
    ("query_key_value", "num_heads"),
)
_CONTEXTS = (
    *("encoder_hidden_states", "context", "key_value_states", "cross_attention_states", "context_hidden_states"),
    *("key_hidden_states", "key", "keys", "key_tensor"),
)
_OWN = ("self_attn", "self_attention", "attention")
_NO_CONTEXT = re.compile("mask|rot|rope|freqs|temb|position")
# What transformers calls the cross-attention of models that have one class for both kinds.
CROSS = re.compile(r"cross_?att\w*|encoder_att\w*|EncDecAttention", re.IGNORECASE)
# Attention over frames, over text alone, over an image prompt, or only on some calls: not the image's with itself.
ASIDE = (
    *("temporal", "motion_modules", "temp_attentions", "transformer_in.", "audio_"),
    *("context_refiner", "token_refiner", "text_fusion", "txt_mode", "text_transformer", "perceiver", "pooler"),
    *("encoder_hid_proj", "image_proj", "image_cond", "fuser"),
)
STAGES = ("down", "mid", "up")

# How the processors of each family concatenate the two streams of joint attention. Only what the projections saw and
# which tokens are the image's depends on it: whether a call is joint at all is read from the call itself.
IMAGE_FIRST = (
    "Joint",  # Stable Diffusion 3, fused, IP-Adapter and PAG variants included
    "HunyuanVideo",
    "HunyuanImage",
    "HiDream",
    "JoyImage",
    "MotifVideo",
    "ErnieImage",
    "ZSingleStream",
    "Mochi",
)
TEXT_FIRST = (
    "Flux",
    "QwenDoubleStream",
    "AuraFlow",
    "FusedAuraFlow",
    "CogVideoX",
    "FusedCogVideoX",
    "CogView4",
    "LongCatImage",
    "OvisImage",
    "Bria",
    "EasyAnimate",
    "GlmImage",
    "Lumina2",
    "OmniGen",
    "Krea2",
    "Ideogram4",
    "Helios",  # frames of the past, before those that are made
)


@dataclass(frozen=True, eq=False)
class Layer:
    """One attention layer: its dotted `name` in the model, and where it sits.

    `index` is its place among the self-attention layers in the order they run, `depth` the same as (index + ½)/n,
    strictly between 0 and 1. `stage` is `"down"`, `"mid"` or `"up"`: by the block's name in a UNet, by thirds of the
    depth elsewhere. `aside` marks attention that is not the image's with itself: temporal and motion layers, refiners
    of text or image prompts; it does not count, and has the index and depth of the middle. `transformers` marks layers
    of models of that library.
    """

    name: str
    module: nn.Module = field(repr=False)
    stage: str
    index: int
    depth: float
    heads: int | None
    joint: bool
    aside: bool
    transformers: bool = False

    @property
    def processor(self) -> str:
        """The class name of what computes the attention at this moment."""
        return type(getattr(self.module, "processor", self.module)).__name__


def find_denoisers(target: object) -> dict[str, nn.Module]:
    """The denoiser of a diffusers pipeline, or the module itself, by the name it has in its pipeline.

    Example:
        >>> list(find_denoisers(torch.nn.Linear(2, 2)))
        ['']

    Raises:
        TypeError: if `target` is neither a module nor a pipeline with a denoiser.
    """
    if isinstance(target, nn.Module):
        return {"": _uncompiled(target)}
    parts = {name: getattr(target, name, None) for name in DENOISERS}
    found = {name: _uncompiled(part) for name, part in parts.items() if isinstance(part, nn.Module)}
    if not found:
        raise TypeError(
            f"symskew: expected a diffusers pipeline with one of {', '.join(DENOISERS)}, or a torch module, got "
            f"{type(target).__name__}, which has none of them; give the denoising module itself."
        )
    return found


def _uncompiled(module: nn.Module) -> nn.Module:
    # What torch.compile returns shares its weights with the module it wraps; hooks must sit on the latter.
    while isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
        module = inner
    return module


def find_layers(model: nn.Module, prefix: str = "") -> list[Layer]:
    """The self-attention layers of `model` in the order they run, joint text-and-image attention included.

    Whether a layer attends to itself is decided by its module: modules made for cross-attention are left out. One that
    does not say is included, and dropped when its calls turn out to be cross-attention.
    """
    found = [
        (name.replace("_orig_mod.", ""), module)  # blocks that were compiled one by one keep their names
        for name, module in model.named_modules()
        if _is_attention(module) and not _is_made_for_cross_attention(name, module)
    ]
    # UNets register their middle block last, so the order of registration is not the order of execution.
    found.sort(key=lambda item: STAGES.index(_block(item[0]) or "down"))
    spatial = [name for name, _ in found if not _is_aside(name)]
    layers = []
    for name, module in found:
        place = spatial.index(name) if name in spatial else len(spatial) // 2
        depth = (place + 0.5) / max(len(spatial), 1)
        layers.append(
            Layer(
                name=f"{prefix}{name}" or type(module).__name__,
                module=module,
                stage=_block(name) or STAGES[min(int(3 * depth), 2)],
                index=place,
                depth=depth,
                heads=_heads(module),
                joint=getattr(module, "add_q_proj", None) is not None,
                aside=_is_aside(name),
                transformers=is_transformers_attention(module),
            )
        )
    return layers


def _is_attention(module: nn.Module) -> bool:
    if is_transformers_attention(module) or (hasattr(module, "get_processor") and hasattr(module, "processor")):
        return True
    return any(all(getattr(module, name, None) is not None for name in names) for names in PROJECTIONS)


def _is_made_for_cross_attention(name: str, module: nn.Module) -> bool:
    if "Cross" in type(module).__name__:
        return True
    # A width for the keys makes an `Attention` say so, also where they are of its own sequence, or where those of a
    # text come beside its own (Kandinsky 2, DeepFloyd IF): found, and refused with the reason.
    beside = getattr(module, "add_k_proj", None) is not None and getattr(module, "only_cross_attention", True) is False
    if getattr(module, "is_cross_attention", False) and not beside and name.split(".")[-1] not in _OWN:
        return True
    if is_transformers_attention(module) and any(CROSS.fullmatch(part) for part in name.split(".")):
        return True
    widths = {getattr(getattr(module, name, None), "in_features", None) for name in ("to_q", "to_k")} - {None}
    return len(widths) > 1


def _is_aside(name: str) -> bool:
    return any(mark in name for mark in ASIDE)


def _block(name: str) -> str | None:
    match = re.search(r"(?:^|\.)(down|mid|up)_block", name)
    return match[1] if match else None


def _heads(module: nn.Module) -> int | None:
    numbers = (getattr(module, name, None) for name in ("heads", "num_heads", "num_attention_heads", "n_heads"))
    return next((number for number in numbers if isinstance(number, int)), head_count(module))


def context_reader(module: nn.Module) -> Any:
    """A function (args, kwargs) → (hidden states, the other sequence attended to or None) for this module's forward."""
    names = list(inspect.signature(type(module).forward).parameters)[1:]
    index = next((i for i, name in enumerate(names) if name in _CONTEXTS), None)
    context_name = names[index] if index is not None else _CONTEXTS[0]
    first = names[0] if names else "hidden_states"
    keys = (getattr(module, names[min(1, len(names) - 1)], None) for names in PROJECTIONS)
    width = next((found for found in (getattr(key, "in_features", None) for key in keys) if found), None)
    if is_transformers_attention(module):  # which names its arguments alike, and adds positions as wide as the input
        width = None

    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        hidden = args[0] if args else kwargs.get(first, kwargs.get("hidden_states"))
        context = args[index] if index is not None and len(args) > index else kwargs.get(context_name)
        if context is None:  # a second sequence under a name of its own: whatever else the keys could be made of
            given = [*itertools.zip_longest(names[1:], args[1:], fillvalue=""), *kwargs.items()]
            others = [value for name, value in given if not _NO_CONTEXT.search(name) and _is_sequence(value, width)]
            context = others[0] if others else None  # torch 2.6 compiles no `next` with a default
        two = isinstance(hidden, Tensor) and isinstance(context, Tensor) and context is not hidden
        return hidden, context if two else None

    return read


def _is_sequence(value: Any, width: int | None) -> bool:
    return isinstance(value, Tensor) and value.ndim == 3 and value.is_floating_point() and value.shape[-1] == width


def attention_input(layer: Layer, hidden: Any, context: Any) -> Tensor:
    """Exactly what the projections of an attention module saw, (batch, tokens, features), in the order of its tokens.

    Raises:
        ValueError: where that cannot be known, naming the layer; `space="value"` needs no input.
    """
    problem = "it normalizes or reshapes its input itself"
    if context is None:
        if _plain_input(layer.module, hidden):
            return hidden
    elif hidden.shape[-1] != context.shape[-1]:
        problem = f"its two streams differ in width, {hidden.shape[-1]} and {context.shape[-1]}"
    elif layer.processor.startswith(TEXT_FIRST):
        return torch.cat([context, hidden], dim=1)
    elif any(family in layer.processor for family in IMAGE_FIRST):
        return torch.cat([hidden, context], dim=1)
    else:
        problem = f"the order of text and image tokens in {layer.processor} is unknown"
    raise ValueError(
        f"symskew: what the projections of {layer.name} saw cannot be known: {problem}; "
        'use Circulation(space="value"), which needs no input, or leave the layer out with layers=.'
    )


def _plain_input(module: nn.Module, hidden: Any) -> bool:
    norms = (getattr(module, name, None) for name in ("group_norm", "spatial_norm", "node_norm"))
    return isinstance(hidden, Tensor) and hidden.ndim == 3 and all(norm is None for norm in norms)
