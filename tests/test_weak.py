"""A weak branch: its formula, against diffusers' own perturbed attention and blur, and what it leaves behind."""

import math
from typing import Any

import pytest
import torch
from diffusers.hooks.smoothed_energy_guidance_utils import (
    SmoothedEnergyGuidanceConfig,
    _apply_smoothed_energy_guidance_hook,
    _gaussian_blur_2d,
)

import tiny
from symskew import Circulation, SilentControlError, circulate, control, diagnose
from symskew.perturbation import Blur, Circulating, blurred, identity
from symskew.weak import weaken

MIDDLE = "mid_block.attentions.0.transformer_blocks.0.attn1"


def hooked(model):
    """What is left on a model by anyone."""
    return [name for name, module in model.named_modules() if "forward" in vars(module) or module._forward_hooks]


def pag(pipe):
    kind = getattr(tiny.diffusers, type(pipe).__name__.replace("Pipeline", "PAGPipeline"))
    extra = {"requires_safety_checker": False} if "safety_checker" in pipe.components else {"add_watermarker": False}
    other = kind(**pipe.components, pag_applied_layers=["mid"], **extra)
    other.set_progress_bar_config(disable=True)
    return other


@pytest.mark.parametrize("guidance", [5.0, 1.0])
@pytest.mark.parametrize("make", [tiny.pipeline_sdxl, tiny.pipeline_sd15])
def test_identity_attention_is_perturbed_attention_guidance(make, guidance):
    # Two implementations: three blocks in one batch and a processor of their own there, a second pass here.
    pipe = make()
    plain = tiny.generate(pipe, guidance_scale=guidance)
    with weaken(pipe, 3.0, identity):
        ours = tiny.generate(pipe, guidance_scale=guidance, batch=2)
    theirs = tiny.generate(pag(pipe), guidance_scale=guidance, batch=2, pag_scale=3.0)
    # Rounding of float32, of latents up to 100; the step itself is a hundred thousand times as large.
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (ours[:1] - plain).abs().max() > 0.1
    assert torch.equal(tiny.generate(pipe, guidance_scale=guidance), plain)
    assert hooked(pipe.unet) == []


def weak_prediction(pipe, perturbation, guidance=5.0, scale=2.0, rows=4):
    """(u, c, c′) of one forward, with and without a weak branch."""
    pipe._guidance_scale, pipe._guidance_rescale = guidance, 0.0
    inputs = tiny.inputs(pipe.unet, batch=rows)
    with torch.no_grad():
        plain = pipe.unet(**inputs)[0]
        with weaken(pipe, scale, perturbation):
            guided = pipe.unet(**inputs)[0]
    half = rows // 2
    assert torch.equal(guided[:half], plain[:half])
    return plain[half:], guided[half:]


@pytest.mark.parametrize("sigma", [math.inf, 0.7])
def test_blurred_queries_are_smoothed_energy_guidance(sigma, monkeypatch):
    # The weak branch of diffusers' guider, by its own hook on the projection of the queries.
    pipe = tiny.pipeline_sdxl()
    c, guided = weak_prediction(pipe, Blur(sigma))
    if sigma != math.inf:
        # Its two cases are swapped (0.42.1): a Gaussian is what it takes for sigma above the threshold.
        monkeypatch.setattr(
            "diffusers.hooks.smoothed_energy_guidance_utils._gaussian_blur_2d",
            lambda query, size, sigma, _: _gaussian_blur_2d(query, size, sigma, 0.0),
        )
    config = SmoothedEnergyGuidanceConfig([0, 1], fqn="mid_block.attentions.0.transformer_blocks")
    _apply_smoothed_energy_guidance_hook(pipe.unet, config, min(sigma, 9.0))
    inputs = tiny.inputs(pipe.unet, batch=4)
    inputs = {name: part[2:] if getattr(part, "ndim", 0) else part for name, part in inputs.items()}
    inputs["added_cond_kwargs"] = {name: part[2:] for name, part in inputs["added_cond_kwargs"].items()}
    with torch.no_grad():
        w = pipe.unet(**inputs)[0]
    torch.testing.assert_close(guided, c + 2 / 5 * (c - w), rtol=1e-4, atol=1e-5)
    assert (guided - c).abs().max() > 1e-3


@pytest.mark.parametrize("grid", [(8, 8), (7, 7), (4, 4)])
@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.0])
def test_the_blur_is_diffusers_own(grid, sigma):
    queries = torch.randn(2, math.prod(grid), 6, generator=torch.Generator().manual_seed(0))
    size = math.ceil(6 * sigma) + 1 - math.ceil(6 * sigma) % 2
    theirs = _gaussian_blur_2d(queries.clone(), size, sigma, 0.0)
    torch.testing.assert_close(blurred(queries, grid, sigma), theirs, rtol=1e-5, atol=1e-6)
    mean = _gaussian_blur_2d(queries.clone(), size, sigma, math.inf)
    torch.testing.assert_close(blurred(queries, grid, math.inf), mean, rtol=1e-5, atol=1e-6)


def test_a_blur_knows_height_from_width():
    # Queries that vary over the height alone stay so, and those that do not vary stay as they are.
    ramp = torch.arange(4.0, dtype=torch.float64)[:, None].expand(4, 6).reshape(24, 1)
    out = blurred(ramp, (4, 6), 0.5).view(4, 6)
    torch.testing.assert_close(out, out[:, :1].expand(4, 6))
    assert (out[:, 0] - torch.arange(4.0)).abs().max() > 0.1
    torch.testing.assert_close(blurred(torch.ones_like(ramp), (4, 6), 0.5), torch.ones_like(ramp))
    with pytest.raises(ValueError, match=r"blurred over \(height, width\), got a grid \(2, 3, 4\); use sigma=inf"):
        blurred(ramp, (2, 3, 4), 1.0)


def test_text_beside_the_image_keeps_its_queries():
    pipe = tiny.pipeline_sd3()
    layers, seen = "transformer_blocks.2.attn", {}

    def spy(call, layer, grids):
        out = Blur()(call, layer, grids)
        text = torch.nn.functional.scaled_dot_product_attention(call.q[:, :, 16:], call.k, call.v)
        image = torch.nn.functional.scaled_dot_product_attention(
            call.q[:, :, :16].mean(2, keepdim=True), call.k, call.v
        )
        seen["error"] = max((out[:, :, 16:] - text).abs().max(), (out[:, :, :16] - image).abs().max())
        return out

    with weaken(pipe, 2.0, spy, layers=layers):
        tiny.generate(pipe, steps=1)
    assert seen["error"] < 1e-6


def test_another_circulation_as_the_weak_branch():
    pipe = tiny.pipeline_sdxl()
    circulation = Circulation(0.0)
    c, guided = weak_prediction(pipe, Circulating(circulation))
    inputs = tiny.inputs(pipe.unet, batch=4)
    with torch.no_grad(), control(pipe.unet, circulation, layers="mid"):
        w = pipe.unet(**inputs)[0][2:]
    torch.testing.assert_close(guided, c + 2 / 5 * (c - w), rtol=1e-4, atol=1e-5)
    c, guided = weak_prediction(pipe, Circulating(Circulation(1.5, 3.0, space="input")))
    assert (guided - c).abs().max() > 1e-4


def test_the_weak_branch_may_circulate_the_image_alone():
    pipe, alone = tiny.pipeline_sd3(), Circulation(0.0, 2.0, tokens="image")
    seen = []

    def spy(call, layer, grids):
        out = Circulating(alone)(call, layer, grids)
        wanted = circulate(call.q, call.k, call.v, alone, scale=call.scale, image=slice(0, 16))
        seen.append(torch.equal(out, wanted))
        return out

    with weaken(pipe, 2.0, spy, layers="transformer_blocks.2.attn"):
        tiny.generate(pipe, steps=2)
    assert seen == [True] * 2


def test_a_circulation_that_is_not_that_of_one_call_is_refused():
    with pytest.raises(ValueError, match="take the settings of one call"):
        Circulating(Circulation({"down": 1.0, "mid": 2.0}))
    with pytest.raises(ValueError, match=r"branch='conditional' means nothing to a weak branch.*; leave branch out"):
        Circulating(Circulation(2.0, branch="conditional"))


def test_a_control_acts_in_the_weak_pass_too_and_counts_steps_once():
    pipe = tiny.pipeline_sdxl()
    circulation = Circulation(3.0, 2.0)
    for order in (("weak", "control"), ("control", "weak")):
        contexts = {
            "weak": weaken(pipe, 2.0, identity),
            "control": control(pipe, circulation, layers="down", stop=0.5),
        }
        with contexts[order[0]] as first, contexts[order[1]] as second:
            out = tiny.generate(pipe, steps=4)
        handle = first or second
        assert {row.calls for row in handle.summary()} == {2}
        other = pag(pipe)
        with control(other, circulation, layers="down", stop=0.5):
            theirs = tiny.generate(other, steps=4, pag_scale=2.0)
        torch.testing.assert_close(out, theirs, rtol=1e-4, atol=1e-4)


def test_a_control_at_the_same_layer_gives_way_in_the_weak_pass():
    pipe = tiny.pipeline_sdxl()
    with weaken(pipe, 2.0, identity), control(pipe, Circulation(3.0), layers="mid"):
        ours = tiny.generate(pipe)
    other = pag(pipe)
    with control(other, Circulation(3.0), layers="mid"):
        theirs = tiny.generate(other, pag_scale=2.0)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weak_first", [True, False])
def test_a_diagnosis_does_not_see_the_weak_pass(weak_first):
    pipe = tiny.pipeline_sdxl()
    with weaken(pipe, 2.0, identity):
        plain = tiny.generate(pipe)
    weak, diagnosis = weaken(pipe, 2.0, identity), diagnose(pipe)
    with weak if weak_first else diagnosis as first, diagnosis if weak_first else weak as second:
        out = tiny.generate(pipe)
    record = first or second
    assert record is not None
    table = record.to_pandas()
    assert torch.equal(out, plain)
    assert set(table.branch) == {"unconditional", "conditional"}
    assert len(table) == 3 * 2 * len(set(table.layer))


def test_what_is_not_finite_in_the_ordinary_pass_alone_is_found():
    pipe = tiny.pipeline_sdxl()
    pipe._guidance_scale, pipe._guidance_rescale = 5.0, 0.0
    inputs = tiny.inputs(pipe.unet)
    inputs["sample"][0] = math.nan  # of the unconditional row
    with (
        torch.no_grad(),
        pytest.raises(FloatingPointError, match="not finite"),
        control(pipe, Circulation(2.0)),
        weaken(pipe, 2.0, identity),
    ):
        pipe.unet(**inputs)


def attempt(pipe, perturbation=identity, scale: Any = 2.0, layers="mid", **changes):
    with weaken(pipe, scale, perturbation, layers=layers):
        tiny.generate(pipe, **changes)


def test_leaving_for_whatever_reason_restores_the_model():
    pipe = tiny.pipeline_sdxl()
    plain = tiny.generate(pipe)

    def broken(call, layer, grids):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(pipe, broken)
    with pytest.raises(SilentControlError, match="nothing was generated"), weaken(pipe, 2.0, identity):
        pass
    with weaken(pipe, 2.0, identity):
        with pytest.raises(ValueError, match="there is a weak branch on this pipeline already"):
            attempt(pipe, Blur())
        tiny.generate(pipe, steps=1)
    assert torch.equal(tiny.generate(pipe), plain)
    assert hooked(pipe.unet) == []


def test_what_the_formula_does_not_hold_for_is_refused():
    pipe, joint = tiny.pipeline_sdxl(), "transformer_blocks.2.attn"
    with pytest.raises(TypeError, match="how FluxPipeline guides is not known"):
        attempt(tiny.pipeline_flux())
    for scale in (0, -1.0, math.inf, "2"):
        with pytest.raises(ValueError, match="the scale of a weak branch must be a number above 0"):
            attempt(pipe, scale=scale)
    with pytest.raises(ValueError, match="picks none of"):
        attempt(pipe, layers="nowhere")
    with pytest.raises(ValueError, match=r"guidance_rescale=0.7 would rescale"):
        attempt(pipe, guidance_rescale=0.7)
    with pytest.raises(ValueError, match="return_dict=True and gave a UNet2DConditionOutput"), weaken(pipe, 2, Blur()):
        pipe.unet(**tiny.inputs(pipe.unet) | {"return_dict": True})
    with pytest.raises(ValueError, match="skip_guidance_layers adds a branch"):
        attempt(tiny.pipeline_sd3(), Blur(), layers=joint, skip_guidance_layers=[1], skip_layer_guidance_stop=1.0)
    with pytest.raises(ValueError, match="text and image together, where identity attention is not defined"):
        attempt(tiny.pipeline_sd3(), layers=joint)


def test_a_cache_is_refused():
    pipe = tiny.pipeline_sdxl()
    config = tiny.diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500
    )
    tiny.diffusers.apply_pyramid_attention_broadcast(pipe.unet, config)
    with pytest.raises(ValueError, match="would mistake the weak pass for a step"):
        attempt(pipe)


def test_layers_out_of_reach_are_an_error():
    pipe = tiny.pipeline_sdxl()
    pipe.enable_attention_slicing(1)
    with pytest.raises(SilentControlError, match="the weak branch would have been as good as the other there"):
        attempt(pipe)


def test_the_perturbation_is_of_the_call_it_is_given():
    # A circulated weak branch is exactly `circulate` of what the layer attends with.
    pipe, seen = tiny.pipeline_sdxl(), []

    def spy(call, layer, grids):
        out = Circulating(Circulation(1.3, 2.0))(call, layer, grids)
        seen.append(torch.equal(out, circulate(call.q, call.k, call.v, Circulation(1.3, 2.0), scale=call.scale)))
        assert grids[0] == (8, 8)
        return out

    with weaken(pipe, 2.0, spy, layers=MIDDLE):
        tiny.generate(pipe)
    assert seen == [True] * 3
