"""Attention that has no q kᵀ of all its tokens, or whose change would leave something out: refused, with the reason."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

UNDERSTOOD = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
"""Arguments of torch's attention, in their order."""
_HARMLESS = {*UNDERSTOOD, "return_lse", "_parallel_config"}


class Running(Protocol):
    """The forward of an attention module while it runs (`seam.Frame`)."""

    module: nn.Module
    hidden: Any
    context: Any
    cached: int | None
    rows: int

    @property
    def name(self) -> str:
        """The layer's."""
        ...


def is_extra(frame: Running) -> bool:
    """Whether what comes after the first attention is none of the image with itself, and to be left alone."""
    # The perturbed branch of PAG, or the image prompt of an IP-Adapter, which may have as many tokens as the image.
    return frame.rows > 0 and any(mark in _processor(frame) for mark in ("PAG", "IPAdapter"))


def _processor(frame: Running) -> str:
    return type(getattr(frame.module, "processor", None)).__name__


def check_shape(frame: Running, q: Tensor, backend: str) -> None:
    """Refuse what is no attention of heads."""
    if q.ndim != 4:
        raise ValueError(
            f"symskew: the attention at {frame.name} (backend {backend}) is over {tuple(q.shape)} where "
            "(batch, heads, tokens, head_dim) was expected; leave the layer out with layers=."
        )


def check_uncached(frame: Running, q: Tensor, k: Tensor) -> None:
    """Refuse keys from earlier forwards, whose queries are gone."""
    # Before shapes are compared: one token's grouped queries are folded into rows, as many as there may be keys.
    if frame.cached or q.shape[2] != k.shape[2]:
        raise ValueError(
            f"symskew: {frame.name} attends from {frame.hidden.shape[1]} token(s) to {k.shape[2]} through a key-value"
            " cache, which keeps no queries: q_i·k_j has no q_j·k_i to be compared with, so neither a symmetric "
            "nor a skew part is defined; use generate(…, use_cache=False), or one forward over the whole sequence."
        )


def check_rest(frame: Running, q: Tensor, k: Tensor) -> None:
    """Refuse, after some tokens have attended among themselves, others that attend to more."""
    if frame.rows and q.shape[2] != k.shape[2]:
        raise ValueError(
            f"symskew: {frame.name} attends once among some of its tokens, and again from {q.shape[2]} others to "
            f"{k.shape[2]}: there is no one q kᵀ of all its tokens to control; leave it out with layers=."
        )


def check_whole(frame: Running, q: Tensor) -> None:
    """Refuse a second attention over the same rows, and one over some of the tokens alone."""
    # Further rows of the batch, where samples attend one by one, are fine.
    if frame.rows and frame.rows + q.shape[0] > frame.hidden.shape[0]:
        raise ValueError(
            f"symskew: {frame.name} ({_processor(frame)}) attends more than once in one forward, and which of them to "
            "control is unknown; leave it out with layers=, or use a processor that attends once."
        )
    hidden = frame.hidden
    if frame.context is not None or not isinstance(hidden, Tensor) or hidden.ndim != 3:
        return
    # Windows are parts too, but make up the whole between them; and PAG leaves out whole rows.
    if q.shape[2] < hidden.shape[1] and q.shape[0] * q.shape[2] < hidden.shape[0] * hidden.shape[1]:
        raise ValueError(
            f"symskew: {frame.name} attends in parts, the first of {q.shape[2]} of its {hidden.shape[1]} tokens with "
            "themselves: there is no one q kᵀ of all its tokens to control; leave it out with layers=."
        )


def check_arguments(frame: Running, arguments: dict[str, Any], backend: str) -> None:
    """Refuse what a change of the attention would silently leave out."""
    problem, mask = "", arguments.get("attn_mask")
    if arguments.get("dropout_p"):
        problem = f"drops out {arguments['dropout_p']:g} of its links; call .eval() on the model first"
    elif mask is not None and not isinstance(mask, Tensor):
        problem = f"has a mask of type {type(mask).__name__}; only tensor masks can be controlled"
    elif arguments.get("return_lse"):
        problem = "is asked for its log-sum-exp, which a controlled attention does not have"
    elif arguments.get("_parallel_config") is not None:
        problem = "runs in parallel over parts of the sequence; disable context parallelism"
    elif unknown := [name for name in arguments if name not in _HARMLESS]:
        problem = f"takes {', '.join(unknown)}, which a controlled attention would ignore"
    if problem:
        raise ValueError(f"symskew: the attention at {frame.name} (backend {backend}) {problem}.")
