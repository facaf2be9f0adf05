"""A model in a world without symskew: what has to come of the other one, whatever was attached to it and let go of.

Everything that others do to a model is done to its shadow too. Left alone, the shadow tells what must come back, bit
for bit and attribute for attribute; with torch's attention replaced by the dense equations (tests/dense.py), what must
come of a control. Nothing here comes from symskew but the settings it is told.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dense
import tiny
import tiny_text
from symskew import Circulation

dispatch: Any = importlib.import_module("diffusers.models.attention_dispatch")


@dataclass(frozen=True)
class Family:
    """A kind of model: how to make one, and what its self-attention modules are called."""

    name: str
    build: Callable[[], Any]
    pattern: str
    text: bool = False
    text_first: bool = False
    dispatched: bool = False
    """Whether its attention goes through diffusers' dispatcher."""
    bmm: bool = False
    """Whether its processors can be changed for those that multiply matrices themselves."""
    fusible: bool = False
    bare: bool = False
    """Whether nothing is known of it but its layers: it has no pipeline, and others leave weights and kernels alone."""

    def layers(self, model: nn.Module) -> list[str]:
        """The names of its self-attention modules."""
        return [name for name, _ in model.named_modules() if re.fullmatch(self.pattern, name)]

    def inputs(self, model: Any, seed: int, time: float) -> dict[str, Any]:
        """The arguments of one forward."""
        given = tiny_text.inputs(model, seed=seed) if self.text else tiny.inputs(model, seed=seed, time=time)
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point() and p.element_size() > 1)
        return cast(given, dtype)

    def forward(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """The first output of a model."""
        with torch.no_grad():
            return model(**inputs)[0]

    def shadow(self, model: Any) -> Shadow:
        """A model's, that is one of this family too."""
        return Shadow(model, self)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Everything in floating point, in another one."""
    if isinstance(value, dict):
        return {name: cast(part, dtype) for name, part in value.items()}
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _small_unet() -> Any:
    return tiny.unet_sd15(
        block_out_channels=(16,), down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",)
    )


FAMILIES = {
    family.name: family
    for family in (
        Family("unet", _small_unet, r".*\.attn1", bmm=True, fusible=True),
        Family("pixart", tiny.pixart, r".*\.attn1", bmm=True),
        Family("sd3", tiny.sd3, r".*\.attn2?"),
        Family("flux", tiny.flux, r".*\.attn", text_first=True, dispatched=True, fusible=True),
        Family("llama", tiny_text.llama, r".*\.self_attn", text=True),
        Family("bert", tiny_text.bert, r".*\.attention\.self", text=True),
    )
}


class Pipeline(tiny.diffusers.DiffusionPipeline):
    """The least a pipeline can be: a denoiser run once for each of a scheduler's timesteps."""

    model_cpu_offload_seq = "transformer"

    def __init__(self, transformer: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)


class Seen(NamedTuple):
    """One attention of the dense run, in float64: what went in, and both retrievals."""

    q: Tensor
    k: Tensor
    vanilla: Tensor
    out: Tensor
    controlled: bool
    visible: Tensor | None = None
    """(batch, tokens): those that any query sees; None for all."""


@dataclass
class Shadow:
    """The other model, and the two ways to run it."""

    model: Any
    family: Family
    seen: dict[str, Seen] = field(default_factory=dict)
    """What each attention saw in the last dense run, by the layer's name."""

    def vanilla(self, inputs: dict[str, Any]) -> Tensor:
        """What the model gives by itself."""
        return self.family.forward(self.model, inputs)

    def dense(self, inputs: dict[str, Any], settings: dict[str, Circulation]) -> Tensor:
        """What it gives with the equations in the place of torch's attention: of each layer by its settings."""
        self.seen = {}
        with self._replaced(settings):
            return self.family.forward(self.model, inputs)

    @contextmanager
    def _replaced(self, settings: dict[str, Circulation]) -> Iterator[None]:
        torchs, running = F.scaled_dot_product_attention, []

        def enter(name: str, module: Any, args: Any, kwargs: Any) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            context = None if self.family.text else kwargs.get("encoder_hidden_states")
            streams = (
                [hidden] if context is None else [context, hidden] if self.family.text_first else [hidden, context]
            )
            running.append((name, torch.cat(streams, 1)))

        def attend(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
            if not running or running[-1][0] in self.seen:
                return torchs(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
            name, x = running[-1]
            if is_causal:
                attn_mask = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool).tril()
            plain = torchs(query, key, value, attn_mask, scale=scale, enable_gqa=enable_gqa)
            exact = dense.algorithm2(query, key, value, mask=attn_mask, scale=scale)
            acts = name in settings and not is_closed(settings[name])
            out = exact
            if acts:
                out = dense.algorithm2(query, key, value, mask=attn_mask, scale=scale, **arguments(settings[name], x))
            keys = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
            self.seen[name] = Seen(query.double(), keys.double(), exact, out, name in settings)
            return out.to(query.dtype) if acts else plain

        with ExitStack() as stack:
            for name in self.family.layers(self.model):
                module = self.model.get_submodule(name)
                enters = functools.partial(enter, name)
                stack.callback(module.register_forward_pre_hook(enters, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(lambda *_: running.pop() and None).remove)
                own = vars(getattr(module, "processor", module))
                if backend := own.pop("_attention_backend", None):  # or else everyone's
                    stack.callback(own.update, _attention_backend=backend)
            stack.enter_context(dispatch.attention_backend("native"))
            F.scaled_dot_product_attention = attend
            stack.callback(setattr, F, "scaled_dot_product_attention", torchs)
            yield


def is_closed(settings: Circulation) -> bool:
    """Whether the settings act on nothing: the identity, or behind a gate that never opens."""
    return settings.is_identity or (settings.gate is not None and settings.gate.to_dict()["threshold"] == -1)


def arguments(settings: Circulation, x: Tensor) -> dict[str, Any]:
    """The settings as the dense equations take them."""
    some = {name: getattr(settings, name) for name in ("alpha", "beta", "sym", "adaptive", "norm")}
    return some | ({"x": x} if settings.space == "input" else {})


def structure(model: nn.Module) -> dict[str, Any]:
    """All that may be left behind on a model, by module and attribute, in words that compare with another model's."""
    found: dict[str, Any] = {"state": list(model.state_dict())}
    for name, module in model.named_modules():
        registry: Any = getattr(module, "_diffusers_hook", None)
        order = registry._hook_order if registry else []
        found[f"{name}: hooks"] = [(key, type(registry.hooks[key]).__name__) for key in order]
        for key, value in vars(module).items():
            if key == "forward" and getattr(value, "__func__", None) is type(module).forward:
                continue  # what others leave behind, who put back what was there before
            if key.endswith("_hooks") and isinstance(value, dict):
                value = [_described(hook) for hook in value.values()]
            elif key == "processor":
                value = type(value).__name__, sorted(vars(value))
            else:
                value = _described(value) if key in ("forward", "_old_forward") else type(value).__name__
            if key not in ("_compiled_call_impl", "_diffusers_hook"):
                found[f"{name}: {key}"] = value
    return found


def _described(function: Any) -> str:
    """A callable by its name, whatever it is bound to."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    return getattr(function, "__qualname__", type(function).__name__)


def world() -> list[Any]:
    """What belongs to nobody's model, and must be as it was: torch's attention and modes, the dispatcher's table."""
    torchs: Any = torch._C
    return [
        F.scaled_dot_product_attention,
        torchs._len_torch_function_stack(),
        torch.is_grad_enabled(),
        dict(dispatch._AttentionBackendRegistry._backends),
    ]
