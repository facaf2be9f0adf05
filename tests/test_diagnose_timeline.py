"""Which generation, step, sample and branch a measure belongs to."""

import pytest
import torch

import tiny
from symskew import Circulation, control, diagnose
from test_attach_traps import caches


def places(record, *columns):
    return sorted(set(zip(*(record.to_pandas()[name] for name in columns), strict=True)))


def test_guidance_rows_are_samples_and_branches():
    pipe = tiny.pipeline_sdxl()
    with diagnose(pipe) as record:
        tiny.generate(pipe, batch=2)
    assert places(record, "sample", "branch") == [
        (0, "conditional"), (0, "unconditional"), (1, "conditional"), (1, "unconditional")]  # fmt: skip
    assert places(record, "step") == [(0,), (1,), (2,)]
    assert len(record) == len(record.layers) * 3 * 4
    with diagnose(pipe) as alone:
        tiny.generate(pipe, batch=2, guidance_scale=0.0)
    assert places(alone, "branch") == [("conditional",)]


def test_the_conditional_rows_are_those_of_the_prompt():
    """Measured on a pipeline whose two branches get the same text, and on one where only the second differs."""
    pipe = tiny.pipeline_sdxl()

    def measured(**how):
        with diagnose(pipe) as record:
            tiny.generate(pipe, steps=1, **how)
        return record.mean("energy", by=["branch"])

    one, other = measured(prompt="a red seven"), measured(prompt="blue 4")
    assert one["unconditional"] == pytest.approx(other["unconditional"], rel=1e-6)
    assert one["conditional"] != pytest.approx(other["conditional"], rel=1e-6)


def test_three_branches_where_a_layer_sees_only_two():
    pipe = tiny.pipeline_sdxl(kind=tiny.diffusers.StableDiffusionXLPAGPipeline)
    with diagnose(pipe) as record:
        tiny.generate(pipe, pag_scale=2.0, batch=2)
    assert {name for (name,) in places(record, "branch")} == {"unconditional", "conditional", "perturbed"}
    assert places(record, "branch", "stage") == [
        (branch, stage)
        for branch in ("conditional", "perturbed", "unconditional")
        for stage in ("down", "mid", "up")
        if (branch, stage) != ("perturbed", "mid")
    ]
    assert places(record, "sample") == [(0,), (1,)]


def test_a_pipeline_that_does_not_say_whether_it_guides():
    pipe = tiny.pipeline_pixart()
    for scale, branches in ((4.5, ["conditional", "unconditional"]), (1.0, ["conditional"])):
        with diagnose(pipe) as record:
            tiny.generate(pipe, batch=2, guidance_scale=scale)
        assert places(record, "branch") == [(name,) for name in branches]
        assert places(record, "sample") == [(0,), (1,)]


def test_passes_that_are_run_one_by_one_under_names():
    pipe = tiny.pipeline_flux()
    model = pipe.transformer
    pipe.scheduler.set_timesteps(3, mu=0.5)
    with diagnose(pipe) as record:
        for time in pipe.scheduler.timesteps:
            for name in ("cond", "uncond"):
                with model.cache_context(name):
                    tiny.run(model, time=time)
    assert "cache_context" not in vars(model)
    assert places(record, "step", "branch") == [
        (step, branch) for step in range(3) for branch in ("conditional", "unconditional")]  # fmt: skip
    with diagnose(model) as unnamed:
        for time in (900.0, 500.0):
            for _ in range(2):
                tiny.run(model, time=time)
    assert places(unnamed, "generation", "step", "branch") == [
        (0, step, f"pass {number}") for step in range(2) for number in range(2)]  # fmt: skip


def test_passes_of_a_pipeline_that_guides_without_stacking_keep_their_samples_apart():
    pipe = tiny.pipeline_sdxl()
    pipe._guidance_scale = 5.0
    assert pipe.do_classifier_free_guidance
    pipe.scheduler.set_timesteps(2)
    with diagnose(pipe) as record:
        for time in pipe.scheduler.timesteps:
            for _ in range(2):
                tiny.run(pipe.unet, time=time, batch=2)
    assert places(record, "sample", "branch") == [
        (sample, f"pass {number}") for sample in range(2) for number in range(2)]  # fmt: skip
    assert len(record) == len(record.layers) * 2 * 4


def test_generations_are_told_apart():
    pipe = tiny.pipeline_sdxl()
    with diagnose(pipe) as record:
        for steps in (2, 1, 1):
            tiny.generate(pipe, steps=steps)
    assert places(record, "generation", "step") == [(0, 0), (0, 1), (1, 0), (2, 0)]
    assert record.scores().shape == (3,)
    model = tiny.unet_sdxl()
    with diagnose(model) as bare:
        for time in (900.0, 500.0, 900.0):
            tiny.run(model, time=time)
    assert places(bare, "generation", "step", "timestep") == [(0, 0, 900.0), (0, 1, 500.0), (1, 0, 900.0)]


def test_steps_are_places_in_the_schedule():
    pipe = tiny.pipeline_sd15()
    image = tiny.diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    image.set_progress_bar_config(disable=True)
    with diagnose(image) as record:
        image("a", image=torch.rand(1, 3, 16, 16), strength=0.5, num_inference_steps=6, output_type="latent")
    assert places(record, "step") == [(3,), (4,), (5,)]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_samplers_of_second_order_run_a_time_twice():
    pipe = tiny.pipeline_sdxl(tiny.diffusers.HeunDiscreteScheduler())
    with diagnose(pipe) as record:
        tiny.generate(pipe, steps=3)
    assert places(record, "step") == [(step,) for step in range(len(pipe.scheduler.timesteps))]
    assert places(record, "branch") == [("conditional",), ("unconditional",)]
    assert len(record) == len(record.layers) * 5 * 2


@pytest.mark.parametrize("name", ["pyramid", "faster", "first block"])
def test_caches_leave_gaps_not_shifted_steps(name):
    pipe = tiny.pipeline_flux()
    with diagnose(pipe) as full:
        tiny.generate(pipe, steps=6)
    pipe.transformer.enable_cache(caches(pipe)[name])
    with diagnose(pipe) as record:
        tiny.generate(pipe, steps=6)
    times = dict(places(full, "step", "timestep"))
    assert len(record) < len(full)
    assert all(times[step] == time for step, time in places(record, "step", "timestep"))
    assert len(places(record, "step")) > 1


def test_every_other_step():
    pipe = tiny.pipeline_sdxl()
    with diagnose(pipe) as full:
        tiny.generate(pipe, steps=5)
    with diagnose(pipe, every=2) as record:
        tiny.generate(pipe, steps=5)
    assert places(record, "step") == [(0,), (2,), (4,)]
    assert record.mean("energy", step=[0, 2, 4]) == full.mean("energy", step=[0, 2, 4])


def test_two_denoisers_share_a_generation():
    pipe = tiny.pipeline_flux()
    pipe.transformer_2 = tiny.flux(seed=1)
    pipe.scheduler.set_timesteps(4, mu=0.5)
    with diagnose(pipe) as record:
        for number, time in enumerate(pipe.scheduler.timesteps):
            tiny.run(pipe.transformer if number < 2 else pipe.transformer_2, time=time)
    assert places(record, "generation", "step") == [(0, step) for step in range(4)]
    first = {str(name).split(".")[0] for name, step in places(record, "layer", "step") if step < 2}
    assert first == {"transformer"}


def test_a_control_within_a_window_leaves_vanilla_rows_outside():
    pipe = tiny.pipeline_sdxl()
    with diagnose(pipe) as record, control(pipe, Circulation(1.3, 3), stop=0.4, layers="up"):
        tiny.generate(pipe)
    controlled = set(places(record, "retrieval", "step", "stage"))
    assert ("controlled", 0, "up") in controlled
    assert not any(which == "controlled" and (step > 1 or stage != "up") for which, step, stage in controlled)
    assert record.mean("alpha", step=0, stage="up") == pytest.approx(1.3)
    assert record.mean("alpha", step=2) == 1
