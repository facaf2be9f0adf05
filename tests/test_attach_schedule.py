"""The window: which steps of a schedule a control acts on, read from the denoiser's own timestep."""

from types import SimpleNamespace

import pytest
import torch

import tiny
from symskew.attach import SilentControlError, control
from symskew.circulate import Circulation
from symskew.schedule import Window

diffusers = tiny.diffusers
STRONG = Circulation(1.3, 3)
# Forwards of the UNet in five steps; those of the window 0.4 to 0.8 are steps 2 and 3 of 0 to 4.
SCHEDULERS = {
    "DDIMScheduler": (5, 2),
    "EulerDiscreteScheduler": (5, 2),
    "EulerAncestralDiscreteScheduler": (5, 2),
    "DPMSolverMultistepScheduler": (5, 2),
    "LCMScheduler": (5, 2),
    "HeunDiscreteScheduler": (9, 4),  # its nine entries are places 0, 1, 1, 3, 3, 5, 5, 7, 7: those of 3 and 5
    "PNDMScheduler": (6, 2),  # six entries, the second twice: at 3 and 4
}


def record(denoiser):
    """Which forwards were controlled, told by their output against that of the same inputs alone."""
    log = []

    def note(module, args, kwargs, output):
        log.append((args, kwargs, output[0].clone()))

    hook = denoiser.register_forward_hook(note, with_kwargs=True)

    @torch.no_grad()
    def controlled():
        hook.remove()
        return [not torch.equal(denoiser(*args, **kwargs)[0], output) for args, kwargs, output in log]

    return controlled


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own, with new numpy
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_window_of_every_kind_of_schedule(name):
    scheduler = getattr(diffusers, name).from_config(dict(tiny.ddim().config) | {"skip_prk_steps": True})
    pipe = tiny.pipeline_sd15(scheduler)
    controlled = record(pipe.unet)
    with control(pipe, STRONG, start=0.4, stop=0.8) as handle:
        tiny.generate(pipe, steps=5)
    forwards, within = SCHEDULERS[name]
    got = controlled()
    assert len(got) == forwards
    assert {row.calls for row in handle.summary()} == {sum(got)} == {within}


@pytest.mark.parametrize(
    "build", [tiny.pipeline_sd3, tiny.pipeline_flux, tiny.pipeline_sdxl, tiny.pipeline_pixart], ids=lambda b: b.__name__
)
def test_a_window_of_every_kind_of_denoiser(build):
    """SD3 is given the timestep, FLUX a thousandth of it, PixArt one for each sample."""
    pipe = build()
    denoiser = getattr(pipe, "transformer", None) or pipe.unet
    controlled = record(denoiser)
    with control(pipe, STRONG, start=0.25, stop=0.5):
        tiny.generate(pipe, steps=8)
    assert controlled() == [False] * 2 + [True] * 2 + [False] * 4


def test_the_limits_fall_between_steps():
    pipe = tiny.pipeline_pixart()
    for start, stop, want in [(0, 0.3, 3), (0.3, 1, 7), (0.7, 1, 3), (0.29, 0.31, 1), (0.0, 0.001, 1), (0.9, 1, 1)]:
        controlled = record(pipe.transformer)
        with control(pipe, STRONG, start=start, stop=stop):
            tiny.generate(pipe, steps=10)
        assert sum(controlled()) == want, (start, stop)


def test_two_windows_take_turns():
    pipe = tiny.pipeline_pixart()
    with control(pipe, STRONG):
        wanted = tiny.generate(pipe, steps=4)
    with control(pipe, STRONG, stop=0.5) as first, control(pipe, STRONG, start=0.5) as second:
        assert torch.equal(tiny.generate(pipe, steps=4), wanted)
    assert {row.calls for handle in (first, second) for row in handle.summary()} == {2}


def test_image_to_image_counts_in_the_whole_schedule():
    pipe = tiny.pipeline_sd15()
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    controlled = record(pipe.unet)
    with control(pipe, STRONG, start=0.5, stop=0.75):
        pipe("a", image=torch.zeros(1, 3, 16, 16), strength=0.75, num_inference_steps=8, output_type="latent")
    assert controlled() == [False] * 2 + [True] * 2 + [False] * 2


def window(scheduler, start=0.0, stop=0.5, root=None):
    return Window(root or tiny.flux(), lambda: scheduler, start, stop)


def schedule(*timesteps):
    config = SimpleNamespace(num_train_timesteps=1000)
    return SimpleNamespace(timesteps=torch.tensor(timesteps), config=config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1, 1000])  # the first step may look like the last one's time, and the other way
def test_a_timestep_in_half_precision_is_found(dtype, scale):
    steps = torch.linspace(1000, 1, 50).tolist()
    some = window(schedule(*steps))
    held = [some.contains((torch.tensor([step, step]) / scale).to(dtype)) for step in steps]
    assert held == [True] * 25 + [False] * 25


def test_video_models_have_a_time_for_each_frame():
    some = window(schedule(900.0, 600.0, 300.0, 0.0))
    assert some.contains(torch.tensor([[0.0, 600.0, 600.0]]))
    assert not some.contains(torch.tensor([[0.0, 300.0, 300.0]]))


def test_reversed_time():
    class ZImageTransformer2DModel(torch.nn.Module):
        def forward(self, x, t):
            return x

    some = window(schedule(1000.0, 750.0, 500.0, 250.0), 0.0, 0.5, ZImageTransformer2DModel())
    assert [some.contains(torch.tensor([1 - t / 1000])) for t in (1000.0, 750.0, 500.0, 250.0)] == [
        True,
        True,
        False,
        False,
    ]
    assert some.clock.time((0, 1), {}) == 1
    assert some.clock.time((0,), {"t": 2}) == 2


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        (0.5, 0.5, r"start must come before stop, got start=0.5, stop=0.5"),
        (0.8, 0.2, r"start must come before stop"),
        (float("nan"), 1, r"start is a fraction of the schedule between 0 and 1, got nan"),
        (0, float("nan"), r"stop is a fraction .* got nan"),
        (-0.1, 1, r"start is a fraction .* got -0.1"),
        (0, 30, r"stop is a fraction .* got 30"),
        ("0", 1, r"start is a fraction .* got '0'"),
    ],
)
def test_impossible_windows_are_refused_before_anything(start, stop, message):
    with pytest.raises(ValueError, match=message), control("not even a pipeline", STRONG, start=start, stop=stop):
        pass


def test_a_window_without_a_step_is_refused():
    pipe = tiny.pipeline_pixart()
    message = r"no step lies between start=0.3 and stop=0.45: the 4 steps begin at multiples of 0.25; widen"
    with pytest.raises(ValueError, match=message), control(pipe, STRONG, start=0.3, stop=0.45):
        tiny.generate(pipe, steps=4)


def test_a_window_that_is_never_reached_is_an_error():
    pipe = tiny.pipeline_pixart()
    pipe.scheduler.set_timesteps(4)
    message = "no step of the generation lay in its window"
    with pytest.raises(SilentControlError, match=message), control(pipe, STRONG, start=0.5):
        tiny.run(pipe.transformer, time=pipe.scheduler.timesteps[0])


def test_a_window_needs_a_schedule_and_a_timestep():
    message = r"start=0.5, stop=1 needs a schedule, and a bare PixArtTransformer2DModel has none; give the whole"
    with pytest.raises(ValueError, match=message), control(tiny.pixart(), STRONG, start=0.5):
        pass
    with pytest.raises(ValueError, match="needs a timestep, and the forward of Linear takes none of timestep"):
        window(schedule(1.0), root=torch.nn.Linear(2, 2))


def test_a_timestep_of_another_schedule_is_refused():
    message = r"was given timestep 417, which is not in the schedule of SimpleNamespace \(900 … 0\)"
    with pytest.raises(ValueError, match=message):
        window(schedule(900.0, 600.0, 300.0, 0.0)).contains(torch.tensor(417))


def test_steps_in_words():
    some = window(schedule(900.0, 600.0, 300.0, 0.0))
    assert some.describe(torch.tensor([600.0])) == "step 2 of 4, timestep 600"
    assert some.describe(417) == "timestep 417"
    assert some.describe(None) == "at an unknown step"
    assert window(None, 0, 1).describe(417) == "timestep 417"
