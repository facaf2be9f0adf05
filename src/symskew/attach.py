"""Control the self-attention of a pipeline: `with control(pipe, Circulation(1.05, 5)): pipe(...)`."""

from __future__ import annotations

import dataclasses
import itertools
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from symskew.circulate import Circulation, circulate
from symskew.layers import Layer, Selector, find_denoisers, find_layers, select_layers
from symskew.schedule import Window, check_window
from symskew.seam import Call, Tap
from symskew.session import Session
from symskew.silence import SilentControlError, out_of_reach


class Row(NamedTuple):
    """What happened at one layer: `calls` counts the denoiser forwards in which this control made its attention."""

    layer: str
    stage: str
    heads: int | None
    head_dim: int | None
    tokens: int | None
    calls: int
    backend: str


class Summary(tuple[Row, ...]):
    """Rows of `Handle.summary()`; printed as a table."""

    def __str__(self) -> str:
        cells = [Row._fields, *(tuple("–" if cell is None else str(cell) for cell in row) for row in self)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
        return "\n".join(line.rstrip() for line in lines)


@contextmanager
def control(
    target: object, circulation: Circulation, *, layers: Selector = None, start: float = 0.0, stop: float = 1.0
) -> Iterator[Handle]:
    """Control the self-attention of a pipeline or module for the length of a `with` block.

    Where several controls choose the same layer, the one entered last acts, within its window. Leaving restores what
    was there before, bit for bit, in whatever order and for whatever reason the block is left.

    Args:
        target: a diffusers pipeline, whose denoiser is controlled and nothing else, or any module with attention
            layers in it, compiled or not.
        circulation: the settings. alpha and beta of shape (batch, 1) or (batch, heads) count the images of the call;
            the blocks that guidance adds to the denoiser's batch get the same.
        layers: which layers, as in `select_layers`: `"mid"`, `"up_blocks.1.*"`, `"re:…"`, `"0.2-0.6"`, lists of these.
        start, stop: the part of the schedule during which to act; reading the timestep costs one wait for the device
            per denoiser forward, unless it is the whole schedule.

    Raises:
        TypeError, ValueError: before anything is attached: an unusable target, pattern or window.
        SilentControlError: layers that were chosen attended out of reach; in the first forward, or on leaving if there
            was none.
        FloatingPointError: a controlled layer gave a value that is not finite; found at the end of the denoiser's
            forward, at the cost of one reduction per layer and one wait for the device.

    Example:
        >>> with control(pipe, Circulation(1.05, 5), layers="up", stop=0.5) as handle:   # doctest: +SKIP
        ...     image = pipe("a red seven").images[0]
        >>> print(handle.summary())                                                     # doctest: +SKIP
    """
    handle = Handle(target, circulation, layers, start, stop)
    try:
        yield handle
    except BaseException:
        handle._undo()
        raise
    handle.close()


def enable(
    target: object, circulation: Circulation, *, layers: Selector = None, start: float = 0.0, stop: float = 1.0
) -> Handle:
    """Control the self-attention of a pipeline or module until `disable`; arguments and errors as for `control`."""
    handle = Handle(target, circulation, layers, start, stop)
    for root in find_denoisers(target).values():
        _enabled.setdefault(root, []).append(handle)
    return handle


def disable(target: object) -> None:
    """Undo one `enable`, given its handle, or all of them on a pipeline or module.

    Raises:
        ValueError: if nothing is enabled there.
        SilentControlError: if nothing was generated in between.
    """
    if isinstance(target, Handle):
        handles = [target] if target.open else []
    else:
        found = (_enabled.get(root, []) for root in find_denoisers(target).values())
        handles = list(dict.fromkeys(handle for some in found for handle in some))
    if not handles:
        raise ValueError(f"symskew: nothing is enabled on this {type(target).__name__}.")
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.close)


_enabled: weakref.WeakKeyDictionary[nn.Module, list[Handle]] = weakref.WeakKeyDictionary()


class Handle:
    """A control at work: the layers it was put on, and what has happened there so far."""

    def __init__(self, target: object, circulation: Circulation, layers: Selector, start: float, stop: float) -> None:
        if not isinstance(circulation, Circulation):
            raise TypeError(f"symskew: expected a Circulation, got {type(circulation).__name__}.")
        check_window(start, stop)
        denoisers = find_denoisers(target)
        prefixes = {name: f"{name}." if len(denoisers) > 1 else "" for name in denoisers}
        found = {name: find_layers(root, prefixes[name]) for name, root in denoisers.items()}
        self.layers = select_layers([layer for some in found.values() for layer in some], layers)
        """The layers that were chosen, in the order they run."""
        self._sessions = []
        for name, root in denoisers.items():
            window = Window(root, getattr(target, "scheduler", None), start, stop)
            chosen = [layer for layer in self.layers if layer in found[name]]
            if chosen:
                self._sessions.append(_Arm(root, [_ControlTap(layer, circulation) for layer in chosen], window))
        self._stack = ExitStack()
        with ExitStack() as stack:
            for session in self._sessions:
                stack.enter_context(session)
            self._stack = stack.pop_all()
        self.open = True

    def summary(self) -> Summary:
        """One row per layer; heads, head_dim and tokens as last seen, None before that."""
        rows = []
        for tap in itertools.chain.from_iterable(session.taps for session in self._sessions):
            heads, head_dim, tokens = tap.shape or (tap.layer.heads, None, None)
            rows.append(Row(tap.layer.name, tap.layer.stage, heads, head_dim, tokens, tap.calls, tap.backend))
        return Summary(rows)

    def close(self) -> None:
        """Restore the model; SilentControlError if nothing was generated since the control began."""
        if not self.open:
            return
        self._undo()
        if all(tap.cross or not tap.reached for session in self._sessions for tap in session.taps):
            forwards = sum(session.forwards for session in self._sessions)
            raise SilentControlError(
                "symskew: the control ended without having touched anything: "
                + ("no step of the generation lay in its window." if forwards else "nothing was generated under it.")
            )

    def _undo(self) -> None:
        self.open = False
        for handles in _enabled.values():
            if self in handles:
                handles.remove(self)
        self._stack.close()
        for session in self._sessions:
            session.collect()


class _ControlTap(Tap):
    """Replaces the attention of one layer by its circulation."""

    def __init__(self, layer: Layer, circulation: Circulation) -> None:
        super().__init__(layer)
        self.attends = not circulation.is_identity
        self.reached = False
        self.acted = False
        self.peak: Tensor | None = None
        self._batch = max((v.shape[0] for v in _tensors(circulation) if v.ndim == 2), default=1)
        # One set of settings for each number of blocks guidance may stack: made now, since making one looks at numbers,
        # which compiled code cannot.
        self._tiled = {blocks: _tile(circulation, blocks) for blocks in range(1, 5)} if self._batch > 1 else {}
        self._plain = circulation
        # Numbers would be compiled into the graph, one graph for each; tensors of one number are not.
        self._traced = {blocks: _as_tensors(some) for blocks, some in (self._tiled or {1: circulation}).items()}

    def attend(self, call: Call, inner: Callable[[], Tensor]) -> Tensor:
        self.acted = True
        circulation = self._settings(call.q.shape[0])
        x = call.x() if circulation.needs_x else None
        try:
            out = circulate(
                call.q, call.k, call.v, circulation, x=x, mask=call.mask, scale=call.scale, causal=call.causal
            )
        except ValueError as error:
            raise ValueError(f"{error} (at {self.layer.name})") from error
        # Largest magnitude: not finite if any value is not, in one pass and without a temporary.
        self.peak = torch.linalg.vector_norm(out.detach(), ord=float("inf"))
        return out

    def _settings(self, rows: int) -> Circulation:
        blocks, rest = divmod(rows, self._batch)
        if rest:
            raise ValueError(
                f"symskew: alpha or beta is given for {self._batch} samples, but {self.layer.name} attends for {rows}, "
                f"which is no multiple of it; give one row per image of the call, or (1, heads) for all."
            )
        if torch.compiler.is_compiling():
            return self._traced[blocks if self._tiled else 1]
        if not self._tiled:
            return self._plain
        if blocks not in self._tiled:
            self._tiled[blocks] = _tile(self._plain, blocks)
        return self._tiled[blocks]

    def collect(self) -> None:
        self.reached |= self.seen
        self.calls += self.acted or (self.seen and not self.attends)
        self.seen = self.acted = False


def _tensors(circulation: Circulation) -> list[Tensor]:
    return [value for value in (circulation.alpha, circulation.beta) if isinstance(value, Tensor)]


def _tile(circulation: Circulation, blocks: int) -> Circulation:
    """Guidance stacks blocks of the whole batch, [unconditional, conditional]: repeat rows block after block."""

    def tile(value: float | Tensor) -> float | Tensor:
        if isinstance(value, Tensor) and value.ndim == 2 and value.shape[0] > 1:
            return value.repeat(blocks, 1)
        return value

    return dataclasses.replace(circulation, alpha=tile(circulation.alpha), beta=tile(circulation.beta))


def _as_tensors(circulation: Circulation) -> Circulation:
    def tensor(value: float | Tensor) -> Tensor:
        return value if isinstance(value, Tensor) else torch.tensor(float(value))

    return dataclasses.replace(circulation, alpha=tensor(circulation.alpha), beta=tensor(circulation.beta))


class _Arm(Session):
    """A control on one denoiser: acts within a window, and makes sure that it does."""

    taps: list[_ControlTap]

    def __init__(self, root: nn.Module, taps: list[_ControlTap], window: Window) -> None:
        super().__init__(root, taps)
        self.window = window
        self.forwards = 0
        self.verified = False
        self._time: Any = None
        self._activate(window.whole)

    def _activate(self, active: bool) -> None:
        for tap in self.taps:
            tap.active = active

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.collect()  # what a forward that was broken off has left behind
        self._time = self.window.time(args, kwargs)
        self._activate(self.window.contains(self._time))

    def after(self) -> None:
        self.forwards += 1
        active, peaks = self.taps[0].active, {tap: tap.peak for tap in self.taps if tap.peak is not None}
        self.collect()
        if active and not self.verified:
            self._verify()
            self.verified = True
        if peaks:
            finite = torch.stack([peak.float() for peak in peaks.values()]).isfinite().tolist()
            if not all(finite):
                names = [tap.layer.name for tap in itertools.compress(peaks, (not good for good in finite))]
                self._report(names)

    def collect(self) -> None:
        for tap in self.taps:
            tap.collect()
            tap.peak = None

    def _verify(self) -> None:
        missed = [tap.layer for tap in self.taps if not (tap.reached or tap.cross)]
        if missed or all(tap.cross for tap in self.taps):
            raise SilentControlError(out_of_reach(missed or [tap.layer for tap in self.taps], len(self.taps)))

    def _report(self, names: list[str]) -> None:
        time = self._time.double().max().item() if isinstance(self._time, Tensor) else self._time
        raise FloatingPointError(
            f"symskew: the controlled attention gave values that are not finite, first at {names[0]} "
            f"({len(names)} of {len(self.taps)} layers), timestep {time}: half precision overflowed, or its input was "
            "not finite to begin with; try bfloat16 or float32, smaller alpha or beta, or compare without control."
        )
