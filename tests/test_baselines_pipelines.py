"""Baselines on pipelines: an effect, one image's independence of the others, and nothing left behind."""

import pytest
import torch
from diffusers.pipelines.auto_pipeline import AutoPipelineForText2Image

import tiny
from symskew import Circulation, SilentControlError, control
from symskew.baselines import PAG, SEG, CirculatedGuidance, FreeU, NullPerturbation
from symskew.layers import find_layers

GUIDED = [PAG(3.0), SEG(3.0), SEG(3.0, 0.8), CirculatedGuidance(2.0, Circulation(0.0))]
ALL = [*GUIDED, FreeU(1.3, 1.4, 0.9, 0.2), NullPerturbation(2.0)]


def state(pipe):
    """All that a baseline could change and forget."""
    root = getattr(pipe, "unet", None) or pipe.transformer
    left = {name: sorted(vars(module)) for name, module in root.named_modules()}
    processors = [module.processor for module in root.modules() if hasattr(module, "processor")]
    return left, processors, [*pipe.config.items()], {p.dtype for p in root.parameters()}


def under(baseline, pipe, seeds=(0,), **changes):
    with baseline.attach(pipe, seeds) as (other, arguments):
        return tiny.generate(other, **arguments | changes)


@pytest.mark.parametrize("baseline", ALL, ids=lambda baseline: baseline.name)
def test_it_acts_and_leaves_nothing_behind(baseline):
    pipe = tiny.pipeline_sdxl()
    plain, before = tiny.generate(pipe), state(pipe)
    out = under(baseline, pipe)
    assert out.isfinite().all()
    assert (out - plain).abs().max() > 1e-3
    assert state(pipe) == before
    assert torch.equal(tiny.generate(pipe), plain)
    assert torch.equal(under(baseline, pipe), out)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        under(baseline, pipe, callback_on_step_end=interrupt)
    assert state(pipe) == before
    assert torch.equal(tiny.generate(pipe), plain)


@pytest.mark.parametrize("make", [tiny.pipeline_sd15, tiny.pipeline_sd3])
def test_other_families(make):
    pipe = make()
    plain = tiny.generate(pipe)
    for baseline in ALL:
        if make is tiny.pipeline_sd3 and isinstance(baseline, FreeU | PAG):
            continue
        assert (under(baseline, pipe) - plain).abs().max() > 1e-3, baseline
    assert torch.equal(tiny.generate(pipe), plain)


@pytest.mark.parametrize("baseline", ALL, ids=lambda baseline: baseline.name)
def test_an_image_does_not_depend_on_the_others_of_its_batch(baseline):
    pipe = tiny.pipeline_sdxl()
    prompts, seeds = ["a red one", "a blue two", "a red seven"], [3, 4, 5]

    def generators(seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together = under(baseline, pipe, seeds, prompt=prompts, generator=generators(seeds), size=32)
    for i in range(3):
        alone = under(
            baseline, pipe, seeds[i : i + 1], prompt=prompts[i : i + 1], generator=generators(seeds[i : i + 1]), size=32
        )
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-3, atol=1e-3)


def test_pag_is_diffusers_own():
    for make in (tiny.pipeline_sdxl, tiny.pipeline_sd15, lambda: sd3(dual_attention_layers=(), qk_norm=None)):
        pipe = make()
        layers = "transformer_blocks.1.attn" if hasattr(pipe, "transformer") else "mid"
        other = AutoPipelineForText2Image.from_pipe(
            pipe, enable_pag=True, pag_applied_layers=["blocks.1" if hasattr(pipe, "transformer") else "mid"]
        )
        other.set_progress_bar_config(disable=True)
        assert torch.equal(under(PAG(2.0, layers=layers), pipe), tiny.generate(other, pag_scale=2.0))


def sd3(**changes):
    pipe = tiny.pipeline_sd3()
    pipe.transformer = tiny.sd3(**changes)
    return pipe


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


def test_a_circulation_beside_another_method():
    pipe = tiny.pipeline_sdxl()
    for baseline in GUIDED:
        with baseline.attach(pipe) as (other, arguments), control(other, Circulation(3.0), layers="up") as handle:
            both = tiny.generate(other, **arguments)
        assert {row.calls for row in handle.summary()} == {3}
        assert (both - under(baseline, pipe)).abs().max() > 1e-3


def test_freeu_puts_back_what_was_there():
    pipe = tiny.pipeline_sdxl()
    pipe.enable_freeu(s1=0.5, s2=0.5, b1=1.1, b2=1.2)
    own, before = tiny.generate(pipe), state(pipe)
    assert not torch.equal(under(FreeU(1.3, 1.4, 0.9, 0.2), pipe), own)
    assert state(pipe) == before
    assert torch.equal(tiny.generate(pipe), own)


@pytest.mark.parametrize("settings", [(1.3, 1, 1, 1), (1, 1.3, 1, 1), (1, 1, 0.5, 1), (1, 1, 1, 0.5)])
def test_every_setting_of_freeu_does_something(settings):
    pipe = tiny.pipeline_sdxl()
    assert (under(FreeU(*settings), pipe) - tiny.generate(pipe)).abs().max() > 1e-3


def test_what_a_baseline_is_not_for():
    sd3_pipe, flux, sdxl = tiny.pipeline_sd3(), tiny.pipeline_flux(), tiny.pipeline_sdxl()
    for baseline, pipe, kind, message in (
        (PAG(3.0), flux, TypeError, "stand in for StableDiffusionPipeline, .*, not for FluxPipeline"),
        (PAG(3.0), sd3_pipe, TypeError, "leaves out the QK-norm that transformer_blocks.1.attn has"),
        (
            PAG(3.0, layers="transformer_blocks.0.*"),
            sd3(qk_norm=None),
            ValueError,
            "transformer_blocks.0.attn2 is no joint attention",
        ),
        (PAG(3.0, layers="nowhere"), sdxl, ValueError, "picks none of"),
        (SEG(3.0), flux, TypeError, "how FluxPipeline guides is not known"),
        (SEG(3.0, layers="nowhere"), sdxl, ValueError, "picks none of"),
        (CirculatedGuidance(1.0, Circulation(0.0)), flux, TypeError, "how FluxPipeline guides is not known"),
        (FreeU(1.2, 1, 1, 1), sd3_pipe, TypeError, "a UNet; StableDiffusion3Pipeline has none"),
        (NullPerturbation(2.0, layers="nowhere"), sdxl, ValueError, "picks none of"),
    ):
        with pytest.raises(kind, match=message):
            baseline.check(pipe)
        with pytest.raises(kind, match=message), baseline.attach(pipe):
            pass


def test_freeu_where_it_would_do_nothing():
    pipe = tiny.pipeline_sdxl(
        block_out_channels=(16,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        attention_head_dim=2, transformer_layers_per_block=1,
    )  # fmt: skip
    FreeU(1.2, 1, 0.9, 1).check(pipe)
    with pytest.raises(TypeError, match="FreeU would do nothing in stage 2 of this UNet2DConditionModel"):
        FreeU(1.2, 1.2, 0.9, 1).check(pipe)
    pipe = tiny.pipeline_sdxl(up_block_types=("AttnUpBlock2D", "CrossAttnUpBlock2D"))
    with pytest.raises(TypeError, match="do nothing in stage 1 of this"):
        FreeU(1.2, 1.2, 0.9, 1).check(pipe)


def test_a_null_moves_each_image_its_own_way_and_in_its_window():
    pipe = tiny.pipeline_sdxl()
    null = NullPerturbation(2.0)
    plain, one = tiny.generate(pipe, size=32), under(null, pipe, [1], size=32)
    assert torch.equal(one, under(null, pipe, [1], size=32))
    assert not torch.equal(one, under(null, pipe, [2], size=32))
    assert not torch.equal(one, under(NullPerturbation(2.0, seed=1), pipe, [1], size=32))
    weak = under(NullPerturbation(2.0, strength=0.1), pipe, [1], size=32)
    assert 0 < (weak - plain).norm() < 0.5 * (one - plain).norm()
    early = []

    def keep(_, step, time, given):
        early.append(given["latents"].clone())
        return given

    under(NullPerturbation(2.0, start=0.6), pipe, [1], size=32, callback_on_step_end=keep)
    tiny.generate(pipe, size=32, callback_on_step_end=keep)
    assert [torch.equal(a, b) for a, b in zip(early[:3], early[3:], strict=True)] == [True, True, False]


def test_the_null_of_an_adaptive_control_is_less_where_it_would_be():
    pipe = tiny.pipeline_sdxl()
    plain = tiny.generate(pipe)
    fixed, adaptive = (under(NullPerturbation(3.0, 2.0, adaptive=kind), pipe) - plain for kind in (None, "sample"))
    assert 0 < adaptive.norm() < fixed.norm()


def test_a_null_that_cannot_be_is_refused():
    pipe = tiny.pipeline_sdxl()
    with pytest.raises(ValueError, match=r"seeds for 3 images, but .* attends for 4 rows"):
        under(NullPerturbation(2.0), pipe, [0, 1, 2], batch=2)
    with pytest.raises(ValueError, match=r"seeds for 2 images, but .* attends for 8 rows"):
        under(NullPerturbation(2.0), pipe, [0, 1], batch=4)
    with pytest.raises(SilentControlError, match="nothing was generated"), NullPerturbation(2.0).attach(pipe):
        pass
    with pytest.raises(ValueError, match="no step lies between"):
        under(NullPerturbation(2.0, start=0.5, stop=0.6), pipe)
    pipe.enable_attention_slicing(1)
    with pytest.raises(SilentControlError, match="out of reach"):
        under(NullPerturbation(2.0), pipe)
