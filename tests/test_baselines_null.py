"""The matched null: its own way for each image, its window, its strength, and what it cannot be put on."""

from typing import Any

import pytest
import torch

import tiny
from symskew import Ramp, SilentControlError
from symskew.baselines import Baseline, NullPerturbation


def under(baseline, pipe, seeds=(0,), **changes):
    with baseline.attach(pipe, seeds) as (other, arguments):
        return tiny.generate(other, **arguments | changes)


def test_a_null_moves_each_image_its_own_way_and_in_its_window():
    pipe = tiny.pipeline_sdxl()
    null = NullPerturbation(2.0)
    plain, one = tiny.generate(pipe), under(null, pipe, [1])
    assert torch.equal(one, under(null, pipe, [1]))
    assert not torch.equal(one, under(null, pipe, [2]))
    assert not torch.equal(one, under(NullPerturbation(2.0, seed=1), pipe, [1]))
    weak = under(NullPerturbation(2.0, strength=0.1), pipe, [1])
    assert 0 < (weak - plain).norm() < 0.5 * (one - plain).norm()
    early = []

    def keep(_, step, time, given):
        early.append(given["latents"].clone())
        return given

    under(NullPerturbation(2.0, start=0.6), pipe, [1], callback_on_step_end=keep)
    tiny.generate(pipe, callback_on_step_end=keep)
    assert [torch.equal(a, b) for a, b in zip(early[:3], early[3:], strict=True)] == [True, True, False]


def test_the_null_of_an_adaptive_control_is_less_where_it_would_be():
    pipe = tiny.pipeline_sdxl()
    plain = tiny.generate(pipe)
    fixed, adaptive = (under(NullPerturbation(3.0, 2.0, adaptive=kind), pipe) - plain for kind in (None, "sample"))
    assert 0 < adaptive.norm() < fixed.norm()


def test_the_null_of_a_schedule_follows_it():
    """Every forward of the run is that of a null with the numbers of its step, and vanilla where there is no step."""
    pipe, log = tiny.pipeline_sdxl(), []
    note = pipe.unet.register_forward_hook(lambda m, a, k, out: log.append((a, k, out[0])), with_kwargs=True)
    under(NullPerturbation(Ramp(3, 1), {"down": 2.0, "mid": 1.0, "up": 3.0}), pipe, [1])
    note.remove()
    for alpha, (args, kwargs, out) in zip((3.0, 2.0), log, strict=False):
        with torch.no_grad(), NullPerturbation(alpha, {"down": 2, "mid": 1, "up": 3}).attach(pipe, [1]):
            assert torch.equal(pipe.unet(*args, **kwargs)[0], out)
    args, kwargs, out = log[2]
    with torch.no_grad():
        assert torch.equal(pipe.unet(*args, **kwargs)[0], out)
    stages = NullPerturbation(dict.fromkeys(("down", "mid", "up"), 2.0))
    assert torch.equal(under(stages, pipe, [1]), under(NullPerturbation(2.0), pipe, [1]))
    parts = [NullPerturbation(2.0, beta, layers=stage) for stage, beta in (("down", 3.0), ("up", 1.5))]
    one = NullPerturbation(2.0, {"down": 3.0, "up": 1.5}, layers=["down", "up"])
    args, kwargs, _ = log[0]
    with torch.no_grad(), parts[0].attach(pipe, [1]), parts[1].attach(pipe, [1]):
        wanted = pipe.unet(*args, **kwargs)[0]
    with torch.no_grad(), one.attach(pipe, [1]):
        assert torch.equal(pipe.unet(*args, **kwargs)[0], wanted)


def test_a_schedule_is_written_down_and_read_again():
    null = NullPerturbation(Ramp(2, 1), {"down": 1, "up": Ramp(5, 1, "cosine")}, layers="up")
    plain = {"name": "null", "alpha": {"start": 2.0, "stop": 1.0}, "layers": "up",
             "beta": {"down": 1.0, "up": {"start": 5.0, "stop": 1.0, "shape": "cosine"}}}  # fmt: skip
    assert null.to_dict() == plain
    spelled = {"name": "null", "alpha": "2..1", "beta": "down=1,up=5..1:cosine", "layers": "up"}
    for written in (plain, spelled):
        assert Baseline.from_dict(written) == null
        assert hash(Baseline.from_dict(written)) == hash(null)


def test_schedules_that_cannot_be_are_refused():
    odd: Any
    for odd, message in (
        (lambda point: 2.0, "alpha is a function, which cannot be written"),
        ("2..x", r"alpha: expected a number, a ramp such as 2..1"),
        (
            torch.tensor([[2.0]]),
            "NullPerturbation: alpha must be a number, a ramp or a value for each stage, got tensor",
        ),
        (True, "NullPerturbation: alpha must be a number, a ramp or a value for each stage, got True"),
        ({"upper": 2.0}, "alpha takes a value for each of the stages down, mid, up, got upper"),
        ({"down": 1.0, "mid": 1.0}, "circulates nothing, so its null does nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            NullPerturbation(odd)
    with pytest.raises(ValueError, match="circulates nothing"):
        NullPerturbation(2.0, {"down": 0.0, "up": 0.0})
    pipe = tiny.pipeline_sdxl()
    with pytest.raises(ValueError, match="alpha has a value for down, but none for the stage mid"):
        under(NullPerturbation({"down": 2.0}), pipe)
    with pytest.raises(ValueError, match="over the steps needs a schedule, and a bare UNet2DConditionModel has none"):
        NullPerturbation(Ramp(2, 1)).check(pipe.unet)


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
