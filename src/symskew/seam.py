"""The one interception: which layer attends, with which queries, keys and values, and what becomes of it.

A `Tap` is one party's interest in one layer, a `Frame` the forward of a tapped attention module while it runs. The
attention within is caught at one of two places: processors that call torch's `scaled_dot_product_attention` by a
function mode that is active for the length of their module's forward; those that go through diffusers' attention
dispatcher in its table of backends, where every backend is seen, flash kernels included.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from symskew import refusal
from symskew.circulate import Circulated, Circulation
from symskew.layers import Layer, attention_input


class Call:
    """One self-attention call: q, k, v as (batch, heads, tokens, head_dim), and what else decides its result."""

    def __init__(self, arguments: dict[str, Any], frame: Frame, backend: str, vanilla: Callable[[], Tensor]) -> None:
        self.q, self.k, self.v = (arguments[name] for name in ("query", "key", "value"))
        self.mask, self.scale = arguments.get("attn_mask"), arguments.get("scale")
        self.causal = bool(arguments.get("is_causal", False))
        self.backend = backend
        self.vanilla = vanilla
        """() → what the model itself would have computed, (batch, heads, tokens, head_dim)."""
        self.acts: list[tuple[slice, Circulation]] = []
        """The controls that made this attention, and of which rows; known to outer taps once `inner` has run."""
        self.circulated: Circulated | None = None
        """What they made of it, the vanilla retrieval and the effective settings included."""
        self.image: slice | None = None
        """The tokens that it circulated among themselves; None for all."""
        self.first = frame.rows
        """The first of its rows in the batch of the layer: not 0 where samples attend one by one."""
        self._frame = frame

    @property
    def given(self) -> int:
        """Rows that the layer was given; more than attend where PAG perturbs some, or a few at a time."""
        hidden, rows = self._frame.hidden, self.q.shape[0]
        return max(hidden.shape[0], rows) if isinstance(hidden, Tensor) and hidden.ndim > 2 else rows

    @property
    def streams(self) -> tuple[int, int]:
        """Tokens of the layer's own sequence, and of the other one that joint attention has beside it (or 0)."""
        frame = self._frame
        return frame.hidden.shape[1], 0 if frame.context is None else frame.context.shape[1]

    def pieces(self) -> list[tuple[slice, Circulation | None]]:
        """All rows in order, and the control that made their attention: the last of those that acted on them."""
        edges = sorted([0, self.q.shape[0], *(edge for rows, _ in self.acts for edge in (rows.start, rows.stop))])
        found: list[tuple[slice, Circulation | None]] = []
        for start, stop in itertools.pairwise(edges):
            if start < stop:
                over = [circulation for rows, circulation in self.acts if rows.start <= start and stop <= rows.stop]
                found.append((slice(start, stop), over[-1] if over else None))
        return found

    def x(self) -> Tensor:
        """What the projections saw, (batch, tokens, features); ValueError where that cannot be known."""
        frame = self._frame
        x = attention_input(frame.taps[0].layer, frame.hidden, frame.context)
        if x.shape[0] != self.q.shape[0] or x.shape[1] != self.q.shape[2]:
            raise ValueError(
                f"symskew: {frame.name} attends over (batch, tokens) ({self.q.shape[0]}, {self.q.shape[2]}) but was "
                f'given {tuple(x.shape[:2])}: its processor drops or adds rows; use Circulation(space="value").'
            )
        return x


class Tap:
    """One party's interest in one layer; subclasses say in `attend` what they make of a call.

    Taps of higher `rank` wrap those of lower; among equals the last to come is outermost. Where all taps of a layer are
    `idle`, content with what the model does, its attention is not even watched.
    """

    rank = 0
    idle = False

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.active = True
        self.calls = 0
        # Stored within a forward, read after it: compiled code may store but must not count, which would have it
        # compiled anew for every number.
        self.entered = False  # the module's forward was run to its end
        self.ran = False  # as it was in some forward so far
        self.seen = False  # and its attention came by
        self.cross = False
        self.oblong: tuple[int, int] | None = None  # queries and keys of an attention of others than the tokens alone
        self.shape: tuple[int, int, int] | None = None  # heads, head_dim, tokens
        self.backend = ""

    def attend(self, call: Call, inner: Callable[[], Tensor]) -> Tensor:
        """The attention of one call, (batch, heads, tokens, head_dim); `inner` computes it without this tap."""
        raise NotImplementedError

    def enter(self) -> None:
        """The module's forward begins."""

    def collect(self) -> None:
        """Count what was seen since the last time."""
        self.calls += self.seen
        self.ran |= self.entered
        self.entered = self.seen = False


class Frame:
    """The forward of one tapped attention module, while it runs.

    `cached` counts the tokens whose keys and values it has from earlier forwards; None where it is given no cache.
    """

    def __init__(self, module: nn.Module, taps: list[Tap], hidden: Any, context: Any, cached: int | None) -> None:
        self.module, self.taps, self.hidden, self.context, self.cached = module, taps, hidden, context, cached
        self.rows = 0  # of the batch that have attended
        self.inside = False

    @property
    def name(self) -> str:
        """The layer's name; for messages only, since compiled code would be compiled anew for every name it reads."""
        return self.taps[0].layer.name

    def is_self_attention(self, q: Tensor, k: Tensor) -> bool:
        """Whether this attention is of the module's sequence, or of both its sequences together, with itself."""
        tokens, keys = q.shape[2], k.shape[2]
        if tokens != keys:
            for tap in self.taps:
                tap.oblong = tokens, keys
        if self.context is None:
            return tokens == keys
        # Two sequences came in. Joint attention is over both; over one from the other it is cross-attention, also
        # when text and image happen to have the same number of tokens.
        own, other = self.hidden.shape[1], self.context.shape[1]
        if keys == other and tokens != own + other:
            for tap in self.taps:
                tap.cross = True
        # Of the other sequence padding may have been left out.
        return tokens == keys and own < tokens <= own + other

    def attend(self, arguments: dict[str, Any], backend: str, original: Callable[[], Tensor]) -> Tensor:
        """One attention with arguments as (batch, heads, tokens, head_dim): by the taps, or as `original` does it."""
        q = arguments["query"]
        refusal.check_shape(self, q, backend)
        if self.cached is not None and self.context is None and not self.inside:
            refusal.check_uncached(self, q, arguments["key"])
        if self.inside or refusal.is_extra(self):
            return original()
        if not self.is_self_attention(q, arguments["key"]):
            refusal.check_rest(self, q, arguments["key"])
            return original()
        refusal.check_whole(self, q)
        refusal.check_arguments(self, arguments, backend)
        call = Call(arguments, self, backend, original)
        self.rows += q.shape[0]
        self.inside = True
        inner = original
        for tap in self.taps:
            tap.seen, tap.shape, tap.backend = True, (call.q.shape[1], call.q.shape[3], call.q.shape[2]), backend
            inner = functools.partial(tap.attend, call, inner)
        try:
            return inner()
        finally:
            self.inside = False


class _Local(threading.local):
    def __init__(self) -> None:
        # Set here for every thread, not on the class: compiled code must find it in the same place before and after.
        self.frame: Frame | None = None


local = _Local()


class Mode(TorchFunctionMode):
    """Hands torch's attention to the frame that is running; leaves every other function alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        frame = local.frame
        if func is scaled_dot_product_attention and frame is not None:
            # Not `|` and no zip of unequal lengths: torch 2.6 compiles neither.
            arguments = {**dict(zip(refusal.UNDERSTOOD[: len(args)], args, strict=True)), **kwargs}
            return frame.attend(arguments, "sdpa", functools.partial(func, *args, **kwargs))
        return func(*args, **kwargs)


def drop_modes() -> None:
    """Take away the function modes that layers left behind in which Ctrl-C came just before the mode was left."""
    while isinstance(mode := _get_current_function_mode(), Mode):
        mode.__exit__(None, None, None)


def _swap(tensor: Tensor) -> Tensor:
    return tensor.transpose(1, 2)


def _watched(name: str, backend: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A backend of the dispatcher, (batch, tokens, heads, head_dim), that asks the running frame first."""

    @functools.wraps(backend)
    def attend(**kwargs: Any) -> Any:
        frame = local.frame
        if frame is None or frame.inside:
            return backend(**kwargs)
        arguments = dict(kwargs)
        for side in ("query", "key", "value"):
            arguments[side] = _swap(kwargs[side])
        mask, q, k = kwargs.get("attn_mask"), kwargs["query"], kwargs["key"]
        if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape == (q.shape[0], k.shape[1]):
            arguments["attn_mask"] = mask[:, None, None]  # as the dispatcher's own backends read it: keys per sample
        return _swap(frame.attend(arguments, name, lambda: _swap(backend(**kwargs))))

    return attend


def _backends() -> dict[Any, Callable[..., Any]] | None:
    """The dispatcher's table of backends, or None: it is private, and a version of diffusers may not have it."""
    try:
        from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry
    except ImportError:
        return None
    table = getattr(Registry, "_backends", None)
    return table if isinstance(table, dict) else None


_lock = threading.RLock()
_watches = 0
_originals: dict[Any, tuple[Callable[..., Any], Callable[..., Any]]] = {}


@contextmanager
def watch_backends() -> Iterator[None]:
    """Watch the dispatcher's backends for as long as any session lasts, and put exactly the originals back."""
    global _watches
    with _lock:
        _watches += 1
        if _watches == 1:
            for key, backend in (table := _backends() or {}).items():
                _originals[key] = backend, _watched(getattr(key, "value", str(key)), backend)
                table[key] = _originals[key][1]
    try:
        yield
    finally:
        with _lock:
            _watches -= 1
            if _watches == 0:
                table = _backends() or {}
                for key, (backend, watched) in _originals.items():
                    if table.get(key) is watched:
                        table[key] = backend
                _originals.clear()


def watching() -> bool:
    """Whether the dispatcher's backends are being watched."""
    return bool(_originals)
