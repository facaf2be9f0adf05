"""Attention as torch sees it, without symskew: which module attends, over what, and another answer in its place.

A function mode at the level of torch's own functions, and plain hooks that say which module is running. Nothing here
knows what symskew takes for a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import multi_head_attention_forward, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
SOFTMAX = (torch.softmax, torch.nn.functional.softmax, Tensor.softmax)


@dataclass(eq=False)
class Seen:
    """One attention: the modules that were running, innermost first, and its arguments."""

    modules: list[str]
    kind: str
    arguments: dict[str, Any] = field(repr=False, default_factory=dict)

    @property
    def square(self) -> bool:
        """Whether there are as many keys as queries, and more than one."""
        q, k = self.arguments["query"], self.arguments["key"]
        return q.shape[-2] == k.shape[-2] > 1

    @property
    def mask(self) -> Tensor | None:
        """The mask, with a causal one made explicit."""
        q, mask = self.arguments["query"], self.arguments.get("attn_mask")
        if self.arguments.get("is_causal"):
            return torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).tril()
        return mask

    def within(self, names: set[str]) -> str | None:
        """The innermost of the running modules that has one of these names."""
        return next((name for name in self.modules if name in names), None)


Answer = Callable[[Seen], Tensor | None]


@contextmanager
def watching(model: nn.Module, answer: Answer | None = None) -> Iterator[list[Seen]]:
    """Every attention of the forwards in the block; `answer` may give another result in place of torch's."""
    names = {id(module): name for name, module in model.named_modules()}
    running: list[str] = []
    seen: list[Seen] = []

    def enter(module: nn.Module, *_: Any) -> None:
        running.append(names.get(id(module), running[-1] if running else ""))

    def leave(*_: Any) -> None:
        running.pop()

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func is scaled_dot_product_attention:
                arguments = dict(zip(NAMES, args, strict=False)) | kwargs
                seen.append(Seen(running[::-1], "attention", arguments))
                other = answer and answer(seen[-1])
                return func(*args, **kwargs) if other is None else other
            if func is multi_head_attention_forward:
                arguments = {name: tensor.transpose(0, 1) for name, tensor in zip(NAMES[:3], args, strict=False)}
                seen.append(Seen(running[::-1], "torch.nn.MultiheadAttention", arguments))
            out = func(*args, **kwargs)
            if func in SOFTMAX and isinstance(out, Tensor) and out.ndim > 2:
                seen.append(Seen(running[::-1], "softmax", {"query": out, "key": out.mT}))
            return out

    hooks = [
        torch.nn.modules.module.register_module_forward_pre_hook(enter),
        torch.nn.modules.module.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        with Mode():
            yield seen
    finally:
        for hook in hooks:
            hook.remove()
