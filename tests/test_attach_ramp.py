"""Settings that change along the way, on whole pipelines: each step and layer acts as its own settings would."""

import math

import pytest
import torch
import torch._dynamo.utils as dynamo

import tiny
from symskew import Circulation, Gate, Ramp, control, diagnose
from symskew.attach import SilentControlError
from symskew.schedule import Window
from test_attach_models import reference
from test_attach_schedule import schedule

diffusers = tiny.diffusers
STEPS = 5


class Log:
    """What went into and came out of every attention module, forward by forward, by plain hooks."""

    def __init__(self, denoiser):
        self.forwards = []
        denoiser.register_forward_pre_hook(lambda *_: self.forwards.append({}))
        for name, module in denoiser.named_modules():
            if hasattr(module, "get_processor"):
                module.register_forward_hook(self._note(name), with_kwargs=True)

    def _note(self, name):
        def note(module, args, kwargs, output):
            hidden = args[0] if args else kwargs["hidden_states"]
            context, rotary = kwargs.get("encoder_hidden_states"), kwargs.get("image_rotary_emb")
            self.forwards[-1][name] = hidden, context, rotary, output

        return note


def assert_acts(seen, layer, settings, text_first=False):
    hidden, context, rotary, output = seen[layer.name]
    want = reference(layer.module, hidden, context, rotary, settings, text_first)
    got = output if isinstance(output, tuple) else (output,)
    for stream, tensor in zip(("image", "text"), got, strict=False):
        torch.testing.assert_close(tensor.double(), want[stream], atol=2e-5, rtol=1e-4)


COURSES = {
    "steps": Circulation(Ramp(2, 0.5), 3),
    "cosine": Circulation(1.6, Ramp(0, 4, "cosine")),
    "depth": Circulation(Ramp(0.4, 1.8, over="depth"), 2, adaptive="sample"),
    "stages": Circulation({"down": 1, "mid": Ramp(2, 1), "up": 1.8}, {"down": 1, "mid": 3, "up": Ramp(1, 3)}),
    "function": Circulation(lambda at: 1 + at.progress * at.depth, 3),
}


@pytest.mark.parametrize(
    ("build", "course"),
    [*((tiny.pipeline_sd3, name) for name in COURSES), (tiny.pipeline_flux, "stages"), (tiny.pipeline_sd15, "stages")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_each_step_and_layer_equals_the_dense_reference(build, course):
    pipe, settings = build(), COURSES[course]
    log = Log(pipe.unet if hasattr(pipe, "unet") else pipe.transformer)
    with control(pipe, settings) as handle:
        tiny.generate(pipe, steps=STEPS)
    assert len(log.forwards) == STEPS
    for step, seen in enumerate(log.forwards):
        for layer in handle.layers:
            at = settings.at(progress=step / (STEPS - 1), stage=layer.stage, depth=layer.depth)
            assert_acts(seen, layer, at, "flux" in build.__name__)
    assert {row.calls for row in handle.summary()} == {STEPS}


def acted(pipe, settings, layers=None, **how):
    """The alpha and beta that acted, by step and layer."""
    window = {name: how.pop(name) for name in ("start", "stop") if name in how}
    with control(pipe, settings, layers=layers, **window), diagnose(pipe, layers=layers) as record:
        tiny.generate(pipe, **how)
    frame = record.to_pandas()
    return frame[frame.retrieval == "controlled"].groupby("step", observed=True)[["alpha", "beta"]].mean()


def test_a_window_cuts_a_ramp_off_and_does_not_squeeze_it():
    pipe = tiny.pipeline_pixart()
    found = acted(pipe, Circulation(Ramp(3, 1), Ramp(1, 5)), steps=5, start=0.2, stop=0.8)
    assert list(found.index) == [1, 2, 3]
    assert found.alpha.to_numpy() == pytest.approx([2.5, 2, 1.5])
    assert found.beta.to_numpy() == pytest.approx([2, 3, 4])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own, with new numpy
@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler"])
def test_samplers_that_visit_a_time_twice_reach_both_ends(name):
    scheduler = getattr(diffusers, name).from_config(dict(tiny.ddim().config) | {"skip_prk_steps": True})
    points = []

    def rule(at):
        points.append(at.progress)
        return 1.5

    pipe = tiny.pipeline_sd15(scheduler)
    with control(pipe, Circulation(rule)):
        tiny.generate(pipe, steps=5)
    assert sorted(set(points)) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert points == sorted(points)


def test_image_to_image_begins_in_the_middle():
    pipe = tiny.pipeline_sd15()
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    with control(pipe, Circulation(Ramp(2, 1), 3)), diagnose(pipe) as record:
        pipe("a", image=torch.zeros(1, 3, 16, 16), strength=0.6, num_inference_steps=5, output_type="latent")
    frame = record.to_pandas()
    found = frame[frame.retrieval == "controlled"].groupby("step", observed=True).alpha.mean()
    assert found.to_numpy() == pytest.approx([1.5, 1.25])  # and 1, which is not watched


def test_a_step_where_it_is_one_is_vanilla_bit_for_bit():
    pipe = tiny.pipeline_sd3()
    log = []
    pipe.transformer.register_forward_hook(lambda m, a, k, out: log.append((a, k, out[0])), with_kwargs=True)
    with control(pipe, Circulation(Ramp(2, 1), 3)) as handle:
        controlled = tiny.generate(pipe, steps=3)
    assert {row.calls for row in handle.summary()} == {3}
    found = [torch.equal(pipe.transformer(*args, **kwargs)[0], out) for args, kwargs, out in log[:3]]
    assert found == [False, False, True]
    assert not torch.equal(controlled, tiny.generate(pipe, steps=3))


def test_layers_where_it_is_one_are_not_even_watched():
    pipe = tiny.pipeline_sdxl()
    with control(pipe, Circulation({"down": 1, "mid": 2, "up": 1}, 3)) as handle:
        some = tiny.generate(pipe)
    with control(pipe, Circulation(2, 3), layers="mid"):
        assert torch.equal(tiny.generate(pipe), some)
    assert {row.backend for row in handle.summary() if row.stage != "mid"} == {"untouched"}


def test_a_ramp_is_what_its_steps_are_one_by_one():
    pipe = tiny.pipeline_pixart()
    with control(pipe, Circulation(Ramp(2, 1.2), 3)):
        wanted = tiny.generate(pipe, steps=3)
    with (
        control(pipe, Circulation(2.0, 3), stop=0.3),
        control(pipe, Circulation(1.6, 3), start=0.3, stop=0.6),
        control(pipe, Circulation(1.2, 3), start=0.6),
    ):
        assert torch.equal(tiny.generate(pipe, steps=3), wanted)
    with control(pipe, Circulation(Ramp(2, 1.2), 3)):  # a later generation begins anew
        assert torch.equal(tiny.generate(pipe, steps=3), wanted)
        tiny.generate(pipe, steps=5)
        assert torch.equal(tiny.generate(pipe, steps=3), wanted)


def test_adaptive_and_gate_act_on_the_values_of_the_step():
    pipe = tiny.pipeline_sdxl()
    with diagnose(pipe, states="value", features=None) as before:
        tiny.generate(pipe)
    gate = Gate("alignment", before.mean("alignment"))
    settings = Circulation(Ramp(2, 1), Ramp(1, 3), adaptive="sample", gate=gate)
    with control(pipe, settings), diagnose(pipe, states="value", features=None) as record:
        tiny.generate(pipe)
    frame = record.to_pandas()
    found, vanilla = (frame[frame.retrieval == name].reset_index() for name in ("controlled", "vanilla"))
    ended = found.step == 2  # where alpha is one and the attention not touched
    assert not len(found[ended])
    opened = vanilla.alignment.to_numpy() < gate.threshold
    for step, alpha, beta in ((0, 2.0, 1.0), (1, 1.5, 2.0)):
        at = found.step == step
        eta = vanilla.loc[vanilla.step == step, "symmetry"].to_numpy()
        act = opened[(vanilla.step == step).to_numpy()]
        assert act.any() or step
        assert found.alpha[at].to_numpy()[act] == pytest.approx((1 + (alpha - 1) * eta)[act], rel=1e-4)
        assert found.beta[at].to_numpy()[act] == pytest.approx((beta * (1 - eta))[act], rel=1e-4)
        assert (found.alpha[at].to_numpy()[~act] == 1).all()


def test_per_sample_settings_beside_a_ramp():
    pipe = tiny.pipeline_sd15()
    with control(pipe, Circulation(torch.tensor([[1.3], [1.0]]), Ramp(1, 3))):
        mixed = tiny.generate(pipe, batch=2)
    with control(pipe, Circulation(1.3, Ramp(1, 3))):
        strong = tiny.generate(pipe, batch=2)
    torch.testing.assert_close(mixed[0], strong[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[1], tiny.generate(pipe, batch=2)[1], atol=1e-4, rtol=1e-4)


def test_compiled_a_ramp_takes_no_graph_for_each_step():
    torch._dynamo.reset()
    dynamo.counters.clear()
    pipe = tiny.pipeline_pixart()
    pipe.transformer = tiny.pixart(num_layers=2)
    settings = Circulation({"down": Ramp(2, 0.5), "mid": 3, "up": Ramp(3, 1, "cosine")}, Ramp(3, 1), adaptive="head")
    with control(pipe, settings):
        wanted = tiny.generate(pipe, steps=6)
        pipe.transformer.compile(backend="eager")
        torch.testing.assert_close(tiny.generate(pipe, steps=6), wanted, atol=1e-3, rtol=1e-3)
    assert dynamo.counters["stats"]["unique_graphs"] == 2  # the last step leaves the layers above alone
    torch._dynamo.reset()


def test_depth_and_stages_need_no_schedule():
    model = tiny.flux()
    with (
        control(model, Circulation(Ramp(1.2, 2, over="depth"), {"down": 1, "mid": 2, "up": 3})),
        diagnose(model) as log,
    ):
        tiny.run(model)
    frame = log.to_pandas()
    frame = frame[frame.retrieval == "controlled"].sort_values("depth")
    assert sorted(set(frame.alpha.round(5))) == pytest.approx(
        [1.2 + 0.8 * depth for depth in (0.1, 0.3, 0.5, 0.7, 0.9)]
    )
    assert list(frame.drop_duplicates("layer").beta) == pytest.approx([1, 1, 2, 3, 3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            Circulation(Ramp(2, 1)),
            r"alpha or beta over the steps needs a schedule, and a bare PixArt.* has none; give ",
        ),
        (
            Circulation(2, {"up": Ramp(2, 1)}),
            r"needs a schedule, .* take the settings of one, circulation.at\(progress=",
        ),
    ],
)
def test_the_steps_of_a_bare_module_are_refused_before_anything(settings, message):
    model = tiny.pixart()
    with pytest.raises(ValueError, match=message), control(model, settings):
        pass
    assert not any(hasattr(module, "_diffusers_hook") for module in model.modules())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Circulation(lambda at: 1 + at.progress), "alpha or beta that changes with the steps needs a schedule, and a "),
        (Circulation(2, {"up": 3}), "beta has a value for up, but none for the stage down; give one, or leave its lay"),
        (Circulation(lambda at: math.nan), r"alpha at Point\(.*\) must be a finite number, got nan"),
    ],
)
def test_what_turns_out_to_be_unknown_is_named(settings, message):
    model = tiny.pixart()
    with pytest.raises(ValueError, match=message), control(model, settings):
        tiny.run(model)
    assert not any(hasattr(module, "_diffusers_hook") for module in model.modules())


def test_a_stage_that_is_left_out_of_the_layers_needs_no_value():
    model = tiny.pixart()
    with control(model, Circulation(2, {"up": 3}), layers="up"):
        some = tiny.run(model)
    with control(model, Circulation(2, 3), layers="up"):
        assert torch.equal(tiny.run(model), some)


def test_layers_that_are_run_past_their_model_have_a_place_but_no_step():
    model, x = tiny.pixart(), torch.randn(1, 4, 16)
    for number, value in enumerate((1.25, 1.75, 2.25)):
        attention = model.transformer_blocks[number].attn1
        with control(model, Circulation(value), layers=f"*.{number}.attn1"):
            wanted = attention(x)
        for changing in (Ramp(1, 2.5, over="depth"), {"down": 1.25, "mid": 1.75, "up": 2.25}):
            with control(model, Circulation(changing), layers=f"*.{number}.attn1"):
                torch.testing.assert_close(attention(x), wanted)
    settings = Circulation(lambda point: 1.2 + point.depth)
    message = r"transformer_blocks.0.attn1 was run by a call that went past its model, so neither step nor branch"
    with pytest.raises(ValueError, match=message), control(model, settings):
        model.transformer_blocks[0].attn1(x)


def test_a_generation_out_of_its_window_is_an_error():
    pipe = tiny.pipeline_pixart()
    pipe.scheduler.set_timesteps(4)
    with pytest.raises(SilentControlError), control(pipe, Circulation(Ramp(2, 1)), start=0.5):
        tiny.run(pipe.transformer, time=pipe.scheduler.timesteps[0])


def test_progress():
    some = Window(tiny.flux(), lambda: schedule(900.0, 600.0, 600.0, 300.0, 300.0), 0.0, 1.0)
    assert [some.progress(torch.tensor([time])) for time in (900.0, 600.0, 300.0)] == [0, 0.5, 1]
    single = Window(tiny.flux(), lambda: schedule(900.0), 0.0, 1.0)
    assert single.progress(900.0) == 0
    with pytest.raises(ValueError, match="timestep 417, which is not in the schedule"):
        some.progress(417.0)
