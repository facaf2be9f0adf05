"""control, enable and disable: nesting, leaving, per-sample settings, what is reported and what is refused."""

import itertools
import sys
import threading
from contextlib import ExitStack
from types import SimpleNamespace

import diffusers.models.attention_processor as processors
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tiny
from symskew import seam
from symskew.attach import SilentControlError, control, disable, enable
from symskew.circulate import Circulation
from symskew.diagnose import diagnose
from symskew.silence import SilentProbeError

STRONG, MILD = Circulation(1.3, 3), Circulation(1.1, 2)


def test_the_control_entered_last_acts():
    model = tiny.flux()
    vanilla = tiny.run(model)
    with control(model, STRONG):
        strong = tiny.run(model)
    with control(model, MILD, layers="mid"):
        part = tiny.run(model)
    with control(model, STRONG) as outer:
        with control(model, MILD):
            mild = tiny.run(model)
            with control(model, Circulation()) as identity:
                assert torch.equal(tiny.run(model), vanilla)
            with control(model, STRONG, layers="0-0.5"), control(model, STRONG, layers="0.5-1"):
                assert torch.equal(tiny.run(model), strong)
        with control(model, Circulation(), layers=["down", "up"]), control(model, MILD, layers="mid"):
            assert torch.equal(tiny.run(model), part)
        assert torch.equal(tiny.run(model), strong)
    assert not torch.equal(mild, strong)
    assert [row.calls for row in identity.summary()] == [1] * 5
    assert [row.calls for row in outer.summary()] == [1] * 5  # where others made the attention is theirs to count


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_leaving_in_any_order_restores(order):
    model = tiny.pixart()
    settings = [STRONG, MILD, Circulation(0.8, 2)]
    alone = [tiny.run(model)]
    for some in settings:
        with control(model, some):
            alone.append(tiny.run(model))
    handles = dict(enumerate(enable(model, some) for some in settings))
    assert torch.equal(tiny.run(model), alone[3])
    with ExitStack() as shadowed:
        for handle in handles.values():
            shadowed.callback(handle.close)
        for index in order:
            disable(handles.pop(index))
            assert torch.equal(tiny.run(model), alone[max(handles, default=-1) + 1])


def test_disable_by_target():
    pipe = tiny.pipeline_pixart()
    vanilla = tiny.generate(pipe)
    with pytest.raises(ValueError, match="nothing is enabled on this PixArtAlphaPipeline"):
        disable(pipe)
    first, second = enable(pipe, STRONG), enable(pipe.transformer, MILD)
    tiny.generate(pipe)
    disable(pipe)
    assert not first.open
    assert not second.open
    assert torch.equal(tiny.generate(pipe), vanilla)
    assert not [name for name in vars(pipe.transformer) if "symskew" in name]
    with pytest.raises(ValueError, match="nothing is enabled on this Handle"):
        disable(first)


def test_a_pipeline_and_its_denoiser_are_one_target():
    pipe = tiny.pipeline_flux()
    with control(pipe, STRONG):
        wanted = tiny.generate(pipe)
    with control(pipe.transformer, STRONG):
        assert torch.equal(tiny.generate(pipe), wanted)


def test_nothing_but_the_denoiser_is_touched():
    pipe = tiny.pipeline_sdxl()
    others = [pipe.vae, pipe.text_encoder, pipe.text_encoder_2]
    with control(pipe, STRONG):
        for part in others:
            assert not any({"forward", "_diffusers_hook"} & vars(module).keys() for module in part.modules())
            assert not any(module._forward_hooks or module._forward_pre_hooks for module in part.modules())
        tiny.generate(pipe, steps=1, output_type="np")
        latents = torch.randn(1, 4, 8, 8)
        inside = pipe.vae.decode(latents).sample
    assert torch.equal(pipe.vae.decode(latents).sample, inside)


def test_two_denoisers_are_told_apart_by_name():
    pipe = SimpleNamespace(transformer=tiny.pixart(), transformer_2=tiny.pixart(seed=1))
    vanilla = tiny.run(pipe.transformer_2)
    with control(pipe, STRONG) as handle:
        assert torch.equal(tiny.run(pipe.transformer), controlled(pipe.transformer))  # the other may never run
    assert [layer.name for layer in handle.layers][2:4] == [
        "transformer.transformer_blocks.2.attn1",
        "transformer_2.transformer_blocks.0.attn1",
    ]
    with control(pipe, STRONG, layers="transformer.*"):
        tiny.run(pipe.transformer)
        assert torch.equal(tiny.run(pipe.transformer_2), vanilla)


def controlled(model, settings=STRONG, **inputs):
    with control(model, settings):
        return tiny.run(model, **inputs)


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
def test_per_sample_alpha_counts_the_images_of_the_call(blocks):
    """Guidance stacks [unconditional, conditional] blocks of the batch: rows go round block by block."""
    model, alphas = tiny.unet_sd15(), [1.3, 0.8, 1.0]
    batch = {"batch": 3 * blocks}
    each = [controlled(model, Circulation(alpha, 3), **batch) for alpha in alphas]
    mixed = controlled(model, Circulation(torch.tensor(alphas)[:, None], 3), **batch)
    for row in range(3 * blocks):
        torch.testing.assert_close(mixed[row], each[row % 3][row], atol=1e-5, rtol=1e-5)


def test_per_sample_alpha_under_guidance():
    pipe = tiny.pipeline_sd15()
    with control(pipe, Circulation(torch.tensor([[1.3], [1.0]]), 3)):
        mixed = tiny.generate(pipe, batch=2)
    with control(pipe, STRONG):
        strong = tiny.generate(pipe, batch=2)
    torch.testing.assert_close(mixed[0], strong[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[1], tiny.generate(pipe, batch=2)[1], atol=1e-4, rtol=1e-4)


def test_per_sample_alpha_where_the_pipeline_does_not_say_that_it_guides():
    """Blocks are told by the same latents coming again; images of one prompt stand together, and need a row each."""
    pipe, alphas = tiny.pipeline_pixart(), torch.tensor([[1.3], [1.0]])
    with control(pipe, Circulation(alphas, 3)):
        mixed = tiny.generate(pipe, batch=2)
    with control(pipe, STRONG):
        strong = tiny.generate(pipe, batch=2)
    torch.testing.assert_close(mixed[0], strong[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[1], tiny.generate(pipe, batch=2)[1], atol=1e-4, rtol=1e-4)
    message = r"attends for 8 rows, 4 samples in 2 block\(s\) of guidance; give one row"
    with pytest.raises(ValueError, match=message), control(pipe, Circulation(alphas, 3)):
        tiny.generate(pipe, batch=2, num_images_per_prompt=2)


def test_per_head_and_per_sample_beta():
    model = tiny.pixart()
    beta = torch.tensor([[3.0, 1.0], [2.0, 0.0]])
    every = [controlled(model, Circulation(1.3, beta[row][None])) for row in range(2)]
    mixed = controlled(model, Circulation(1.3, beta))
    for row in range(2):
        torch.testing.assert_close(mixed[row], every[row][row], atol=1e-5, rtol=1e-5)


def test_sizes_that_do_not_fit_are_named():
    model = tiny.pixart()
    with pytest.raises(ValueError, match=r"given for 3 samples, but transformer_blocks.0.attn1 attends for 2"):
        controlled(model, Circulation(torch.ones(3, 1) * 1.3, 3))
    with pytest.raises(ValueError, match=r"alpha \(1, 3\) does not fit .* \(at transformer_blocks.0.attn1\)"):
        controlled(model, Circulation(torch.ones(1, 3) * 1.3, 3))


def test_summary():
    model = tiny.pixart()
    with control(model, STRONG, layers="down") as handle:
        assert handle.summary() == (("transformer_blocks.0.attn1", "down", 2, None, None, 0, ""),)
        tiny.run(model)
        tiny.run(model)
    (row,) = handle.summary()
    assert row == ("transformer_blocks.0.attn1", "down", 2, 8, 16, 2, "sdpa")
    assert str(handle.summary()).split("\n") == [
        "layer                       stage  heads  head_dim  tokens  calls  backend",
        "transformer_blocks.0.attn1  down   2      8         16      2      sdpa",
    ]


BMM = {
    "AttnProcessor": (lambda unet: unet.set_default_attn_processor(), "it multiplies matrices itself; model.set_attn"),
    "SlicedAttnProcessor": (lambda unet: unet.set_attention_slice(1), "pipe.disable_attention_slicing"),
}


@pytest.mark.parametrize("processor", BMM)
def test_processors_out_of_reach_are_an_error_with_the_way_out(processor):
    unet = tiny.unet_sd15()
    change, way_out = BMM[processor]
    vanilla = tiny.run(unet)
    change(unet)
    with pytest.raises(SilentControlError) as caught, control(unet, STRONG):
        tiny.run(unet)
    message = str(caught.value)
    assert "4 of the 4 chosen layers computed their attention out of reach" in message
    assert f": {processor}; {way_out}" in message
    assert "down_blocks.0.attentions.0.transformer_blocks.0.attn1" in message
    torch.testing.assert_close(tiny.run(unet), vanilla, atol=1e-5, rtol=1e-5)
    with control(unet, Circulation()):  # the identity asks for nothing
        tiny.run(unet)


def test_one_layer_out_of_reach_is_enough():
    unet = tiny.unet_sd15()
    name = "mid_block.attentions.0.transformer_blocks.0.attn1"
    unet.get_submodule(name).set_processor(processors.SlicedAttnProcessor(1))
    with pytest.raises(SilentControlError, match=f"1 of the 4 chosen layers .*\n  {name}: SlicedAttnProcessor;"):
        controlled(unet)
    with control(unet, STRONG, layers=["down", "up"]):
        tiny.run(unet)


def test_xformers_is_out_of_reach(monkeypatch):
    def attention(q, k, v, attn_bias=None, **_):
        return F.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v

    stand_in = SimpleNamespace(ops=SimpleNamespace(memory_efficient_attention=attention))
    monkeypatch.setattr(processors, "xformers", stand_in)
    unet = tiny.unet_sd15()
    vanilla = tiny.run(unet)
    unet.set_attn_processor(processors.XFormersAttnProcessor())
    torch.testing.assert_close(tiny.run(unet), vanilla, atol=1e-5, rtol=1e-5)
    message = r"XFormersAttnProcessor; pipe\.disable_xformers_memory"
    with pytest.raises(SilentControlError, match=message):
        controlled(unet)
    with pytest.raises(SilentProbeError, match=message), diagnose(unet):
        tiny.run(unet)


def test_an_attention_function_that_was_replaced_is_out_of_reach(monkeypatch):
    torchs = F.scaled_dot_product_attention

    def replaced(*args, **kwargs):  # as is done to have another kernel everywhere; the mode does not see it
        with torch._C.DisableTorchFunction():
            return torchs(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", replaced)
    with pytest.raises(SilentControlError, match=r"something has replaced torch\.nn\.functional\.scaled_dot_product"):
        controlled(tiny.pixart())


def test_a_block_in_which_nothing_happens_is_an_error():
    model = tiny.pixart()
    message = "ended without having touched anything: nothing was generated under it"
    with pytest.raises(SilentControlError, match=message), control(model, STRONG):
        pass
    enable(model, STRONG)
    with pytest.raises(SilentControlError, match="nothing was generated"):
        disable(model)
    with pytest.raises(ZeroDivisionError), control(model, STRONG):
        raise ZeroDivisionError  # not hidden behind the other error
    with pytest.raises(SilentControlError), control(model, Circulation()):
        pass


def test_several_silent_handles_are_all_undone():
    model = tiny.pixart()
    handles = [enable(model, STRONG) for _ in range(3)]
    with pytest.raises(SilentControlError):
        disable(model)
    assert not any(handle.open for handle in handles)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_not_finite_name_the_layer(bad, dtype):
    model = tiny.pixart().to(dtype)
    inputs = {
        name: value.to(dtype) if isinstance(value, torch.Tensor) else value
        for name, value in tiny.inputs(model).items()
    }
    with torch.no_grad():
        model.transformer_blocks[1].attn1.to_v.bias[3] = bad
        message = r"not finite, first at transformer_blocks.1.attn1 \(2 of 3 layers\), timestep 500: half precision"
        with pytest.raises(FloatingPointError, match=message), control(model, STRONG):
            model(**inputs)


def test_arguments_are_checked_before_anything():
    model = tiny.pixart()
    with pytest.raises(TypeError, match="expected a Circulation, got float"), control(model, 1.3):  # type: ignore[arg-type]
        pass
    with pytest.raises(TypeError, match="expected a diffusers pipeline"), control("sdxl", STRONG):
        pass
    with pytest.raises(ValueError, match="no self-attention layer"), control(nn.Linear(2, 2), STRONG):
        pass
    with pytest.raises(ValueError, match="layers='nowhere' picks none"):
        enable(model, STRONG, layers="nowhere")
    assert not vars(model).keys() & {"_symskew_enabled"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_generation_that_is_broken_off_restores(error):
    pipe = tiny.pipeline_sd15()
    vanilla = tiny.generate(pipe)

    def stop(pipe, step, time, arguments):
        if step == 1:
            raise error
        return arguments

    with pytest.raises(error), control(pipe, STRONG) as handle:
        tiny.generate(pipe, callback_on_step_end=stop)
    assert torch.equal(tiny.generate(pipe), vanilla)
    assert [row.calls for row in handle.summary()] == [2] * 4
    assert seam.local.frame is None


def test_two_pipelines_at_once():
    pipes, settings = [tiny.pipeline_flux(), tiny.pipeline_flux(seed=3)], [STRONG, MILD]
    alone = []
    for pipe, some in zip(pipes, settings, strict=True):
        with control(pipe, some):
            alone.append(tiny.generate(pipe))
    with control(pipes[0], STRONG), control(pipes[1], MILD):
        assert torch.equal(tiny.generate(pipes[0]), alone[0])
        assert torch.equal(tiny.generate(pipes[1]), alone[1])


@pytest.mark.parametrize("build", [tiny.pipeline_flux, tiny.pipeline_pixart], ids=lambda build: build.__name__)
def test_two_threads_with_a_pipeline_each(build):
    pipes, settings = [build(), build(seed=3)], [STRONG, MILD]
    vanilla = [tiny.generate(pipe) for pipe in pipes]
    alone = []
    for pipe, some in zip(pipes, settings, strict=True):
        with control(pipe, some):
            alone.append(tiny.generate(pipe))
    got: dict[int, list] = {0: [], 1: []}
    start = threading.Barrier(3)

    def work(index):
        start.wait()
        for _ in range(4):
            with control(pipes[index], settings[index]):
                got[index].append(torch.equal(tiny.generate(pipes[index]), alone[index]))
            got[index].append(torch.equal(tiny.generate(pipes[index]), vanilla[index]))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        start.wait()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert got == {0: [True] * 8, 1: [True] * 8}


def test_gradients_flow_through_control():
    model = tiny.pixart()
    model.enable_gradient_checkpointing()
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    grads = []
    for checkpointing in (True, False):
        model.gradient_checkpointing = checkpointing
        model.zero_grad()
        with control(model, STRONG):
            model(**tiny.inputs(model))[0].square().sum().backward()
        grads.append(model.transformer_blocks[0].attn1.to_q.weight.grad.clone())
    torch.testing.assert_close(*grads)
    assert grads[0].abs().sum() > 0
