"""The tap that puts circulated attention in the place of a layer's own, and the session that makes sure it does."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from symskew.circulate import Circulation, circulated
from symskew.layers import Layer
from symskew.schedule import Window
from symskew.seam import Call
from symskew.silence import SilentControlError
from symskew.vigilance import Sentry, Watch, guidance_blocks


class Settings:
    """A circulation for every number of blocks that guidance may stack, eager and traced, shared by all layers."""

    def __init__(self, circulation: Circulation) -> None:
        self.plain = circulation
        tensors = [value for value in (circulation.alpha, circulation.beta) if isinstance(value, Tensor)]
        self.batch = max((value.shape[0] for value in tensors if value.ndim == 2), default=1)
        # Made now, since making one looks at its numbers, which compiled code cannot.
        self.tiled = {blocks: _tile(circulation, blocks) for blocks in (1, 2, 3, 4)} if self.batch > 1 else {}
        # Numbers would be compiled into the graph, one graph for each; tensors of one number are not.
        self.traced = {blocks: _as_tensors(some) for blocks, some in (self.tiled or {1: circulation}).items()}
        self.guided: int | None = None
        """How many blocks the pipeline's guidance stacks, if it says so."""

    def of(self, rows: int, layer: Layer) -> Circulation:
        """The settings for a call over this many rows: blocks of the whole batch, [unconditional, conditional]."""
        compiling, blocks = torch.compiler.is_compiling(), 1
        if self.tiled:
            if rows % self.batch:
                raise ValueError(
                    f"symskew: alpha or beta is given for {self.batch} samples, but {layer.name} attends for {rows}, "
                    f"which is no multiple of it; give one row per image of the call, or (1, heads) for all."
                )
            blocks = int(rows // self.batch)
            if self.guided is not None and blocks > self.guided:  # fewer in the layers of PAG
                raise ValueError(
                    f"symskew: alpha or beta is given for {self.batch} samples, but {layer.name} attends for {rows} "
                    f"rows, {rows // self.guided} images in {self.guided} block(s) of guidance; give one row per image "
                    "(prompts × num_images_per_prompt, those of one prompt together), or (1, heads) for all."
                )
            if blocks not in self.tiled and not compiling:
                self.tiled[blocks] = _tile(self.plain, blocks)
        return self.traced[blocks] if compiling else self.tiled.get(blocks, self.plain)


def _tile(circulation: Circulation, blocks: int) -> Circulation:
    def tile(value: float | Tensor) -> float | Tensor:
        if isinstance(value, Tensor) and value.ndim == 2 and value.shape[0] > 1:
            return value.repeat(blocks, 1)
        return value

    return dataclasses.replace(circulation, alpha=tile(circulation.alpha), beta=tile(circulation.beta))


def _as_tensors(circulation: Circulation) -> Circulation:
    def tensor(value: float | Tensor) -> Tensor:
        return value if isinstance(value, Tensor) else torch.tensor(float(value))

    # A beta of one saves half of the work, which only a number can tell.
    beta = circulation.beta if circulation.unblended else tensor(circulation.beta)
    gate = circulation.gate
    if gate is not None and not isinstance(gate.threshold, Mapping):
        gate = dataclasses.replace(gate, threshold=tensor(gate.threshold))
    return dataclasses.replace(circulation, alpha=tensor(circulation.alpha), beta=beta, gate=gate)


class Steer(Sentry):
    """Replaces the attention of one layer by its circulation."""

    def __init__(self, layer: Layer, settings: Settings) -> None:
        super().__init__(layer)
        self.settings = settings
        self.idle = settings.plain.is_identity
        self.peak: Tensor | None = None

    def attend(self, call: Call, inner: Callable[[], Tensor]) -> Tensor:
        """The circulated attention, whatever would be there without."""
        self.acted = True
        if self.idle:
            return call.vanilla()
        circulation = self.settings.of(call.q.shape[0], self.layer)
        x = call.x() if circulation.needs_x else None
        try:
            result = circulated(
                call.q, call.k, call.v, circulation, x=x, mask=call.mask, scale=call.scale, causal=call.causal
            )
        except ValueError as error:
            raise ValueError(f"{error} (at {self.layer.name})") from error
        call.circulation, call.circulated = circulation, result
        self.note(result.out)
        return result.out

    def note(self, out: Tensor) -> None:
        """Remember the largest magnitude: not finite if any value is not, in one pass and without a temporary."""
        peak = torch.linalg.vector_norm(out.detach(), ord=float("inf"))
        # A step may take several passes, as under a weak branch.
        self.peak = peak if self.peak is None else torch.maximum(self.peak, peak)

    def collect(self) -> None:
        """Take stock, and let go of what was stored."""
        super().collect()
        self.peak = None


class Arm(Watch[Steer]):
    """A control on one denoiser: acts within a window, and makes sure that it does."""

    silence = SilentControlError
    purpose = "the control would have done nothing there"

    def __init__(self, root: nn.Module, taps: list[Steer], window: Window, target: object) -> None:
        super().__init__(root, taps)
        self._target = target
        self.window = window
        self._time: Any = None
        self.activate(window.whole)

    def wants(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Act on this forward if its step lies within the window."""
        guided = guidance_blocks(self._target)
        for tap in self.taps:
            tap.settings.guided = guided
        self._time = self.window.clock.time(args, kwargs)
        return self.window.contains(self._time)

    def finish(self) -> None:
        """Check that all values of the forward are finite."""
        peaks = {tap: tap.peak for tap in self.taps if tap.peak is not None}
        if not peaks:
            return
        # A model may be spread over several devices.
        device = next(iter(peaks.values())).device
        finite = torch.stack([peak.float().to(device) for peak in peaks.values()]).isfinite().tolist()
        if not all(finite):
            names = [tap.layer.name for tap in itertools.compress(peaks, (not good for good in finite))]
            raise FloatingPointError(
                f"symskew: the controlled attention gave values that are not finite, first at {names[0]} ({len(names)} "
                f"of {len(self.taps)} layers), {self.window.describe(self._time)}: half precision overflowed, or its "
                "input was not finite to begin with; try bfloat16 or float32, smaller alpha or beta, or compare "
                "without control."
            )
