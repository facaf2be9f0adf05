"""Control the self-attention of a pipeline: `with control(pipe, Circulation(1.05, 5)): pipe(...)`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import NamedTuple

from symskew.circulate import Circulation
from symskew.layers import find_denoisers
from symskew.schedule import Window, check_window
from symskew.selection import Selector, choose_layers
from symskew.silence import SilentControlError
from symskew.steer import Arm, Settings, Steer
from symskew.uninterrupted import uninterrupted


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

    Where several controls choose the same layer, the one entered last acts, within its window and on its branch; beyond
    these the one before. Leaving restores what was there before, bit for bit, in whatever order and for whatever reason
    the block is left. A control belongs to the model, not to a thread: whoever runs the model meanwhile runs it
    controlled.

    Args:
        target: a diffusers pipeline, whose denoiser is controlled and nothing else, or any module with attention
            layers in it, compiled or not.
        circulation: the settings. alpha and beta of shape (batch, 1) or (batch, heads) count the samples of the call
            (prompts × num_images_per_prompt, texts × beams), and the blocks that guidance adds to the denoiser's batch
            get the same; of a bare denoiser, any batch that is a multiple.
        layers: which layers, as in `select_layers`: `"mid"`, `"up_blocks.1.*"`, `"re:…"`, `"0.2-0.6"`, lists of these.
        start, stop: the part of the schedule during which to act; reading the timestep costs one wait for the device
            per denoiser forward, unless it is the whole schedule.

    Raises:
        TypeError, ValueError: before anything is attached, an unusable target, pattern or window; in the first forward,
            a window without a step, and what cannot be controlled (a batch of another size than alpha's, dropout).
        SilentControlError: layers that were chosen attended out of reach; in the first forward within the window, or
            on leaving if there was none.
        FloatingPointError: a controlled layer gave a value that is not finite; found at the end of the denoiser's
            forward, at the cost of one reduction per layer and one wait for the device.

    Example:
        >>> with control(pipe, Circulation(1.05, 5), layers="up", stop=0.5) as handle:   # doctest: +SKIP
        ...     image = pipe("a red seven").images[0]
        >>> print(handle.summary())                                                     # doctest: +SKIP
    """
    handle = Handle(target, circulation, layers, start, stop)
    try:
        handle._attach()
        yield handle
        handle.close()
    except BaseException:
        handle._undo()
        raise


def enable(
    target: object, circulation: Circulation, *, layers: Selector = None, start: float = 0.0, stop: float = 1.0
) -> Handle:
    """Control the self-attention of a pipeline or module until `disable`; arguments and errors as for `control`."""
    handle = Handle(target, circulation, layers, start, stop)
    try:
        handle._attach()
        for root in find_denoisers(target).values():
            vars(root).setdefault(_ENABLED, []).append(handle)
        return handle
    except BaseException:
        handle._undo()
        raise


def disable(target: object) -> None:
    """Undo one `enable`, given its handle, or all of them on a pipeline or module.

    Raises:
        ValueError: if nothing is enabled there.
        SilentControlError: if nothing was generated in between.
    """
    if isinstance(target, Handle):
        handles = [target] if target.open else []
    else:
        found = (vars(root).get(_ENABLED, []) for root in find_denoisers(target).values())
        handles = list(dict.fromkeys(handle for some in found for handle in some))
    if not handles:
        raise ValueError(f"symskew: nothing is enabled on this {type(target).__name__}.")
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.close)


_ENABLED = "_symskew_enabled"  # on the denoiser itself, so that a forgotten handle goes when its model goes


class Handle:
    """A control at work: the layers it was put on, and what has happened there so far."""

    def __init__(self, target: object, circulation: Circulation, layers: Selector, start: float, stop: float) -> None:
        if not isinstance(circulation, Circulation):
            raise TypeError(f"symskew: expected a Circulation, got {type(circulation).__name__}.")
        check_window(start, stop)
        self._roots = list(find_denoisers(target).values())
        chosen = choose_layers(target, layers)
        self.layers = [layer for _, some in chosen for layer in some]
        """The layers that were chosen, in the order they run."""
        shared, gate = Settings(circulation), circulation.gate
        self._sessions = []
        for root, some in chosen:
            window = Window(root, lambda: getattr(target, "scheduler", None), start, stop)
            each = [gate and gate.at(layer.name) for layer in some]
            own = [shared if part == gate else Settings(replace(circulation, gate=part)) for part in each]
            taps = [Steer(layer, settings) for layer, settings in zip(some, own, strict=True)]
            self._sessions.append(Arm(root, taps, window, target))
        self.open = False

    def summary(self) -> Summary:
        """One row per layer; heads, head_dim and tokens as last seen, None before that."""
        rows = []
        for tap in itertools.chain.from_iterable(session.taps for session in self._sessions):
            heads, head_dim, tokens = tap.shape or (tap.layer.heads, None, None)
            rows.append(Row(tap.layer.name, tap.layer.stage, heads, head_dim, tokens, tap.calls, tap.backend))
        return Summary(rows)

    def close(self) -> None:
        """Restore the model; SilentControlError if the control was without effect since it began."""
        if not self.open:
            return
        try:
            for session in self._sessions:
                session.settle()
        finally:
            self._undo()
        if not any(tap.reached for session in self._sessions for tap in session.taps):
            forwards = sum(session.forwards for session in self._sessions)
            raise SilentControlError(
                "symskew: the control ended without having touched anything: "
                + (
                    "no step of the generation lay in its window, or no pass was of its branch."
                    if forwards
                    else "nothing was generated under it."
                )
            )

    def _attach(self) -> None:
        with uninterrupted():
            self.open = True
            for session in self._sessions:
                session.__enter__()

    def _undo(self) -> None:
        with uninterrupted():
            self._detach()

    def _detach(self) -> None:
        self.open = False
        for root in self._roots:
            handles = vars(root).get(_ENABLED, [])
            if self in handles:
                handles.remove(self)
                if not handles:
                    delattr(root, _ENABLED)
        for session in reversed(self._sessions):
            session.__exit__()
            session.collect()
