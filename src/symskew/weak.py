"""Guidance away from a weaker self: one more pass of the conditional branch, with its attention perturbed.

    guided      u + ω·(c − u) + s·(c − w)        w: the conditional prediction under perturbed self-attention

The pipeline keeps its own guidance, u + ω·(c − u), and is handed c + (s/ω)·(c − w) for c. With identity attention this
is perturbed attention guidance (Ahn et al. 2024, ECCV), with blurred queries smoothed energy guidance (Hong 2024,
NeurIPS 37). Pipelines of Modular Diffusers run the passes themselves: `symskew.guider` makes one of them weak.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from symskew.algebra import accurate
from symskew.grid import Grid, find_grids
from symskew.layers import Layer
from symskew.perturbation import Perturbation
from symskew.seam import Call, Tap
from symskew.selection import Selector, choose_layers
from symskew.silence import SilentControlError
from symskew.steer import Steer
from symskew.uninterrupted import uninterrupted
from symskew.vigilance import Sentry, Watch, caches, guidance_blocks

if TYPE_CHECKING:
    from typing_extensions import Self

FAMILIES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline")
"""Pipelines known to guide by u + ω·(c − u), with the rows of u before those of c in one batch."""

_CACHED = "a cache remembers what the denoiser computed, and would mistake the weak pass for a step"


def away(conditional: Tensor, weak: Tensor, scale: float) -> Tensor:
    """What guidance away from a weaker self adds to a prediction, scale·(c − w), in float32 or better."""
    return scale * (accurate(conditional) - accurate(weak))


@contextmanager
def weaken(pipe: object, scale: float, perturbation: Perturbation, *, layers: Selector = "mid") -> Iterator[None]:
    """Guide an unmodified pipeline away from a weaker self, for the length of a `with` block; one more pass per step.

    The weak pass is a branch of its own: other controls act in it too, except in its own layers, but not those that are
    for one branch, by `Circulation(branch=…)`, since it is neither. A diagnosis does not see it.

    Args:
        pipe: one of `FAMILIES`, with or without classifier-free guidance; without, the result is c + s·(c − w).
        scale: s, above 0.
        perturbation: `identity`, `Blur(sigma)` or `Circulating(circulation)`.
        layers: where attention is perturbed, as in `select_layers`.

    Raises:
        TypeError, ValueError: before anything is attached, another pipeline, a pattern that picks nothing, a scale that
            is none; in the first forward, guidance_rescale, layers that are skipped in guidance, and caches, under
            which the formula above would not hold.
        SilentControlError: chosen layers attended out of reach, or nothing was generated.
    """
    check_weaken(pipe, scale)
    sessions = [_WeakBranch(root, some, pipe, scale, perturbation) for root, some in choose_layers(pipe, layers)]
    with kept(sessions):
        yield


def check_weaken(pipe: object, scale: float) -> None:
    """Refuse what `weaken` cannot do."""
    if type(pipe).__name__ not in FAMILIES:
        raise TypeError(
            f"symskew: how {type(pipe).__name__} guides is not known, so it can have no further branch; known are "
            f"{', '.join(FAMILIES)}."
        )
    check_scale(scale)


def check_scale(scale: float) -> None:
    """Refuse a scale that is none."""
    if not (isinstance(scale, int | float) and math.isfinite(scale) and scale > 0):
        raise ValueError(f"symskew: the scale of a weak branch must be a number above 0, got {scale!r}.")


@contextmanager
def kept(sessions: Sequence[Watch[Any]]) -> Iterator[None]:
    """Sessions at work for a block, which must have reached their layers by its end."""
    try:
        with ExitStack() as stack:
            for session in sessions:
                stack.enter_context(session)
            yield
            for session in sessions:
                session.settle()
        if not any(tap.reached for session in sessions for tap in session.taps):
            raise SilentControlError("symskew: nothing was generated under what was attached, so it did nothing.")
    finally:
        for session in sessions:
            session.collect()


class _Weaken(Sentry):
    """Perturbs the attention of one layer, in the weak pass, whatever would be there without."""

    rank = 1

    def __init__(self, layer: Layer, perturbation: Perturbation) -> None:
        super().__init__(layer)
        self.active = False
        self.perturbation = perturbation
        self.grids: list[Grid] = []

    def attend(self, call: Call, inner: Callable[[], Tensor]) -> Tensor:
        """The perturbed attention."""
        self.acted = True
        return self.perturbation(call, self.layer, self.grids)


class _Weakened(Watch[_Weaken]):
    """The layers of one denoiser that are perturbed in a weak pass."""

    silence = SilentControlError
    purpose = "the weak branch would have been as good as the other there"

    def __init__(self, root: nn.Module, layers: Sequence[Layer], perturbation: Perturbation) -> None:
        super().__init__(root, [_Weaken(layer, perturbation) for layer in layers])

    def __enter__(self) -> Self:
        if any(isinstance(tap, _Weaken) for tap in _taps_on(self.root)):
            raise ValueError("symskew: there is a weak branch on this pipeline already; leave it first.")
        return super().__enter__()

    def place(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Tell the layers where their tokens are, given the arguments of the denoiser's forward."""
        grids = find_grids(self.root, args, kwargs)
        for tap in self.taps:
            tap.grids = grids


class WeakPass(_Weakened):
    """Makes the next forward of a denoiser a weak one, for whoever runs the passes; over when that forward is.

    Nothing but a hook on the denoiser waits for it, and only `caller`, the call that announced it, may run it: where
    that broke off before, the next forward is someone else's, and is left alone.
    """

    def __init__(self, root: nn.Module, layers: Sequence[Layer], perturbation: Perturbation, caller: FrameType) -> None:
        super().__init__(root, layers, perturbation)
        self._caller = caller

    def __enter__(self) -> Self:
        begin: Any = torch.compiler.disable(self._begin)
        with uninterrupted():
            self._stack.callback(self.root.register_forward_pre_hook(begin, with_kwargs=True).remove)
        return self

    def _begin(self, root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.__exit__()
        if not _is_running(self._caller):
            return
        with uninterrupted():
            super().__enter__()
            self._before(root, args, kwargs)

    def over(self) -> None:
        """That was it."""
        super().over()
        self.__exit__()

    def wants(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """The forward that begins is the weak one; unless Ctrl-C broke that off, unseen by hooks: this is another."""
        if self.taps[0].active:
            self.__exit__()
            return False
        if caches(self.root):
            raise ValueError(f"symskew: {type(self.root).__name__} cannot have a weak pass: {_CACHED}; leave one out.")
        self.place(args, kwargs)
        return True


class _WeakBranch(_Weakened):
    """The weak pass after each forward of one denoiser, and what becomes of its output."""

    def __init__(
        self, root: nn.Module, layers: Sequence[Layer], pipe: Any, scale: float, perturbation: Perturbation
    ) -> None:
        super().__init__(root, layers, perturbation)
        self._pipe, self._scale = pipe, scale

    def __enter__(self) -> Self:
        super().__enter__()
        # Before the other sessions' hooks: to them it is part of the forward, not another one.
        branch: Any = torch.compiler.disable(self._branch)
        handle = self.root.register_forward_hook(branch, prepend=True, with_kwargs=True)
        self._stack.callback(handle.remove)
        return self

    def wants(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """The ordinary pass stays ordinary."""
        return False

    def finish(self) -> None:
        """The weak pass is over."""
        self.activate(False)

    def _branch(self, root: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        blocks = self._check(kwargs, output)
        conditional, rows = output[0], output[0].shape[0]
        if blocks == 2:
            args, kwargs = (_last_half(part, rows) for part in (args, kwargs))
            conditional = conditional[rows // 2 :]
        self.place(args, kwargs)
        aside = [tap for tap in _taps_on(root) if tap.active and (tap.rank >= _Weaken.rank or _is_of_a_branch(tap))]
        for tap in aside:
            tap.active = False
        self.activate(True)
        try:
            # Past the hooks of the root: nobody is to take this for another step.
            weak = root.forward(*args, **kwargs)[0]
        finally:
            for tap in aside:
                tap.active = True
        guidance = float(self._pipe.guidance_scale) if blocks == 2 else 1.0
        guided = (accurate(conditional) + away(conditional, weak, self._scale / guidance)).to(conditional.dtype)
        whole = guided if blocks == 1 else torch.cat([output[0][: rows // 2], guided])
        return (whole, *output[1:])

    def _check(self, kwargs: dict[str, Any], output: Any) -> int:
        pipe, problem = self._pipe, ""
        blocks = guidance_blocks(pipe) or 1
        if not isinstance(output, tuple):
            problem = f"its denoiser was called with return_dict=True and gave a {type(output).__name__}"
        elif getattr(pipe, "guidance_rescale", 0) > 0:
            problem = f"guidance_rescale={pipe.guidance_rescale:g} would rescale by a branch it does not know"
        elif kwargs.get("skip_layers") is not None:
            problem = "skip_guidance_layers adds a branch of its own"
        elif output[0].shape[0] % blocks:
            problem = f"its denoiser was given {output[0].shape[0]} rows under guidance, which is no multiple of 2"
        elif caches(self.root):
            problem = _CACHED
        if problem:
            raise ValueError(f"symskew: {type(pipe).__name__} cannot have a weak branch: {problem}; leave one out.")
        return blocks


def _is_running(call: FrameType) -> bool:
    """Whether this thread is within a call."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame is not call:
        frame = frame.f_back
    return frame is call


def _taps_on(root: nn.Module) -> Iterator[Tap]:
    """Every tap on the layers of one denoiser, of whatever session."""
    registries = (getattr(module, "_diffusers_hook", None) for module in root.modules())
    for hook in (hook for registry in registries if registry for hook in registry.hooks.values()):
        yield from getattr(hook, "taps", ())


def _is_of_a_branch(tap: Tap) -> bool:
    return isinstance(tap, Steer) and tap.share is not None


def _last_half(value: Any, rows: int) -> Any:
    """The conditional rows of whatever has all of them."""
    if isinstance(value, Tensor):
        return value[rows // 2 :] if value.ndim and value.shape[0] == rows else value
    if isinstance(value, dict):
        return {name: _last_half(part, rows) for name, part in value.items()}
    return type(value)(_last_half(part, rows) for part in value) if isinstance(value, list | tuple) else value
