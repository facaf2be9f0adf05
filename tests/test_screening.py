"""Screening: many seeds begun, the best finished, and no image is another for it."""

import itertools
import types
from typing import Any

import pytest
import torch

import tiny
from symskew import Circulation, SilentProbeError, control, diagnose, screen
from symskew.screening import STABLE
from test_attach_traps import caches

diffusers = tiny.diffusers
STRONG = Circulation(1.3, 3)
PIPES = [tiny.pipeline_sd15, tiny.pipeline_sdxl, tiny.pipeline_sd3, tiny.pipeline_flux, tiny.pipeline_pixart]


def by_name(build):
    return build.__name__


def call_of(pipe: Any, **changes: Any) -> dict[str, Any]:
    """The arguments of `tiny.generate`, for one image and without its noise."""
    answers = {"__call__": lambda _, **arguments: types.SimpleNamespace(images=arguments)}
    call = tiny.generate(type(type(pipe).__name__, (), answers)(), steps=5)
    del call["generator"]
    call["prompt"] = "a red seven" if call.get("prompt") else None
    return call | changes


def ordinary(pipe: Any, call: dict[str, Any], *seeds: int) -> Any:
    """What the pipeline gives without any screening, in one batch."""
    repeated = {
        name: value.repeat_interleave(len(seeds), 0)
        if isinstance(value, torch.Tensor)
        else [value] * len(seeds)
        if name == "prompt" and value
        else value
        for name, value in call.items()
    }
    return pipe(**repeated, generator=[torch.Generator().manual_seed(seed) for seed in seeds])[0]


def same(found: Any, pipe: Any, call: dict[str, Any]) -> bool:
    """Whether every image is bit for bit the one its seed gives by itself."""
    pairs = zip(found.images, found.seeds, strict=True)
    return all(torch.equal(image, ordinary(pipe, call, seed)[0]) for image, seed in pairs)


@pytest.mark.parametrize("build", PIPES, ids=by_name)
def test_images_are_those_of_ordinary_calls(build):
    pipe = build()
    call = call_of(pipe)
    found = screen(pipe, **call, seeds=4, keep=2, after=0.4, batch=1)
    assert same(found, pipe, call)
    assert not torch.equal(*found.images)
    assert found.seeds == found.order[:2]
    assert set(found.scores) == set(range(4))
    # In other batches matrix products round differently, and so do ordinary calls.
    together = screen(pipe, **call, seeds=4, keep=2, after=0.4, batch=3)
    assert together.scores == pytest.approx(found.scores, rel=1e-4)
    assert together.order == found.order
    for mine, other in zip(together.images, found.images, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("after", [0.2, 0.5, 1])
@pytest.mark.parametrize("build", [tiny.pipeline_sdxl, tiny.pipeline_sd3, tiny.pipeline_flux], ids=by_name)
def test_keeping_all_is_the_ordinary_generation(build, after):
    pipe = build()
    call = call_of(pipe)
    found = screen(pipe, **call, seeds=[7, 3, 5], keep=3, after=after, batch=3)
    plain = ordinary(pipe, call, 7, 3, 5)
    assert all(
        torch.equal(image, plain[[7, 3, 5].index(seed)]) for image, seed in zip(found.images, found.seeds, strict=True)
    )
    assert found.denoised == found.denoised_if_all == found.denoised_if_random


@pytest.mark.parametrize(
    ("build", "changes"),
    [
        (tiny.pipeline_sdxl, {"guidance_scale": 0.0}),
        (tiny.pipeline_sdxl, {"negative_prompt": "blue 4", "prompt_2": "two", "output_type": "pil"}),
        (tiny.pipeline_pixart, {"guidance_scale": 1.0}),
        (tiny.pipeline_sd3, {"guidance_scale": 0.0}),
        (tiny.pipeline_flux, {"return_dict": False}),
        (
            tiny.pipeline_flux,  # its two branches are two forwards
            {
                "true_cfg_scale": 3.0,
                "negative_prompt_embeds": torch.ones(1, 5, tiny.TEXT),
                "negative_pooled_prompt_embeds": torch.ones(1, 12),
            },
        ),
    ],
    ids=["unguided", "other texts", "unguided too", "flow", "tuple", "two passes"],
)
def test_calls_of_other_kinds(build, changes):
    pipe = build()
    call = call_of(pipe, **changes)
    found = screen(pipe, **call, seeds=3, keep=2, batch=2)
    texts = ("negative_prompt", "prompt_2")
    one = {name: [value] if name in texts and value else value for name, value in call.items()} | {"return_dict": True}
    for image, seed in zip(found.images, found.seeds, strict=True):
        plain = ordinary(pipe, one, seed)[0]
        if changes.get("output_type") == "pil":
            assert image.size == plain.size
            gaps = [abs(a - b) for a, b in zip(image.tobytes(), plain.tobytes(), strict=True)]
            assert max(gaps) <= 1
        else:
            torch.testing.assert_close(image, plain, atol=1e-3, rtol=1e-3)


def pag():
    return tiny.pipeline_sdxl(kind=diffusers.StableDiffusionXLPAGPipeline)


def test_perturbed_attention_guidance():
    pipe = pag()
    call = call_of(pipe, pag_scale=2.0)
    plain = ordinary(pipe, call, 1)
    before = pipe.unet.attn_processors
    found = screen(pipe, **call, seeds=4, keep=2, batch=2, where={"branch": "perturbed"})
    assert pipe.unet.attn_processors == before
    assert torch.equal(ordinary(pipe, call, 1), plain)
    assert same(screen(pipe, **call, seeds=4, keep=2, batch=1), pipe, call)
    assert found.denoised == 3 * (4 * 2 + 2 * 3)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("scheduler", "changes"),
    [
        ("DDIMScheduler", {"eta": 0.7}),
        ("EulerAncestralDiscreteScheduler", {}),
        ("DPMSolverMultistepScheduler", {}),
        ("HeunDiscreteScheduler", {}),
        ("LCMScheduler", {}),
    ],
)
def test_samplers_that_draw_or_remember(scheduler, changes):
    pipe = tiny.pipeline_sdxl(getattr(diffusers, scheduler)())
    call = call_of(pipe, num_inference_steps=4, **changes)
    assert same(screen(pipe, **call, seeds=3, keep=2, after=0.5, batch=1), pipe, call)
    found = screen(pipe, **call, seeds=3, keep=3, after=0.5, batch=3)
    plain = ordinary(pipe, call, 0, 1, 2)
    assert all(torch.equal(image, plain[seed]) for image, seed in zip(found.images, found.seeds, strict=True))


def test_scores_are_those_of_the_first_part_of_the_whole_generation():
    pipe = tiny.pipeline_pixart()
    call = call_of(pipe)
    for measure, where in itertools.product(STABLE, ({}, {"branch": "conditional", "step": range(2), "head": 1})):
        found = screen(pipe, **call, seeds=3, keep=1, after=0.6, batch=3, measure=measure, layers="up", where=where)
        with diagnose(pipe, layers="up", heads="head" in where) as record:
            ordinary(pipe, call, 0, 1, 2)
        scores = record.scores(measure, **{"step": range(3), **where}).tolist()
        assert list(found.scores.values()) == pytest.approx(scores, rel=1e-4)
        assert found.largest == (measure in ("alignment", "symmetry"))
        best = (max if found.largest else min)(range(3), key=scores.__getitem__)
        assert found.seeds == [best]


def test_the_best_may_be_the_other_end_or_by_a_function():
    pipe = tiny.pipeline_sdxl()
    call = call_of(pipe)
    usual = screen(pipe, **call, seeds=5, keep=2, batch=5)
    other = screen(pipe, **call, seeds=5, keep=2, batch=5, largest=False)
    assert other.order == usual.order[::-1]
    assert list(other.scores) == list(usual.scores) == list(range(5))

    def spread(record):
        return record.scores("energy") - record.scores("alignment")

    own = screen(pipe, **call, seeds=5, keep=2, batch=5, measure=spread, largest=False)
    assert own.measure == "spread"
    assert own.order == sorted(own.scores, key=own.scores.__getitem__)


@pytest.mark.parametrize("build", [tiny.pipeline_sdxl, tiny.pipeline_pixart], ids=by_name)
@pytest.mark.parametrize("window", [{}, {"start": 0.5}, {"stop": 0.3}, {"start": 0.2, "stop": 0.5}], ids=str)
def test_within_control_images_and_scores_are_the_controlled_ones(build, window):
    pipe = build()
    call, how = call_of(pipe), {"seeds": 2, "keep": 1, "after": 0.4, "batch": 1}
    vanilla = screen(pipe, **call, **how)
    with control(pipe, STRONG, **window) as handle:
        found = screen(pipe, **call, **how)
    assert min(row.calls for row in handle.summary()) > 0
    assert (found.scores == vanilla.scores) == (window == {"start": 0.5})
    with control(pipe, STRONG, **window):
        assert same(found, pipe, call)
    assert not torch.equal(found.images[0], ordinary(pipe, call, found.seeds[0])[0])


def test_within_a_diagnosis():
    pipe = tiny.pipeline_sdxl()
    with diagnose(pipe) as record:
        screen(pipe, **call_of(pipe), seeds=3, keep=1, after=0.4, batch=3)
    assert record.mean("energy", by=["generation", "step"]).keys() == {(0, 0), (0, 1), (1, 2), (1, 3), (1, 4)}


def test_the_saving_is_what_the_denoiser_did():
    pipe = tiny.pipeline_sdxl()
    rows = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    found = screen(pipe, **call_of(pipe), seeds=6, keep=2, after=0.4, batch=4)
    hook.remove()
    assert found.denoised == sum(rows) == 2 * (6 * 2 + 2 * 3)
    assert found.denoised_if_all == 2 * 6 * 5
    assert found.denoised_if_random == 2 * 2 * 5
    lines = str(found).splitlines()
    assert lines[0] == "2 of 6 seeds finished, those of largest alignment"
    assert lines[1].startswith(f"seeds from best to worst: {found.order[0]} (0.")
    assert f", …, {found.order[-1]} (" in lines[1]
    assert lines[2] == "denoiser rows: 36 spent, 60% of the 60 for all of them; 2 at random take 20"


class Two:
    """A pipeline with a denoiser for each half of the schedule, whose outputs are of diffusers' own class."""

    def __init__(self, scheduler: Any = None) -> None:
        self.transformer, self.transformer_2 = tiny.pixart(seed=0), tiny.pixart(seed=1)
        self.scheduler = scheduler or tiny.ddim()

    def noise(self, generator):
        return torch.cat([torch.randn(1, 4, 8, 8, generator=each) for each in generator])

    @torch.no_grad()
    def __call__(self, steps=4, *, generator):
        self.scheduler.set_timesteps(steps)
        latents = self.noise(generator)
        inputs: dict[str, Any] = tiny.inputs(self.transformer, batch=len(latents)) | {"return_dict": True}
        inputs["encoder_hidden_states"] = inputs["encoder_hidden_states"][:1].expand(len(latents), -1, -1)
        for number, time in enumerate(self.scheduler.timesteps):
            denoiser = self.transformer if 2 * number < steps else self.transformer_2
            out = denoiser(**inputs | {"hidden_states": latents, "timestep": time.expand(len(latents))})
            latents = self.scheduler.step(out.sample[:, :4], time, latents).prev_sample
        return (latents,)


@pytest.mark.parametrize("after", [0.25, 0.5, 0.75])
def test_two_denoisers(after):
    pipe = Two()
    found = screen(pipe, seeds=3, keep=2, after=after, batch=1)
    for image, seed in zip(found.images, found.seeds, strict=True):
        assert torch.equal(image, pipe(generator=[torch.Generator().manual_seed(seed)])[0][0])
    assert found.denoised == 3 * 4 * after + 2 * 4 * (1 - after)


@pytest.mark.parametrize("build", [tiny.pipeline_sdxl, tiny.pipeline_flux], ids=by_name)
def test_model_offloading(build):
    pipe = build()
    call = call_of(pipe)
    wanted = screen(pipe, **call, seeds=3, keep=2, batch=2)
    pipe.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        found = screen(pipe, **call, seeds=3, keep=2, batch=2)
        assert found.seeds == wanted.seeds
        assert found.scores == wanted.scores
        assert all(torch.equal(*pair) for pair in zip(found.images, wanted.images, strict=True))
    assert torch.equal(ordinary(pipe, call, 1), ordinary(build(), call, 1))


def test_group_offloading():
    pipe = tiny.pipeline_flux()
    call = call_of(pipe)
    wanted = screen(pipe, **call, seeds=3, keep=2, batch=2)
    pipe.transformer.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
    found = screen(pipe, **call, seeds=3, keep=2, batch=2)
    assert all(torch.equal(*pair) for pair in zip(found.images, wanted.images, strict=True))


@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_denoisers(in_place):
    pipe = tiny.pipeline_pixart()
    call = call_of(pipe, num_inference_steps=2)
    how: dict[str, Any] = {"seeds": 2, "keep": 1, "after": 0.5, "batch": 1, "layers": "0-0.3"}
    wanted = screen(pipe, **call, **how)
    torch._dynamo.reset()
    if in_place:
        pipe.transformer.compile(backend="eager")
    else:
        pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    compiled = vars(pipe.transformer).get("_compiled_call_impl")
    found = screen(pipe, **call, **how)
    assert vars(pipe.transformer).get("_compiled_call_impl") is compiled
    assert found.order == wanted.order
    torch.testing.assert_close(found.images, wanted.images, atol=1e-3, rtol=1e-3)
    torch._dynamo.reset()


@pytest.mark.parametrize("build", [tiny.pipeline_sdxl, pag], ids=by_name)
@pytest.mark.parametrize("when", [1, 3, 6, 9])  # in the first and second batch of the first part, and of the second
def test_interrupted_at_any_time_the_pipeline_is_as_before(build, when):
    pipe = build()
    call = call_of(pipe)
    plain = ordinary(pipe, call, 1)
    own, freed, ended = dict(vars(pipe.unet)), [], itertools.count(1)
    processors = pipe.unet.attn_processors
    pipe.maybe_free_model_hooks = lambda: freed.append(1)

    def interrupt(*_):
        if next(ended) == when:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        screen(pipe, **call, seeds=4, keep=3, after=0.4, batch=2, callback_on_step_end=interrupt)
    assert freed
    assert vars(pipe.unet) == own
    assert pipe.unet.attn_processors == processors
    assert not any("forward" in vars(module) for module in pipe.unet.modules())
    assert torch.equal(ordinary(pipe, call, 1), plain)


def test_scores_that_are_not_finite_rank_last():
    pipe = tiny.pipeline_sdxl()
    call = call_of(pipe)

    def broken(record):
        return torch.tensor([float("inf"), 0.5, float("nan"), 0.7])

    with pytest.warns(RuntimeWarning, match=r"broken of these seeds is not finite, and they rank last: 0, 2 \("):
        found = screen(pipe, **call, seeds=4, keep=3, batch=4, measure=broken)
    assert found.order == [3, 1, 0, 2]
    with torch.no_grad():
        pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight.fill_(float("nan"))
    message = "the alignment of no seed is finite, so none can be chosen"
    with pytest.raises(FloatingPointError, match=message):
        screen(pipe, **call, seeds=4, keep=3, batch=2)


class Unseeded(Two):
    def noise(self, generator):
        return torch.randn(len(generator), 4, 8, 8)


class Mixing(Two):
    """Each image has two rows side by side."""

    def noise(self, generator):
        return super().noise(generator).repeat_interleave(2, 0)

    def __call__(self, steps=4, *, generator):
        return (super().__call__(steps, generator=generator)[0][::2],)


def test_a_pipeline_that_does_not_repeat_itself():
    message = "gave its denoiser something else.*does not draw all of its noise.*then batch=1 helps"
    with pytest.raises(RuntimeError, match=message):
        screen(Unseeded(), seeds=3, keep=2, batch=1)
    with pytest.raises(RuntimeError, match=message):
        screen(Mixing(), seeds=5, keep=2, batch=3, measure=lambda record: record.scores()[::2])
    with pytest.raises(ValueError, match=r"the record of its batch, where batch=1 may help, gave \(6,\)"):
        screen(Mixing(), seeds=5, keep=2, batch=3)
    assert same(screen(Mixing(), seeds=3, keep=2, batch=1), Mixing(), {})


def image_to_image():
    pipe = tiny.pipeline_sd15()
    made = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def test_image_to_image_begins_later():
    pipe = image_to_image()
    call = {"image": torch.rand(1, 3, 16, 16), "strength": 0.5, "num_inference_steps": 6, "output_type": "latent"}
    with pytest.raises(ValueError, match=r"no step before after=0.3: this generation begins at 0.5 .* a larger after"):
        screen(pipe, "a", seeds=3, keep=2, batch=1, **call)
    found = screen(pipe, "a", seeds=3, keep=2, batch=1, after=0.7, **call)
    assert same(found, pipe, call | {"prompt": "a"})
    assert found.denoised == 2 * (3 * 2 + 2 * 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 5}, "keep must be between 1 and the number of seeds, 4, got 5"),
        ({"keep": 0}, "keep must be between 1"),
        ({"seeds": [1, 2, 1, 2]}, "each seed gives one image, but 1, 2 came more than once"),
        ({"after": 0}, "above 0 and at most 1, got 0"),
        ({"after": 1.1}, "above 0 and at most 1, got 1.1"),
        ({"batch": 0}, "batch is a number of images of at least 1, got 0"),
        ({"measure": "beauty"}, "measure must be one of alignment, energy, .* got 'beauty'"),
        ({"measure": "alpha"}, "measure must be one of"),
        ({"where": {"beach": 1}}, "cannot filter by 'beach'; there are step, timestep"),
        ({"where": {"sample": 0}}, "cannot filter by 'sample'"),
        ({"where": {"step": 0}, "measure": lambda record: None}, "a function filters the record itself"),
        ({"layers": "nowhere"}, "layers='nowhere' picks none"),
        ({"generator": torch.Generator()}, r"give seeds=\[…\] in place of generator="),
        ({"latents": torch.ones(1)}, r"give seeds=\[…\] in place of latents="),
        ({"num_images_per_prompt": 2}, "more seeds in place of num_images_per_prompt=2"),
        ({"prompt": ["a", "b"]}, "for one prompt, but prompt has 2 rows"),
        ({"prompt_embeds": torch.ones(3, 5, 16)}, "for one prompt, but prompt_embeds has 3 rows"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_cannot_be_is_refused_before_any_work(settings, message):
    pipe = tiny.pipeline_sdxl()
    pipe.unet.register_forward_pre_hook(lambda *_: pytest.fail("the denoiser was run"))
    call = {"prompt": "a", "seeds": 4, "keep": 2, **settings}
    with pytest.raises(ValueError, match=message):
        screen(pipe, **call)
    seeds: Any
    for seeds in ([0.5, 1.5], 8.0, None):
        with pytest.raises(TypeError, match="seeds is a number of seeds or a list of whole numbers"):
            screen(pipe, "a", seeds=seeds, keep=1)


def test_targets_that_are_no_pipelines():
    with pytest.raises(TypeError, match="screen runs a whole diffusers pipeline, got UNet2DConditionModel"):
        screen(tiny.unet_sdxl(), "a")
    with pytest.raises(TypeError, match="expected a diffusers pipeline"):
        screen(lambda: None, "a")
    pipe = Two()
    pipe.scheduler = None
    with pytest.raises(ValueError, match="needs a scheduler and a denoiser that takes its timesteps; Two lacks one"):
        screen(pipe)

    class Fixed:
        transformer, scheduler = pipe.transformer, tiny.ddim()

        def __call__(self, steps=4):
            raise AssertionError

    with pytest.raises(ValueError, match="Fixed takes no generator="):
        screen(Fixed())


@pytest.mark.parametrize("name", ["pyramid", "faster", "first block"])
def test_caches_are_refused(name):
    pipe = tiny.pipeline_flux()
    pipe.transformer.enable_cache(caches(pipe)[name])
    with pytest.raises(ValueError, match=r"a cache on the denoiser .* disable_cache\(\) before screen"):
        screen(pipe, **call_of(pipe), seeds=3, keep=2)


def test_what_the_first_batch_shows():
    pipe = tiny.pipeline_sdxl()
    call = call_of(pipe)
    how: dict[str, Any] = {"seeds": 3, "keep": 2, "batch": 3}
    with pytest.raises(ValueError, match="no row of the record has step="):
        screen(pipe, **call, **how, where={"step": range(3, 5)})
    with pytest.raises(ValueError, match=r"one score per image, \(3,\), but the measure gave \(1,\)"):
        screen(pipe, **call, **how, measure=lambda record: torch.ones(1))
    pipe.enable_attention_slicing()
    with pytest.raises(SilentProbeError):
        screen(pipe, **call, **how)
