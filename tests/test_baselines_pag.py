"""Perturbed attention guidance: diffusers' own, on the layers that are chosen."""

import torch
from diffusers.pipelines.auto_pipeline import AutoPipelineForText2Image

import tiny
from symskew.baselines import PAG
from symskew.layers import find_layers


def under(baseline, pipe, seeds=(0,), **changes):
    with baseline.attach(pipe, seeds) as (other, arguments):
        return tiny.generate(other, **arguments | changes)


def sd3(**changes):
    pipe = tiny.pipeline_sd3()
    pipe.transformer = tiny.sd3(**changes)
    return pipe


def test_pag_is_diffusers_own():
    for make in (tiny.pipeline_sdxl, tiny.pipeline_sd15, lambda: sd3(dual_attention_layers=(), qk_norm=None)):
        pipe = make()
        layers = "transformer_blocks.1.attn" if hasattr(pipe, "transformer") else "mid"
        other = AutoPipelineForText2Image.from_pipe(
            pipe, enable_pag=True, pag_applied_layers=["blocks.1" if hasattr(pipe, "transformer") else "mid"]
        )
        other.set_progress_bar_config(disable=True)
        assert torch.equal(under(PAG(2.0, layers=layers), pipe), tiny.generate(other, pag_scale=2.0))


def test_pag_keeps_number_formats_and_progress_bars():
    pipe = tiny.pipeline_sdxl().to(torch.bfloat16)
    with PAG(3.0).attach(pipe) as (other, arguments):
        assert other.unet is pipe.unet
        assert other._progress_bar_config == {"disable": True}
        assert other.watermark is None
        assert arguments == {"pag_scale": 3.0}
    assert {p.dtype for p in pipe.unet.parameters()} == {torch.bfloat16}


def test_pag_acts_on_the_layers_that_are_chosen():
    pipe = tiny.pipeline_sdxl()
    with PAG(3.0, layers=["down", (0.9, 1.0)]).attach(pipe) as (other, arguments):
        seen = set()

        def note(*_):
            seen.update(name for name, kind in other.unet.attn_processors.items() if "PAG" in type(kind).__name__)
            return {}

        tiny.generate(other, **arguments, steps=1, callback_on_step_end=note)
    layers = find_layers(pipe.unet)
    want = {layer.name for layer in layers if layer.stage == "down" or layer.depth >= 0.9}
    assert {name.removesuffix(".processor") for name in seen} == want


def test_a_compiled_model_is_guided_alike():
    pipe = tiny.pipeline_sdxl()
    eager = under(PAG(3.0), pipe, steps=1)
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    # Tracing takes long and is no matter of PAG's: the names within a compiled model are.
    with torch.compiler.set_stance("force_eager"):
        assert torch.equal(under(PAG(3.0), pipe, steps=1), eager)
