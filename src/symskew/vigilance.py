"""A session that makes sure of itself: what was chosen and not reached is an error, never silence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from symskew.layers import Layer
from symskew.seam import Tap
from symskew.session import Session
from symskew.silence import out_of_reach

_SPARED = (
    "\n  Caches on the denoiser ({}) may have spared them every step that there was to act on: widen the window "
    "(start, stop, every), or take the cache off with model.disable_cache()."
)


class Sentry(Tap):
    """A tap that knows whether its attention ever came by."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.reached = False
        self.acted = False
        self.watch: Watch[Any] | None = None

    def enter(self) -> None:
        """A layer that is run again: what it gave in a call that went past the root is read before."""
        if self.seen and self.watch is not None and not self.watch.running:
            self.watch.hand_on()

    def collect(self) -> None:
        """Note whether the layer was reached, and count the forward if this tap had a part in its attention."""
        self.reached |= self.seen
        self.ran |= self.entered
        self.calls += self.acted or (self.seen and self.idle)
        self.entered = self.seen = self.acted = False


Kind = TypeVar("Kind", bound=Sentry)


class Watch(Session, Generic[Kind]):
    """Taps of which every one must be reached, the first time the denoiser is run with them active.

    Subclasses say whether to act on a forward in `wants`, and what to do after it in `finish`.
    """

    taps: list[Kind]
    silence: type[RuntimeError]
    """What is raised where a layer was out of reach."""
    purpose = ""
    """What would not have happened there, in words."""

    def __init__(self, root: nn.Module, taps: Sequence[Kind]) -> None:
        super().__init__(root, taps)
        for tap in taps:
            tap.watch = self
        self.hand_on: Any = torch.compiler.disable(self._hand_on)
        """() → None, reads what calls past the root have left: before the next one, before a forward, on leaving."""
        self.running = False
        """Whether a forward of the root has begun that is not over, as far as one is told."""
        self.forwards = 0
        self.acted = False
        self.verified = False

    def wants(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether to act on the forward that begins, with the denoiser's arguments."""
        raise NotImplementedError

    def finish(self) -> None:
        """What there is to do after a forward that ended well, or calls past the root, before traces are collected."""

    def activate(self, active: bool) -> None:
        """Have the taps act, or stand aside."""
        for tap in self.taps:
            tap.active = active

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Collect what a forward that Ctrl-C broke off has left behind, and decide on the one that begins."""
        self.hand_on()
        self.running = True
        self.collect()
        self.activate(self.wants(args, kwargs))

    def after(self) -> None:
        """Verify that every layer was reached, the first time, and that none is lost later."""
        self.forwards += 1
        active = self.taps[0].active
        self._read()
        self.acted |= active
        # A cache may leave layers out of this forward; those are looked at again after the next, and on leaving.
        if active and not self.verified and not (self.missed() and caches(self.root)):
            self.verify()
            self.verified = True

    def over(self) -> None:
        """Let go of what a forward has left behind that was broken off."""
        self.collect()
        self.running = False

    def _hand_on(self) -> None:
        if not self.running and any(tap.seen for tap in self.taps):
            self._read()
            self.acted = True

    def settle(self) -> None:
        """On leaving: see that every layer was reached, also those that were run piece by piece, past the root."""
        self.hand_on()
        self.verify()

    def _read(self) -> None:
        # Unless a cache at the very layer spared it its work.
        lost = [tap for tap in self.taps if tap.entered and not (tap.seen or tap.cross or _stateful(tap.layer.module))]
        try:
            self.finish()
        finally:
            self.collect()
        if lost and any(tap.reached for tap in self.taps):  # a processor or kernel was changed on the way
            raise self.silence(out_of_reach(lost, len(self.taps), self.purpose))

    def collect(self) -> None:
        """Take stock of what the layers have stored."""
        for tap in self.taps:
            tap.collect()

    def missed(self) -> list[Kind]:
        """The taps never reached so far, but for those whose layers turned out to attend to something else."""
        missed = [tap for tap in self.taps if not (tap.reached or tap.cross)]
        return missed if any(tap.reached for tap in self.taps) else self.taps

    def verify(self) -> None:
        """The session's own error if there was a forward to act on, and layers were not reached."""
        if self.acted and (missed := self.missed()):
            hint = _SPARED.format(", ".join(names)) if (names := caches(self.root)) else ""
            raise self.silence(out_of_reach(missed, len(self.taps), self.purpose) + hint)


def guidance_branches(target: object) -> tuple[str, ...] | None:
    """The branches that this call's guidance stacks in the denoiser's batch, in order, where the pipeline says so."""
    if isinstance(target, nn.Module) or (guided := getattr(target, "do_classifier_free_guidance", None)) is None:
        return None
    perturbed = bool(getattr(target, "do_perturbed_attention_guidance", False))
    return (*("unconditional",) * bool(guided), "conditional", *("perturbed",) * perturbed)


def guidance_blocks(target: object) -> int | None:
    """How many branches those are."""
    branches = guidance_branches(target)
    return len(branches) if branches else None


def caches(root: nn.Module) -> list[str]:
    """The hooks on the denoiser that remember results from one step to the next, by the names of their classes."""
    hooks = (hook for module in root.modules() for hook in _stateful(module))
    return sorted({type(hook).__name__ for hook in hooks})


def _stateful(module: nn.Module) -> list[Any]:
    registry = getattr(module, "_diffusers_hook", None)
    return [hook for hook in registry.hooks.values() if hook._is_stateful] if registry else []
