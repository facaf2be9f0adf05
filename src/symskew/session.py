"""Hooks in, hooks out: taps on the layers of one denoiser for the length of a session.

Every tapped attention module carries a single diffusers hook, whatever the number of taps.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from symskew.interface import cached_tokens
from symskew.layers import context_reader
from symskew.seam import Frame, Mode, Tap, drop_modes, local, watch_backends, watching
from symskew.uninterrupted import uninterrupted

if TYPE_CHECKING:
    from typing_extensions import Self

_HOOK = "symskew"


class _Hook:
    """The hook of one attention module: opens a frame around its forward for the taps that are active."""

    fn_ref: Any

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.taps: list[Tap] = []
        self.read = context_reader(module)
        self.below = _below(module)
        self.installed: Any = None
        self.running: Any = None

    def __reduce__(self) -> Any:
        # Hooks find their module by reference.
        raise TypeError(
            "symskew: a model cannot be copied or pickled while it is controlled, since its copy would run the "
            "layers of the original; leave the control first (save_pretrained works at any time)."
        )

    def keep(self, module: nn.Module) -> None:
        """Get back into the chain of forwards, if whoever removed something from below has cut this hook out."""
        if self.fn_ref.forward is not self.running:
            self.fn_ref.original_forward, self.fn_ref.forward = self.fn_ref.forward, self.running
        if module.forward in self.below:
            self.fn_ref.original_forward, module.forward = module.forward, self.installed

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        forward = self.fn_ref.original_forward
        taps = [tap for tap in self.taps if tap.active]
        if not taps or _is_skipped(module):
            return forward(*args, **kwargs)
        for tap in taps:
            tap.enter()
        out = self._watched(module, taps, args, kwargs)
        for tap in taps:
            tap.entered = True
        return out

    def _watched(self, module: nn.Module, taps: list[Tap], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        forward = self.fn_ref.original_forward
        hidden, context = self.read(args, kwargs)
        if all(tap.idle for tap in taps):
            for tap in taps:
                tap.seen, tap.backend = True, "untouched"
            return forward(*args, **kwargs)
        before = local.frame
        try:
            local.frame = Frame(module, taps, hidden, context, cached_tokens(module, args, kwargs))
            # The dispatcher's backends are watched already, and a function mode would keep torch.compile from making
            # one graph of the models that use them.
            if watching() and hasattr(getattr(module, "processor", None), "_attention_backend"):
                return forward(*args, **kwargs)
            with Mode():
                return forward(*args, **kwargs)
        finally:
            local.frame = before


def _below(module: nn.Module) -> list[Any]:
    """The forwards the module has had so far, as far as each says what it wraps."""
    found: list[Any] = [type(module).forward.__get__(module)]
    forward: Any = module.forward
    while forward is not None:
        found.append(forward)
        forward = getattr(forward, "__wrapped__", None)
    return found


def _is_skipped(module: nn.Module) -> bool:
    """Whether a guider of diffusers has the scores of this attention skipped, in a pass that is to be a worse one."""
    registry: Any = module._diffusers_hook
    return any(getattr(hook, "skip_attention_scores", False) for hook in registry.hooks.values())


@functools.cache
def _hook_type() -> type[_Hook]:
    from diffusers.hooks.hooks import ModelHook

    return type("SymskewHook", (_Hook, ModelHook), {})


def _hook(tap: Tap) -> Any:
    registry: Any = tap.layer.module._diffusers_hook
    return registry.hooks[_HOOK]


def _attach(tap: Tap) -> None:
    from diffusers.hooks.hooks import HookRegistry

    module = tap.layer.module
    registry = HookRegistry.check_if_exists_or_initialize(module)
    hook: Any = registry.get_hook(_HOOK)
    if hook is None:
        hook = _hook_type()(module)
        registry.register_hook(hook, _HOOK)
        hook.installed, hook.running = module.forward, hook.fn_ref.forward
    hook.keep(module)
    # A new list each time: a forward in another thread may be going through the old one.
    hook.taps = sorted([*hook.taps, tap], key=lambda tap: tap.rank)


def _detach(tap: Tap) -> None:
    module = tap.layer.module
    registry: Any = module._diffusers_hook
    hook = _hook(tap)
    hook.keep(module)
    hook.taps = [other for other in hook.taps if other is not tap]
    above = next(iter(registry._fn_refs[registry._hook_order.index(_HOOK) + 1 :]), None)
    over = module.forward if above is None else above.original_forward or above.forward
    # Below a wrapper of someone else's it stays, asleep, and is used again by the next session.
    if hook.taps or over is not hook.installed:
        return
    forward = above and above.forward
    registry.remove_hook(_HOOK, recurse=False)
    if above is not None and above.original_forward is not None:  # or the removal would cut it off too
        above.forward, above.original_forward = forward, hook.fn_ref.original_forward
    if module.forward is hook.installed:
        module.forward = hook.fn_ref.original_forward
    if not registry.hooks and getattr(module.forward, "__func__", None) is type(module).forward:
        del module.forward, module._diffusers_hook


def _refresh(root: nn.Module) -> None:
    # The registry of the root keeps a list of those below it, for the caches that find each other through it.
    registry = getattr(root, "_diffusers_hook", None)
    if registry is not None and hasattr(registry, "invalidate_child_registries_cache"):
        registry.invalidate_child_registries_cache()


class Session:
    """Taps on the layers of one denoiser, from `__enter__` to `__exit__`; told of each of its forwards.

    Subclasses set `tap.active` in `before`, and read what was collected in `after`, which only a forward that ended
    well reaches.
    """

    def __init__(self, root: nn.Module, taps: Sequence[Tap]) -> None:
        self.root = root
        self.taps = list(taps)
        self._stack = ExitStack()

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Called before each forward of the denoiser, with its arguments."""

    def after(self) -> None:
        """Called after each forward of the denoiser."""

    def over(self) -> None:
        """Called when a forward of the denoiser is over, well or not; unless Ctrl-C was what ended it."""

    def _before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        local.frame = None  # unless Ctrl-C came when a layer was all but done
        drop_modes()
        for tap in self.taps:
            _hook(tap).keep(tap.layer.module)
        self.before(args, kwargs)

    def __enter__(self) -> Self:
        # Plain module hooks on the root: offloading re-wraps `forward` between generations, and what sits there is
        # lost. Compiled code must not look into them, they are where counting and waiting for the device is done.
        before: Any = torch.compiler.disable(self._before)
        after: Any = torch.compiler.disable(lambda *_: self.after())
        over: Any = torch.compiler.disable(lambda *_: self.over())
        with uninterrupted(), ExitStack() as stack:
            stack.enter_context(watch_backends())
            stack.callback(_refresh, self.root)
            for tap in self.taps:
                _attach(tap)
                stack.callback(_detach, tap)
            _refresh(self.root)
            stack.callback(self.root.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(self.root.register_forward_hook(after).remove)
            stack.callback(self.root.register_forward_hook(over, always_call=True).remove)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            if local.frame is None:  # no layer is running
                drop_modes()
            self._stack.close()
