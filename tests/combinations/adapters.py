"""Adapters, conditions and other pipelines around the same denoiser."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers.models.attention_processor import SD3IPAdapterJointAttnProcessor2_0
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor
from peft import LoraConfig

import tiny
from combinations.case import BOTH, Case, Live, images, noise, other

diffusers = tiny.diffusers
JOINT = r".*\.attn2?"
ALONE = (("conditional",),)
PROMPT = {"prompt": "a red seven"}


def lora(fused: bool = False) -> Live:
    """Two adapters of rank 2, weighted, on every projection of the attention."""
    pipe = tiny.pipeline_sdxl()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in ("one", "two"):
            targets = ["to_q", "to_k", "to_v", "to_out.0"]
            pipe.unet.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False), adapter_name=name)
    pipe.unet.set_adapters(["one", "two"], [0.5, 0.3])
    if fused:
        pipe.unet.fuse_lora()
    return Live(pipe, images(pipe))


def lora_within() -> Live:
    """An adapter that comes after one image, is fused into the weights after the next, and goes after another."""
    pipe = tiny.pipeline_sdxl()
    config = LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights=False)
    once, weights = images(pipe), copy.deepcopy(pipe.unet.state_dict())

    def run() -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found = [once()]
            pipe.unet.add_adapter(config)
        found.append(once())
        pipe.unet.fuse_lora()
        found.append(once())
        pipe.unet.unfuse_lora()
        pipe.unet.unload_lora()
        pipe.unet.load_state_dict(weights)  # what was added and taken away leaves other last digits
        return torch.cat([*found, once()])

    return Live(pipe, run, generations=4)


def ip_adapter_weights(unet: Any, width: int = 6) -> dict[str, Any]:
    """The state of an IP-Adapter of four image tokens, as its files hold it."""
    weights: dict[str, Any] = {}
    for number, name in enumerate(name for name in unet.attn_processors if name.endswith("attn2.processor")):
        wide = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        weights |= {f"{2 * number + 1}.to_{part}_ip.weight": noise(wide, tiny.TEXT, seed=number) for part in "kv"}
    projection = {"proj.weight": noise(4 * tiny.TEXT, width), "proj.bias": torch.zeros(4 * tiny.TEXT)}
    norm = {"norm.weight": torch.ones(tiny.TEXT), "norm.bias": torch.zeros(tiny.TEXT)}
    return {"image_proj": projection | norm, "ip_adapter": weights}


def ip_adapter() -> Live:
    """An IP-Adapter of a UNet, given image embeddings."""
    pipe = tiny.pipeline_sd15()
    pipe.unet._load_ip_adapter_weights([ip_adapter_weights(pipe.unet)])
    return Live(pipe, images(pipe, ip_adapter_image_embeds=[noise(2, 1, 6)]))


def ip_adapter_within() -> Live:
    """An IP-Adapter of a UNet that comes after one image and goes after the next."""
    pipe = tiny.pipeline_sd15()
    weights, prompted = ip_adapter_weights(pipe.unet), images(pipe, ip_adapter_image_embeds=[noise(2, 1, 6)])

    def run() -> Any:
        first = images(pipe)()
        pipe.load_ip_adapter([weights], subfolder="", weight_name="", image_encoder_folder=None)
        second = prompted()
        pipe.unload_ip_adapter()
        return torch.cat([first, second, images(pipe)()])

    return Live(pipe, run, generations=3)


def ip_adapter_flux() -> Live:
    """An IP-Adapter of FLUX with as many tokens as image and text have together."""
    pipe = tiny.pipeline_flux()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in pipe.transformer.transformer_blocks:
            block.attn.set_processor(FluxIPAdapterAttnProcessor(32, 8, num_tokens=(21,), scale=0.5))
    given = {"ip_hidden_states": [noise(1, 21, 8)]}
    return Live(pipe, images(pipe, joint_attention_kwargs=given), JOINT, ALONE)


def ip_adapter_sd3() -> Live:
    """An IP-Adapter of Stable Diffusion 3, whose joint attention it follows."""
    pipe = tiny.pipeline_sd3()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, module in pipe.transformer.named_modules():
            if name.endswith(".attn"):
                module.set_processor(SD3IPAdapterJointAttnProcessor2_0(16, 8, 8, timesteps_emb_dim=12))
    given = {"ip_hidden_states": noise(2, 4, 8), "temb": noise(2, 12)}
    return Live(pipe, images(pipe, joint_attention_kwargs=given), JOINT)


def wake(model: Any) -> Any:
    """The zero projections of a fresh ControlNet would add nothing."""
    for index, (name, parameter) in enumerate(model.named_parameters()):
        if "controlnet" in name:
            parameter.data = 0.1 * noise(*parameter.shape, seed=index)
    return model


def controlnet() -> Live:
    """A ControlNet of a UNet."""
    pipe = tiny.pipeline_sdxl()
    net = wake(diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(4, 8)))
    pipe = other("StableDiffusionXLControlNetPipeline", pipe, controlnet=net.eval(), add_watermarker=False)
    return Live(pipe, images(pipe, image=noise(1, 3, 16, 16).sigmoid()))


def controlnet_sd3() -> Live:
    """A ControlNet of Stable Diffusion 3."""
    pipe = tiny.pipeline_sd3()
    net = wake(
        diffusers.SD3ControlNetModel.from_transformer(pipe.transformer, num_layers=1, num_extra_conditioning_channels=0)
    )
    pipe = other("StableDiffusion3ControlNetPipeline", pipe, controlnet=net.eval())
    return Live(pipe, images(pipe, control_image=noise(1, 3, 16, 16).sigmoid()), JOINT)


def controlnet_flux() -> Live:
    """A ControlNet of FLUX."""
    pipe = tiny.pipeline_flux()
    pipe.vae.register_to_config(shift_factor=0.0)
    sizes = {"num_layers": 1, "num_single_layers": 0, "attention_head_dim": 16, "num_attention_heads": 2}
    net = wake(diffusers.FluxControlNetModel.from_transformer(pipe.transformer, **sizes))
    pipe = other("FluxControlNetPipeline", pipe, controlnet=net.eval())
    return Live(pipe, images(pipe, control_image=noise(1, 3, 16, 16).sigmoid()), JOINT, ALONE)


def t2i_adapter() -> Live:
    """A T2I-Adapter, whose features are added within the UNet."""
    pipe = tiny.pipeline_sd15()
    adapter = tiny.seeded(
        lambda: diffusers.T2IAdapter(
            in_channels=3, channels=[32, 64], num_res_blocks=1, downscale_factor=2, adapter_type="full_adapter"
        )
    )
    pipe = other("StableDiffusionAdapterPipeline", pipe, adapter=adapter, requires_safety_checker=False)
    return Live(pipe, images(pipe, image=noise(1, 3, 16, 16).sigmoid()))


def image_to_image() -> Live:
    """From an image, at half strength."""
    pipe = other("StableDiffusionXLImg2ImgPipeline", tiny.pipeline_sdxl(), add_watermarker=False)
    pipe.vae.register_to_config(force_upcast=False)
    image = noise(1, 3, 16, 16).sigmoid()
    return Live(pipe, lambda: _run(pipe, image=image, strength=0.5, num_inference_steps=4, **PROMPT), first=2)


def image_to_image_flux() -> Live:
    """From an image, at half strength, by a flow."""
    pipe = other("FluxImg2ImgPipeline", tiny.pipeline_flux())
    pipe.vae.register_to_config(shift_factor=0.0)
    image = noise(1, 3, 16, 16).sigmoid()
    return Live(pipe, images(pipe, image=image, strength=0.5, steps=4), JOINT, ALONE, first=2)


def inpainting() -> Live:
    """Half of an image anew."""
    pipe = other("StableDiffusionXLInpaintPipeline", tiny.pipeline_sdxl(), add_watermarker=False)
    pipe.vae.register_to_config(force_upcast=False)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    given = {"image": noise(1, 3, 16, 16).sigmoid(), "mask_image": mask, "strength": 0.99, "height": 16, "width": 16}
    return Live(pipe, lambda: _run(pipe, num_inference_steps=3, **given, **PROMPT), first=1)


def _run(pipe: Any, **given: Any) -> Any:
    return pipe(output_type="latent", generator=torch.Generator().manual_seed(0), **given).images


def fused(build: Any, layers: str, passes: Any) -> Live:
    """One projection for q, k and v."""
    pipe = build()
    if build is tiny.pipeline_sd3:  # diffusers' fused processor cannot do dual attention, and leaves out QK-norm
        pipe.transformer = tiny.sd3(dual_attention_layers=(), qk_norm=None)
    (getattr(pipe, "unet", None) or pipe.transformer).fuse_qkv_projections()
    return Live(pipe, images(pipe), layers, passes)


def fused_within(build: Any, layers: str, passes: Any) -> Live:
    """One projection for q, k and v that comes after one image and goes after the next."""
    pipe = build()
    model, once = getattr(pipe, "unet", None) or pipe.transformer, images(pipe)

    def run() -> Any:
        first = once()
        model.fuse_qkv_projections()
        second = once()
        model.unfuse_qkv_projections()
        return torch.cat([first, second, once()])

    return Live(pipe, run, layers, passes, generations=3)


def freeu() -> Live:
    """Skip connections filtered in the frequency domain."""
    pipe = tiny.pipeline_sdxl()
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.3, b2=1.4)
    return Live(pipe, images(pipe))


_OWN = "the adapter attends by itself and is left alone"
_NET = "the ControlNet's own attention is left alone"
CASES = [
    Case("Adapters", "LoRA (peft): two adapters, weighted", lora),
    Case("Adapters", "LoRA, fused into the weights", lambda: lora(fused=True)),
    Case("Adapters", "LoRA that comes, is fused, and goes under control", lora_within),
    Case("Adapters", "IP-Adapter of a UNet", ip_adapter, note=_OWN),
    Case("Adapters", "IP-Adapter of FLUX", ip_adapter_flux, note=_OWN),
    Case("Adapters", "IP-Adapter of Stable Diffusion 3", ip_adapter_sd3, note=_OWN),
    Case("Adapters", "IP-Adapter that comes and goes under control", ip_adapter_within, note=_OWN),
    Case("Adapters", "ControlNet of SDXL", controlnet, note=_NET),
    Case("Adapters", "ControlNet of Stable Diffusion 3", controlnet_sd3, note=_NET),
    Case("Adapters", "ControlNet of FLUX", controlnet_flux, note=_NET),
    Case("Adapters", "T2I-Adapter", t2i_adapter),
    Case("Adapters", "FreeU", freeu),
    Case("Pipelines", "image to image (SDXL)", image_to_image),
    Case(
        "Pipelines", "image to image (FLUX)", image_to_image_flux,
        note="`start` and `stop` count in the whole schedule: strength ½ begins at ½",
    ),
    Case("Pipelines", "inpainting (SDXL)", inpainting),
    Case("Pipelines", "fused q, k, v: UNet", lambda: fused(tiny.pipeline_sdxl, r".*\.attn1", (BOTH,))),
    Case("Pipelines", "fused q, k, v: Stable Diffusion 3", lambda: fused(tiny.pipeline_sd3, JOINT, (BOTH,))),
    Case("Pipelines", "fused q, k, v: FLUX", lambda: fused(tiny.pipeline_flux, JOINT, ALONE)),
    Case("Pipelines", "fusing and unfusing under control: UNet",
         lambda: fused_within(tiny.pipeline_sdxl, r".*\.attn1", (BOTH,))),
    Case("Pipelines", "fusing and unfusing under control: FLUX",
         lambda: fused_within(tiny.pipeline_flux, JOINT, ALONE)),
]  # fmt: skip
