"""Other people's packages: weights in few bits, and forwards that are written anew."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import tomesd
import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from DeepCache import DeepCacheSDHelper
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig

import tiny
from combinations.adapters import ALONE, JOINT
from combinations.case import COMPUTED, MEASURED, REFUSED, Case, Live, images, proved

diffusers = tiny.diffusers


def loaded(config: Callable[[], Any]) -> Live:
    """FLUX whose denoiser was loaded with one of diffusers' configurations for quantized weights."""
    pipe = tiny.pipeline_flux()
    with tempfile.TemporaryDirectory() as folder:
        pipe.transformer.save_pretrained(folder)
        pipe.transformer = type(pipe.transformer).from_pretrained(
            folder, quantization_config=config(), torch_dtype=torch.float32
        )
    return Live(pipe, images(pipe), JOINT, ALONE)


def in_bits(kind: Callable[[nn.Linear], nn.Module]) -> Live:
    """FLUX whose projections are layers of another kind."""
    pipe = tiny.pipeline_flux()
    for name, module in list(pipe.transformer.named_modules()):
        if isinstance(module, nn.Linear) and ".attn." in name:
            pipe.transformer.set_submodule(name, kind(module))
    return Live(pipe, images(pipe), JOINT, ALONE)


def eight_bits(module: nn.Linear) -> nn.Module:
    """The layer of bitsandbytes with weights in eight bits."""
    made = Linear8bitLt(module.in_features, module.out_features, has_fp16_weights=False)
    made.load_state_dict(module.state_dict())
    return made.to("cpu")


def four_bits(module: nn.Linear) -> nn.Module:
    """The layer of bitsandbytes with weights in four bits (NF4)."""
    made = Linear4bit(module.in_features, module.out_features, quant_type="nf4", compute_dtype=torch.float32)
    made.load_state_dict(module.state_dict())
    return made.to("cpu")


def merged() -> Live:
    """Token merging: self-attention over half of the tokens."""
    pipe = tiny.pipeline_sd15()
    tomesd.apply_patch(pipe, ratio=0.5, use_rand=False)
    return Live(pipe, images(pipe))


def deep_cache() -> Live:
    """DeepCache: the deeper blocks of a UNet every other step."""
    pipe = tiny.pipeline_sd15()
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=2, cache_branch_id=0)
    helper.enable()

    def run() -> Any:
        helper.start_timestep = None
        return images(pipe, steps=4)()

    return Live(pipe, run, steps=4)


_OWN = "by the layers of the package, which computes on a CPU"
CASES = [
    Case("Quantized weights", "torchao: eight bits",
         lambda: loaded(lambda: diffusers.TorchAoConfig(Int8WeightOnlyConfig()))),
    Case("Quantized weights", "optimum-quanto: eight bits", lambda: loaded(lambda: diffusers.QuantoConfig("int8"))),
    Case("Quantized weights", "optimum-quanto: fp8", lambda: loaded(lambda: diffusers.QuantoConfig("float8"))),
    Case("Quantized weights", "bitsandbytes: eight bits", lambda: in_bits(eight_bits), note=_OWN),
    Case("Quantized weights", "bitsandbytes: four bits (NF4)", lambda: in_bits(four_bits), note=_OWN),
    Case("Rewritten forwards", "token merging (`tomesd`)", merged,
         note="among the tokens that are left; they are in no grid, so a map is an error"),
    Case("Rewritten forwards", "DeepCache", deep_cache, COMPUTED, MEASURED,
         "a cached step repeats what was computed, controlled or not, also past the ends of a window"),
    proved("Rewritten forwards", "DeepCache, a window that begins with a cached step",
           "test_combinations::test_a_window_that_begins_where_layers_are_spared", control=REFUSED, diagnosis="–",
           note="an error that says which layers were not run"),
]  # fmt: skip
