"""The tap that puts circulated attention in the place of a layer's own, and the session that makes sure it does."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from symskew.circulate import Circulation, circulate
from symskew.layers import Layer
from symskew.schedule import Window
from symskew.seam import Call, Tap
from symskew.session import Session
from symskew.silence import SilentControlError, out_of_reach


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
    beta = circulation.beta if circulation.replaces else tensor(circulation.beta)
    return dataclasses.replace(circulation, alpha=tensor(circulation.alpha), beta=beta)


class Steer(Tap):
    """Replaces the attention of one layer by its circulation."""

    def __init__(self, layer: Layer, settings: Settings) -> None:
        super().__init__(layer)
        self.settings = settings
        self.idle = settings.plain.is_identity
        self.reached = False
        self.acted = False
        self.peak: Tensor | None = None

    def attend(self, call: Call, inner: Callable[[], Tensor]) -> Tensor:
        """The circulated attention, whatever would be there without."""
        self.acted = True
        if self.idle:
            return call.vanilla()
        circulation = self.settings.of(call.q.shape[0], self.layer)
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

    def collect(self) -> None:
        """Note whether the layer was reached, and count the forward if this control made its attention."""
        self.reached |= self.seen
        self.calls += self.acted or (self.seen and self.idle)
        self.entered = self.seen = self.acted = False


class Arm(Session):
    """A control on one denoiser: acts within a window, and makes sure that it does."""

    taps: list[Steer]

    def __init__(self, root: nn.Module, taps: list[Steer], window: Window, target: object) -> None:
        super().__init__(root, taps)
        self._target = target
        self.window = window
        self.forwards = 0
        self.acted = False
        self.verified = False
        self._time: Any = None
        self._activate(window.whole)

    def _activate(self, active: bool) -> None:
        for tap in self.taps:
            tap.active = active

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Act on this forward if its step lies within the window."""
        self.collect()  # what a forward that was broken off has left behind
        self.taps[0].settings.guided = _guidance_blocks(self._target)
        self._time = self.window.time(args, kwargs)
        self._activate(self.window.contains(self._time))

    def after(self) -> None:
        """Verify that every layer was reached, the first time, and that all values are finite, each time."""
        self.forwards += 1
        active, peaks = self.taps[0].active, {tap: tap.peak for tap in self.taps if tap.peak is not None}
        lost = [tap.layer for tap in self.taps if tap.entered and not (tap.seen or tap.cross)]
        self.collect()
        # A processor or kernel was changed on the way; unless it is a cache that spared the layer its work.
        if lost and any(tap.reached for tap in self.taps) and not _caches(self.root):
            raise SilentControlError(out_of_reach(lost, len(self.taps)))
        self.acted |= active
        # A cache may leave layers out of this forward; those are looked at again after the next, and on leaving.
        if active and not self.verified and not (self.missed() and _caches(self.root)):
            self.verify()
            self.verified = True
        if peaks:
            # A model may be spread over several devices.
            device = next(iter(peaks.values())).device
            finite = torch.stack([peak.float().to(device) for peak in peaks.values()]).isfinite().tolist()
            if not all(finite):
                names = [tap.layer.name for tap in itertools.compress(peaks, (not good for good in finite))]
                self._report(names)

    def settle(self) -> None:
        """On leaving: check what was run piece by piece, by calls that went past the root."""
        if not self.forwards and any(tap.reached or tap.seen for tap in self.taps):
            self.after()
        self.verify()

    def collect(self) -> None:
        """Take stock of what the layers have stored."""
        for tap in self.taps:
            tap.collect()
            tap.peak = None

    def missed(self) -> list[Layer]:
        """The layers never reached so far, but for those that turned out to attend to something else."""
        missed = [tap.layer for tap in self.taps if not (tap.reached or tap.cross)]
        return missed if any(tap.reached for tap in self.taps) else [tap.layer for tap in self.taps]

    def verify(self) -> None:
        """SilentControlError if there was a forward to act on, and layers were not reached."""
        if self.acted and (missed := self.missed()):
            raise SilentControlError(out_of_reach(missed, len(self.taps)))

    def _report(self, names: list[str]) -> None:
        raise FloatingPointError(
            f"symskew: the controlled attention gave values that are not finite, first at {names[0]} ({len(names)} of "
            f"{len(self.taps)} layers), {self.window.describe(self._time)}: half precision overflowed, or its input "
            "was not finite to begin with; try bfloat16 or float32, smaller alpha or beta, or compare without control."
        )


def _guidance_blocks(target: object) -> int | None:
    """How many blocks of the batch this call's guidance stacks, where the pipeline says so; [unconditional, …]."""
    if isinstance(target, nn.Module) or (guided := getattr(target, "do_classifier_free_guidance", None)) is None:
        return None
    return 1 + bool(guided) + bool(getattr(target, "do_perturbed_attention_guidance", False))


def _caches(root: nn.Module) -> bool:
    """Whether something on the denoiser remembers results from one step to the next."""
    registries = (getattr(module, "_diffusers_hook", None) for module in root.modules())
    return any(hook._is_stateful for registry in registries if registry for hook in registry.hooks.values())
