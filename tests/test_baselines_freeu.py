"""FreeU: every setting acts, what was there before comes back, and doing nothing is an error."""

import pytest
import torch

import tiny
from symskew.baselines import FreeU


def under(baseline, pipe, seeds=(0,), **changes):
    with baseline.attach(pipe, seeds) as (other, arguments):
        return tiny.generate(other, **arguments | changes)


def settings(pipe):
    return [{name: vars(block).get(name) for name in ("b1", "b2", "s1", "s2")} for block in pipe.unet.up_blocks]


def test_freeu_puts_back_what_was_there():
    pipe = tiny.pipeline_sdxl()
    pipe.enable_freeu(s1=0.5, s2=0.5, b1=1.1, b2=1.2)
    own, before = tiny.generate(pipe), settings(pipe)
    assert not torch.equal(under(FreeU(1.3, 1.4, 0.9, 0.2), pipe), own)
    assert settings(pipe) == before
    assert torch.equal(tiny.generate(pipe), own)


@pytest.mark.parametrize("numbers", [(1.3, 1, 1, 1), (1, 1.3, 1, 1), (1, 1, 0.5, 1), (1, 1, 1, 0.5)])
def test_every_setting_of_freeu_does_something(numbers):
    pipe = tiny.pipeline_sdxl()
    assert (under(FreeU(*numbers), pipe) - tiny.generate(pipe)).abs().max() > 1e-3


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
