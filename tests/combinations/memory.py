"""Where weights are and what they are made of, and what computes the attention."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import gguf
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_module
from diffusers.models.attention_dispatch import attention_backend
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter

import tiny
from combinations.adapters import ALONE, JOINT
from combinations.case import MEASURES, REFUSED, Case, Live, images, proved

CPU = torch.device("cpu")


def flux(prepare: Callable[[Any], Any], **known: Any) -> Live:
    """FLUX, prepared in some way."""
    pipe = tiny.pipeline_flux()
    prepare(pipe)
    return Live(pipe, images(pipe), JOINT, ALONE, **known)


def sd15(prepare: Callable[[Any], Any], **known: Any) -> Live:
    """Stable Diffusion 1.5, prepared in some way."""
    pipe = tiny.pipeline_sd15()
    prepare(pipe)
    return Live(pipe, images(pipe), **known)


def offload_within() -> Live:
    """Sequential offload that comes after one image and goes after the next, model offload after another."""
    pipe = tiny.pipeline_sd15()
    once = images(pipe)

    def run() -> Any:
        found = [once()]
        cpu_offload(pipe.unet, execution_device=CPU)
        found.append(once())
        remove_hook_from_module(pipe.unet, recurse=True)
        pipe.enable_model_cpu_offload(device="cpu")
        found.append(once())
        pipe.remove_all_hooks()
        return torch.cat([*found, once()])

    return Live(pipe, run, generations=4)


def _quantize(pipe: Any) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, module in list(pipe.transformer.named_modules()):
        if isinstance(module, torch.nn.Linear) and ".attn." in name:
            packed = GGUFLinear(module.in_features, module.out_features, module.bias is not None, torch.float32)
            data = gguf.quants.quantize(module.weight.detach().numpy(), kind)
            parameter: Any = GGUFParameter
            packed.weight = parameter(torch.from_numpy(data.copy()), quant_type=kind)
            packed.bias = module.bias
            pipe.transformer.set_submodule(name, packed)


def backend(name: str) -> Live:
    """FLUX with another backend, which becomes everyone's default until it is put back."""
    stack, pipe, plain = ExitStack(), tiny.pipeline_flux(), tiny.pipeline_flux()
    stack.enter_context(attention_backend("native"))
    pipe.transformer.set_attention_backend(name)

    def native() -> Any:
        with attention_backend("native"):
            return images(plain)()

    hidden = {"reference": native, "model": plain.transformer} if name == "flex" else {}
    return Live(pipe, images(pipe), JOINT, ALONE, backend=name, done=stack.close, **hidden)


_REMOVE = r"out of reach.*model\.set_attn_processor\(diffusers\.models\.attention_processor\.AttnProcessor2_0\(\)\)"
CASES = [
    Case("Memory", "model offload", lambda: sd15(lambda pipe: pipe.enable_model_cpu_offload(device="cpu"))),
    Case("Memory", "sequential offload: weights on the meta device (UNet)",
         lambda: sd15(lambda pipe: cpu_offload(pipe.unet, execution_device=CPU))),
    proved("Memory", "sequential offload: weights on the meta device (FLUX)",
           "test_attach_traps::test_weights_that_are_elsewhere", diagnosis=MEASURES),
    Case("Memory", "group offload by leaves", lambda: flux(lambda pipe: pipe.transformer.enable_group_offload(
        onload_device=CPU, offload_type="leaf_level"))),
    Case("Memory", "group offload by blocks", lambda: flux(lambda pipe: pipe.transformer.enable_group_offload(
        onload_device=CPU, offload_type="block_level", num_blocks_per_group=1))),
    Case("Memory", "offload that comes and goes under control", offload_within),
    Case("Memory", "layerwise casting to eight bits (fp8)",
         lambda: flux(lambda pipe: pipe.transformer.enable_layerwise_casting(
             storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32))),
    Case("Memory", "weights quantized by GGUF (Q8_0)", lambda: flux(_quantize)),
    Case("Memory", "half precision (bfloat16)", lambda: sd15(lambda pipe: pipe.to(torch.bfloat16), tolerance=0.1)),
    Case("Kernels", "attention backend `native`", lambda: backend("native")),
    Case("Kernels", "attention backend `_native_math`", lambda: backend("_native_math")),
    Case("Kernels", "attention backend `flex`", lambda: backend("flex")),
    proved("Kernels", "attention backends `flash`, `_flash_3`, `sage`",
           "test_attach_traps::test_fused_kernels_are_seen_in_the_dispatchers_table",
           diagnosis=MEASURES, note="stand-ins in the places of the kernels, which are untested"),
    Case("Kernels", "attention slicing", lambda: sd15(lambda pipe: pipe.enable_attention_slicing(1)), REFUSED, REFUSED,
         "an error with the way out", refusal=rf"(?s){_REMOVE}"),
    Case("Kernels", "processors that multiply matrices themselves",
         lambda: sd15(lambda pipe: pipe.unet.set_default_attn_processor()), REFUSED, REFUSED,
         "an error with the way out", refusal=rf"(?s){_REMOVE}"),
    proved("Kernels", "xformers in a UNet", "test_attach_control::test_xformers_is_out_of_reach", control=REFUSED,
           diagnosis=REFUSED, note="an error with the way out; a stand-in for the library"),
    proved("Kernels", "context parallelism: ring, Ulysses", "test_seam::test_what_cannot_be_controlled_is_refused",
           control=REFUSED, diagnosis=REFUSED, note="an error, by the arguments that the kernels are given"),
    proved("Kernels", "processors that change under control",
           "test_attach_vigilance::test_a_processor_changed_on_the_way_is_an_error_not_silence", control=REFUSED,
           diagnosis=REFUSED, note="an error in the forward in which a layer is lost"),
]  # fmt: skip
