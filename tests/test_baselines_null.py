"""The matched null: its own way for each image, its window, its strength, and what it cannot be put on."""

import pytest
import torch

import tiny
from symskew import SilentControlError
from symskew.baselines import NullPerturbation


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
