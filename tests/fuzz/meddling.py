"""What others do to a model while it is controlled: each of these is done to the model and to its shadow alike."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import accelerate
import diffusers
import diffusers.models.attention_processor as processors
import torch
from accelerate.hooks import remove_hook_from_submodules
from diffusers.hooks.hooks import HookRegistry, ModelHook
from peft import LoraConfig

from fuzz.shadow import Family

CPU = torch.device("cpu")
dispatch: Any = importlib.import_module("diffusers.models.attention_dispatch")
HOOKS = ("halving hook", "taking hook", "plain hook", "wrapper")
"""What can be done to any model; the others need to know its projections, or whether it stands another dtype."""
BMM = ("AttnProcessor", "SlicedAttnProcessor")
"""Processors that call no attention function: no control can reach into them."""


@dataclass
class Subject:
    """A model, or its shadow, and its pipeline, and what was done to it so far."""

    model: Any
    pipe: Any
    family: Family
    done: set[str] = field(default_factory=set)
    kept: dict[str, Any] = field(default_factory=dict)
    """What has to be kept to undo something: handles of hooks, the forwards that were wrapped."""

    def layer(self, index: int) -> Any:
        """One of the self-attention modules, counted round."""
        names = self.family.layers(self.model)
        return self.model.get_submodule(names[index % len(names)])


class _Halved(ModelHook):
    """A hook of someone else's that changes what comes out."""

    def post_forward(self, module: Any, output: Any) -> Any:
        return _halve(output)


class _Taken(ModelHook):
    """A hook of someone else's that runs the forward itself."""

    fn_ref: Any

    def new_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        return _halve(self.fn_ref.original_forward(*args, **kwargs))


def _halve(output: Any) -> Any:
    return tuple(map(_halve, output)) if isinstance(output, tuple) else output if output is None else 0.5 * output


def _hook(kind: type[ModelHook], subject: Subject, index: int) -> None:
    registry = HookRegistry.check_if_exists_or_initialize(subject.layer(index))
    registry.register_hook(kind(), kind.__name__)
    subject.kept[kind.__name__] = registry


def _unhook(name: str, subject: Subject, _: int) -> None:
    subject.kept.pop(name).remove_hook(name, recurse=False)


def _plain_hook(subject: Subject, index: int) -> None:
    hook = subject.layer(index).register_forward_hook(lambda module, args, output: _halve(output))
    subject.kept["plain hook"] = hook


def _unhook_plain(subject: Subject, _: int) -> None:
    subject.kept.pop("plain hook").remove()


def _wrap(subject: Subject, index: int) -> None:
    module = subject.layer(index)
    before = module.forward

    @functools.wraps(before)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return _halve(before(*args, **kwargs))

    subject.kept["wrapper"] = module, before, wrapper
    module.forward = wrapper


def _unwrap(subject: Subject, _: int) -> None:
    module, before, _wrapper = subject.kept.pop("wrapper")
    module.forward = before


def _lora(name: str, subject: Subject, index: int) -> None:
    targets = ["q_proj", "v_proj"] if subject.family.text else ["to_q", "to_k", "to_v"]
    targets = ["query", "value"] if subject.family.name == "bert" else targets
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # peft warns of a second adapter
        torch.manual_seed(index)
        subject.model.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False), adapter_name=name)


def _unload_lora(subject: Subject, _: int) -> None:
    subject.model.unload_lora()


def _each(kind: str, subject: Subject, _: int) -> None:
    subject.model.set_attn_processor(getattr(processors, kind)())


def _one(kind: Callable[[], Any], subject: Subject, index: int) -> None:
    subject.layer(index).set_processor(kind())


def _group_offload(subject: Subject, _: int) -> None:
    subject.model.enable_group_offload(onload_device=CPU, offload_type="leaf_level")


def _sequential_offload(subject: Subject, _: int) -> None:
    accelerate.cpu_offload(subject.model, execution_device=CPU)


def _undo_sequential_offload(subject: Subject, _: int) -> None:
    remove_hook_from_submodules(subject.model)


def _model_offload(subject: Subject, _: int) -> None:
    subject.pipe.enable_model_cpu_offload(device="cpu")


def _undo_model_offload(subject: Subject, _: int) -> None:
    subject.pipe.remove_all_hooks()
    subject.pipe._all_hooks = []


def _casting(subject: Subject, _: int) -> None:
    subject.model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


def _convert(dtype: torch.dtype, subject: Subject, _: int) -> None:
    subject.model.to(dtype)


def _backend(name: str, subject: Subject, _: int) -> None:
    subject.model.set_attention_backend(name)


def _implementation(name: str, subject: Subject, _: int) -> None:
    subject.model.set_attn_implementation(name)


@dataclass(frozen=True)
class Deed:
    """Something others do, when it can be done, and what it undoes.

    `only` says for which families, `after` names a deed that must have been done and is undone by this one, `never`
    what is not possible once this or those have been done: diffusers, accelerate and peft refuse these themselves.
    """

    name: str
    do: Callable[[Subject, int], None]
    only: Callable[[Family], bool] = lambda family: True
    after: str = ""
    never: tuple[str, ...] = ()
    again: bool = False
    """Whether it may be done time and again."""
    piped: bool = False
    """Whether it takes a pipeline."""

    def possible(self, subject: Subject) -> bool:
        """Whether it can be done now."""
        if subject.family.bare and self.name.removesuffix(" removed") not in HOOKS:
            return False
        if not self.only(subject.family) or (self.piped and subject.pipe is None) or subject.done & set(self.never):
            return False
        return self.after in subject.done if self.after else self.again or self.name not in subject.done

    def __call__(self, subject: Subject, index: int) -> None:
        self.do(subject, index)
        subject.done.discard(self.after)
        if not self.after:
            subject.done.add(self.name)


def _diffusers(family: Family) -> bool:
    return not family.text


def _offloads_groups(family: Family) -> bool:
    """diffusers 0.36 does so on a machine with an accelerator alone."""
    return _diffusers(family) and not diffusers.__version__.startswith("0.36.")


def _takes_lora(family: Family) -> bool:
    return family.name != "pixart"


_OFFLOADS = ("group offload", "sequential offload", "model offload")
_ELSEWHERE = ("casting", *_OFFLOADS)
_PROCESSORS: Any = {"only": lambda family: family.bmm, "again": True, "never": ("fused",)}
_WEIGHTS = ("lora", "second lora", "fused", "casting", *_OFFLOADS)
DEEDS = [
    Deed("halving hook", functools.partial(_hook, _Halved)),
    # diffusers itself cuts a wrapper off, and a hook with a forward of its own, when it removes a hook below them.
    Deed("halving hook removed", functools.partial(_unhook, "_Halved"), after="halving hook",
         never=("taking hook", "wrapper")),
    Deed("taking hook", functools.partial(_hook, _Taken)),
    Deed("taking hook removed", functools.partial(_unhook, "_Taken"), after="taking hook", never=("wrapper",)),
    Deed("plain hook", _plain_hook),
    Deed("plain hook removed", _unhook_plain, after="plain hook"),
    Deed("wrapper", _wrap),
    Deed("wrapper removed", _unwrap, after="wrapper"),
    Deed("lora", functools.partial(_lora, "one"), _takes_lora, never=_WEIGHTS),
    Deed("second lora", functools.partial(_lora, "two"), _takes_lora, never=("second lora", "fused", *_ELSEWHERE)),
    Deed("lora unloaded", _unload_lora, lambda f: not f.text, after="lora", never=("second lora", *_OFFLOADS)),
    Deed("fused", lambda subject, _: subject.model.fuse_qkv_projections(), lambda f: f.fusible, never=_WEIGHTS),
    Deed("unfused", lambda subject, _: subject.model.unfuse_qkv_projections(), after="fused"),
    Deed("torch's processors", functools.partial(_each, "AttnProcessor2_0"), **_PROCESSORS),
    Deed("bmm processors", functools.partial(_each, "AttnProcessor"), **_PROCESSORS),
    Deed("a bmm processor", functools.partial(_one, processors.AttnProcessor), **_PROCESSORS),
    Deed("a sliced processor", functools.partial(_one, lambda: processors.SlicedAttnProcessor(1)), **_PROCESSORS),
    Deed("eager", functools.partial(_implementation, "eager"), lambda f: f.text, again=True),
    Deed("sdpa", functools.partial(_implementation, "sdpa"), lambda f: f.text, again=True),
    Deed("math backend", functools.partial(_backend, "_native_math"), lambda f: f.dispatched, again=True),
    Deed("native backend", functools.partial(_backend, "native"), lambda f: f.dispatched, again=True),
    Deed("double", functools.partial(_convert, torch.double), again=True, never=_ELSEWHERE),
    Deed("bfloat16", functools.partial(_convert, torch.bfloat16), _diffusers, again=True, never=_ELSEWHERE),
    Deed("float", functools.partial(_convert, torch.float), again=True, never=_ELSEWHERE),
    Deed("casting", _casting, _diffusers, never=("double", "bfloat16", *_WEIGHTS)),
    Deed("group offload", _group_offload, _offloads_groups, never=_WEIGHTS),
    Deed("sequential offload", _sequential_offload, never=_WEIGHTS),
    Deed("weights back", _undo_sequential_offload, after="sequential offload"),
    Deed("model offload", _model_offload, piped=True, never=_WEIGHTS),
    Deed("model stays", _undo_model_offload, after="model offload"),
]  # fmt: skip


def out_of_reach(subject: Subject) -> set[str]:
    """The layers whose attention no function mode and no table sees."""
    if subject.family.bare:
        return set()
    if subject.family.text:
        eager = subject.model.config._attn_implementation == "eager"
        return set(subject.family.layers(subject.model)) if eager else set()
    modules = {name: subject.model.get_submodule(name) for name in subject.family.layers(subject.model)}
    return {name for name, module in modules.items() if type(module.processor).__name__ in BMM}
