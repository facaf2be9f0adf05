"""What may change under a control, between its beginning and its end: processors, schedulers, copies, rows."""

import copy

import diffusers.models.attention_processor as processors
import pytest
import torch
from diffusers.schedulers.scheduling_lcm import LCMScheduler

import tiny
from symskew import Circulation, SilentControlError, SilentProbeError, control, diagnose, disable, enable

diffusers = tiny.diffusers
STRONG = Circulation(1.3, 3)


def test_a_processor_changed_on_the_way_is_an_error_not_silence():
    """Also when the layer had been reached before: each forward is looked at."""
    model = tiny.pixart()
    handle = enable(model, STRONG)
    tiny.run(model)
    model.set_attn_processor(processors.AttnProcessor())
    with pytest.raises(SilentControlError, match="it multiplies matrices itself"):
        tiny.run(model)
    model.set_attn_processor(processors.AttnProcessor2_0())
    disable(handle)

    def change():
        tiny.run(model)
        model.set_attn_processor(processors.AttnProcessor())
        tiny.run(model)

    with pytest.raises(SilentProbeError, match="it multiplies matrices itself"), diagnose(model):
        change()


def test_a_cache_excuses_none_but_the_layers_it_is_on():
    model = tiny.pixart()
    config = diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_block_identifiers=("transformer_blocks.0",),
        current_timestep_callback=lambda: 500,
    )
    diffusers.apply_pyramid_attention_broadcast(model, config)
    with control(model, STRONG) as handle:
        tiny.run(model)
        tiny.run(model)
        assert [row.calls for row in handle.summary()] == [1, 2, 2]
        model.set_attn_processor(processors.AttnProcessor())
        with pytest.raises(SilentControlError, match=r"(?s)2 of the 3 .* transformer_blocks.1.attn1, transf"):
            tiny.run(model)
        model.set_attn_processor(processors.AttnProcessor2_0())


def test_a_controlled_model_is_not_copied_but_saved(tmp_path):
    """diffusers' hooks refer to their module: the copy of a hooked model runs the layers of the original."""
    model = tiny.pixart()
    vanilla = tiny.run(model)
    with control(model, STRONG):
        with pytest.raises(TypeError, match="cannot be copied or pickled while it is controlled"):
            copy.deepcopy(model)
        model.save_pretrained(tmp_path)
        assert not torch.equal(tiny.run(model), vanilla)
    for duplicate in (copy.deepcopy(model), type(model).from_pretrained(tmp_path)):
        assert torch.equal(tiny.run(duplicate), vanilla)


def test_layers_run_one_by_one_are_checked_on_leaving():
    attention = [tiny.pixart().transformer_blocks[0].attn1 for _ in range(2)]
    layers, x = torch.nn.ModuleList(attention), torch.randn(1, 16, attention[0].to_q.in_features)
    with control(layers, STRONG):
        assert all(layer(x).isfinite().all() for layer in layers)
    with pytest.raises(SilentControlError, match="1 of the 2 chosen layers"), control(layers, STRONG):
        attention[0](x)
    with torch.no_grad():
        attention[1].to_v.weight[0] = float("nan")
    with pytest.raises(FloatingPointError, match="first at 1"), control(layers, STRONG):
        [layer(x) for layer in layers]


class Mixer(torch.nn.Module):
    """Cross-attention under a name of its own, with as many tokens on either side."""

    def __init__(self):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (torch.nn.Linear(8, 8) for _ in range(3))

    def forward(self, h, cond=None):
        other = h if cond is None else cond
        q, k, v = (t.unsqueeze(1) for t in (self.to_q(h), self.to_k(other), self.to_v(other)))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def test_cross_attention_under_any_name_is_left_alone():
    model = torch.nn.Sequential(Mixer())
    h, cond = torch.randn(2, 1, 5, 8)
    vanilla = model[0](h, cond=cond)
    with pytest.raises(SilentControlError), control(model, STRONG):
        assert torch.equal(model[0](h, cond=cond), vanilla)
    with control(model, STRONG):
        assert not torch.equal(model(h), model[0](h, cond=h.clone()))


def test_per_sample_alpha_knows_the_blocks_of_guidance():
    pipe = tiny.pipeline_sdxl()
    two = Circulation(torch.tensor([[1.0], [2.0]]), 2.0)
    how = {"num_inference_steps": 2, "output_type": "latent", "guidance_scale": 3.0}
    with pytest.raises(ValueError, match=r"given for 2 samples, .* 8 rows, 4 samples in 2 block"), control(pipe, two):
        pipe(["a", "b"], num_images_per_prompt=2, **how)
    with control(pipe, two):
        pipe(["a", "b"], **how)


def test_a_scheduler_changed_under_control_is_read_anew():
    pipe = tiny.pipeline_sdxl()
    handle = enable(pipe, STRONG, stop=0.5)
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    pipe("a", num_inference_steps=4, output_type="latent", guidance_scale=3.0)
    assert handle.summary()[0].calls == 2
    disable(handle)
