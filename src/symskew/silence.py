"""A control or probe that did nothing is an error: which layers were out of reach, why, and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from types import BuiltinFunctionType

import torch.nn.functional as F

from symskew.interface import implementation
from symskew.seam import Tap


class SilentControlError(RuntimeError):
    """A control was asked for, and layers it was meant for computed their attention without it."""


class SilentProbeError(RuntimeError):
    """A diagnosis was asked for, and layers it was meant for computed their attention unseen."""


_NOT_RUN = (
    "it was not run: something spared it its work, as a cache of another package does, or the model has no use for it; "
    "have the window (start, stop, every) begin where it is run, or leave these layers out with layers="
)


def out_of_reach(missed: Sequence[Tap], chosen: int, purpose: str) -> str:
    """The message of such an error: who was not reached, what computes there, and the way out."""
    by: dict[tuple[str, str, str, str], list[str]] = {}
    for tap in missed:
        layer = tap.layer
        processor = getattr(layer.module, "processor", None)
        backend = getattr(processor, "_attention_backend", None)
        ways = str(getattr(backend, "value", backend or "")), implementation(layer.module)
        reason = _NOT_RUN if not tap.ran else _not_square(*tap.oblong) if tap.oblong else ""
        by.setdefault((layer.processor, *ways, reason), []).append(layer.name)
    lines = []
    for (processor, backend, function, reason), names in by.items():
        some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(
            f"  {some}: {processor}{f' on backend {backend or function}' if backend or function else ''}; "
            + (reason or _way_out(processor, backend, function))
        )
    return (
        f"symskew: {len(missed)} of the {chosen} chosen layers computed their attention out of reach, so {purpose}:\n"
        + "\n".join(lines)
    )


def _not_square(queries: int, keys: int) -> str:
    return (
        f"it has queries for some of its tokens only, {queries} for {keys} keys: q kᵀ is not square, and has neither a "
        "symmetric nor a skew part; leave these layers out with layers="
    )


def _way_out(processor: str, backend: str, function: str) -> str:
    reset = "model.set_attn_processor(diffusers.models.attention_processor.AttnProcessor2_0())"
    if "XFormers" in processor:
        return f"pipe.disable_xformers_memory_efficient_attention(), or {reset}"
    if "Sliced" in processor:
        return f"pipe.disable_attention_slicing(), or {reset}"
    if processor in ("AttnProcessor", "AttnAddedKVProcessor", "IPAdapterAttnProcessor", "CustomDiffusionAttnProcessor"):
        return f"it multiplies matrices itself; {reset}"
    if any(mark in processor for mark in ("Linear", "LiteLA")):
        return "it has no softmax, hence nothing to control; leave these layers out with layers="
    if not isinstance(F.scaled_dot_product_attention, BuiltinFunctionType):
        return "something has replaced torch.nn.functional.scaled_dot_product_attention; put torch's own back"
    if backend:
        return 'model.set_attention_backend("native")'
    if function not in ("", "sdpa"):
        return 'load the model with attn_implementation="sdpa"; one that has no such path cannot be reached'
    return (
        "it never called scaled_dot_product_attention with as many keys as queries; use a processor (diffusers) or an "
        'attn_implementation (transformers: "sdpa") that does, or leave these layers out with layers='
    )
