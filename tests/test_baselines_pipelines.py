"""Baselines on pipelines: an effect, one image's independence of the others, and nothing left behind."""

import pytest
import torch

import tiny
from symskew import Circulation, control
from symskew.baselines import PAG, SEG, CirculatedGuidance, FreeU, NullPerturbation

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

    together = under(baseline, pipe, seeds, prompt=prompts, generator=generators(seeds), steps=2)
    for i in range(3):
        alone = under(
            baseline, pipe, seeds[i : i + 1], prompt=prompts[i : i + 1], generator=generators(seeds[i : i + 1]), steps=2
        )
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-3, atol=1e-3)


def test_a_circulation_beside_another_method():
    pipe = tiny.pipeline_sdxl()
    for baseline in GUIDED:
        with baseline.attach(pipe) as (other, arguments), control(other, Circulation(3.0), layers="up") as handle:
            both = tiny.generate(other, **arguments)
        assert {row.calls for row in handle.summary()} == {3}
        assert (both - under(baseline, pipe)).abs().max() > 1e-3


def test_what_a_baseline_is_not_for():
    sd3_pipe, flux, sdxl = tiny.pipeline_sd3(), tiny.pipeline_flux(), tiny.pipeline_sdxl()
    without_norm = tiny.pipeline_sd3()
    without_norm.transformer = tiny.sd3(qk_norm=None)
    for baseline, pipe, kind, message in (
        (PAG(3.0), flux, TypeError, "stand in for StableDiffusionPipeline, .*, not for FluxPipeline"),
        (PAG(3.0), sd3_pipe, TypeError, "leaves out the QK-norm that transformer_blocks.1.attn has"),
        (
            PAG(3.0, layers="transformer_blocks.0.*"),
            without_norm,
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
