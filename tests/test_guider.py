"""The guider for Modular Diffusers: its formula, by hand and against the weak branch of an ordinary pipeline."""

import itertools
import threading
from typing import Any

import PIL.Image
import pytest
import torch

import tiny
from symskew import Circulation, SilentControlError, control, diagnose
from symskew.guider import CirculatedAttentionGuidance
from symskew.perturbation import Circulating
from symskew.weak import weaken

diffusers = tiny.diffusers
CALM = Circulation(0.0, 2.0)


def modular(guider=None):
    """A tiny SDXL pipeline of Modular Diffusers, and the ordinary one around the same models."""
    plain = tiny.pipeline_sdxl()
    pipe = diffusers.StableDiffusionXLAutoBlocks().init_pipeline()
    pipe.update_components(
        **{name: plain.components[name] for name in pipe.component_names if name in plain.components}
    )
    pipe.set_progress_bar_config(disable=True)
    if guider is not None:
        pipe.update_components(guider=guider)
    return pipe, plain


def generate(pipe, steps=3, batch=1, size=16, **also):
    return pipe(
        prompt=["a red seven"] * batch, num_inference_steps=steps, height=size, width=size, output_type="latent",
        generator=torch.Generator().manual_seed(0), output="images", **also,
    )  # fmt: skip


def close(a, b):
    # Rounding of float32, of latents up to 100.
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def untouched(model):
    return not any(
        {"forward", "_diffusers_hook"} & vars(module).keys() or module._forward_hooks for module in model.modules()
    )


@pytest.mark.parametrize("guidance", [5.0, 1.0])
@pytest.mark.parametrize("circulation", [CALM, Circulation(1.5, 3.0, adaptive="sample")], ids=["calm", "adaptive"])
def test_it_is_the_weak_branch_of_an_ordinary_pipeline(guidance, circulation):
    pipe, plain = modular(CirculatedAttentionGuidance(circulation, guidance, 2.0))
    vanilla = tiny.generate(plain, guidance_scale=guidance, batch=2)
    with weaken(plain, 2.0, Circulating(circulation)):
        wanted = tiny.generate(plain, guidance_scale=guidance, batch=2)
    got = generate(pipe, batch=2)
    close(got, wanted)
    assert (got - vanilla).abs().max() > 1e-2
    assert untouched(pipe.unet)


def test_the_same_guidance_by_hand():
    """A denoising loop of our own: three calls of the UNet, the scheduler, and the formula."""
    guidance, scale, steps, start, stop = 5.0, 3.0, 4, 0.25, 0.75
    guider = CirculatedAttentionGuidance(
        CALM, guidance, scale, layers="up", weak_start=start, weak_stop=stop, guidance_rescale=0.5
    )
    pipe, plain = modular(guider)
    got = generate(pipe, steps)
    with torch.no_grad():
        positive, negative, pooled, negative_pooled = plain.encode_prompt("a red seven")
        plain.scheduler.set_timesteps(steps)
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        ids = torch.tensor([[16.0, 16, 0, 0, 16, 16]])
        for step, time in enumerate(plain.scheduler.timesteps):

            def predict(embeds, pooled, latents=latents, time=time):
                added = {"text_embeds": pooled, "time_ids": ids}
                return plain.unet(latents, time, encoder_hidden_states=embeds, added_cond_kwargs=added)[0]

            c, u = predict(positive, pooled), predict(torch.zeros_like(negative), torch.zeros_like(negative_pooled))
            guided = u + guidance * (c - u)
            if step in (1, 2):
                with control(plain.unet, CALM, layers="up"):
                    w = predict(positive, pooled)
                guided = guided + scale * (c - w)
            rescaled = guided * (c.std((1, 2, 3), keepdim=True) / guided.std((1, 2, 3), keepdim=True))
            latents = plain.scheduler.step((rescaled + guided) / 2, time, latents)[0]
    close(got, latents)


def test_a_control_acts_in_every_pass_and_a_diagnosis_tells_them_apart():
    pipe, plain = modular(CirculatedAttentionGuidance(CALM, 5.0, 2.0))
    strong = Circulation(1.3, 3)
    with control(plain, strong, layers="down"), weaken(plain, 2.0, Circulating(CALM)):
        wanted = tiny.generate(plain)
    with control(pipe, strong, layers="down") as handle, diagnose(pipe) as record:
        close(generate(pipe), wanted)
    assert {row.calls for row in handle.summary()} == {9}
    table = record.to_pandas()
    branches = table.groupby(["layer", "step"]).branch.agg(set)
    middle = branches.index.get_level_values("layer").str.startswith("mid")
    assert all(found == {"conditional", "unconditional"} for found in branches[middle])  # the weak pass is not theirs
    assert all(found == {"conditional", "unconditional", "perturbed"} for found in branches[~middle])
    assert middle.sum() == 2 * 3


@pytest.mark.parametrize("branch", ["conditional", "unconditional"])
def test_a_control_of_one_branch_leaves_the_weak_pass_alone(branch):
    pipe, plain = modular(CirculatedAttentionGuidance(CALM, 5.0, 2.0))
    strong = Circulation(1.3, 3, branch=branch)
    with control(plain, strong, layers="down"), weaken(plain, 2.0, Circulating(CALM)):
        wanted = tiny.generate(plain)
    with control(pipe, strong, layers="down") as handle:
        close(generate(pipe), wanted)
    assert {row.calls for row in handle.summary()} == {3}


def test_the_settings_are_saved_and_loaded(tmp_path):
    guider = CirculatedAttentionGuidance(CALM, 5.0, 3.0, layers=["mid", "up"], weak_stop=0.5)
    guider.save_pretrained(tmp_path)
    others: list[Any] = [CirculatedAttentionGuidance.from_pretrained(tmp_path), guider.new()]
    for other in others:
        assert other.perturbation == guider.perturbation
        assert other.config == guider.config
    stronger: Any = guider.new(weak_scale=1.0)
    assert stronger.weak_scale == 1.0


def test_disabled_it_is_the_conditional_prediction():
    guider = CirculatedAttentionGuidance(CALM, 5.0, enabled=False)
    guider.set_state(0, 3, torch.tensor(0))
    assert guider.num_conditions == 1
    prediction = torch.randn(1, 4)
    assert guider.forward(prediction).pred is prediction


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_breaks_off_leaves_nothing_behind(error):
    unet, guider = tiny.unet_sdxl(), CirculatedAttentionGuidance(CALM)
    vanilla = tiny.run(unet)
    guider.set_state(0, 3, torch.tensor(0))
    for _ in range(3):
        guider.prepare_models(unet)

    def broken(*_):
        raise error

    hook = unet.conv_out.register_forward_hook(broken)
    with pytest.raises(error):
        tiny.run(unet)
    hook.remove()
    assert torch.equal(tiny.run(unet), vanilla)
    assert untouched(unet)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, KeyboardInterrupt])
def test_what_breaks_off_before_the_weak_forward_is_unknown_to_the_next(error, monkeypatch):
    """A ControlNet runs between the guider's announcement of a pass and the denoiser's forward."""
    pipe, plain = modular(CirculatedAttentionGuidance(CALM, 5.0, 2.0))
    net = diffusers.ControlNetModel.from_unet(plain.unet, conditioning_embedding_out_channels=(16, 32))
    pipe.update_components(controlnet=net)
    image = PIL.Image.new("RGB", (16, 16), "red")
    guided, vanilla = generate(pipe, control_image=image), tiny.generate(plain)
    with weaken(plain, 2.0, Circulating(CALM)):
        weakened = tiny.generate(plain)
    forward, calls = net.forward, itertools.count(1)

    def broken(*args, **kwargs):
        if next(calls) % 3 == 0:
            raise error
        return forward(*args, **kwargs)

    def break_off():
        monkeypatch.setattr(net, "forward", broken)
        with pytest.raises(error):
            generate(pipe, control_image=image)
        monkeypatch.setattr(net, "forward", forward)
        assert untouched(pipe.unet)

    for _ in range(2):  # the first time after it, and when that has been
        break_off()
        assert torch.equal(tiny.generate(plain), vanilla)
        assert not plain.unet._forward_pre_hooks
    break_off()
    assert torch.equal(generate(pipe, control_image=image), guided)
    break_off()
    with weaken(plain, 2.0, Circulating(CALM)):
        assert torch.equal(tiny.generate(plain), weakened)


def test_a_pass_that_is_tried_again_is_prepared_again():
    unet, guider = tiny.unet_sdxl(), CirculatedAttentionGuidance(CALM)
    vanilla = tiny.run(unet)
    for _ in range(2):
        guider.set_state(0, 3, torch.tensor(0))
        outs = []
        for _ in range(3):
            guider.prepare_models(unet)
            outs.append(tiny.run(unet))
            guider.cleanup_models(unet)
        assert [torch.equal(out, vanilla) for out in outs] == [True, True, False]
        guider.set_state(1, 3, torch.tensor(0))
        for _ in range(3):
            guider.prepare_models(unet)  # and something breaks off before the forward
    assert not torch.equal(tiny.run(unet), vanilla)
    assert torch.equal(tiny.run(unet), vanilla)


def test_the_pass_of_one_thread_is_not_taken_for_that_of_another():
    unet, guider, got = tiny.unet_sdxl(), CirculatedAttentionGuidance(CALM), []
    vanilla = tiny.run(unet)
    guider.set_state(0, 3, torch.tensor(0))
    for _ in range(3):
        guider.prepare_models(unet)
    thread = threading.Thread(target=lambda: got.append(tiny.run(unet)))
    thread.start()
    thread.join()
    assert torch.equal(got[0], vanilla)
    with pytest.raises(SilentControlError, match="by whoever prepared it"):
        guider.cleanup_models(unet)


def test_a_guider_made_of_it_is_prepared_from_below():
    class Counting(CirculatedAttentionGuidance):
        prepared = 0

        def prepare_models(self, denoiser):
            self.prepared += 1
            super().prepare_models(denoiser)

    guider = Counting(CALM, 5.0, 2.0)
    close(generate(modular(guider)[0]), generate(modular(CirculatedAttentionGuidance(CALM, 5.0, 2.0))[0]))
    assert guider.prepared == 9


def test_what_would_do_nothing_is_an_error():
    for circulation in (Circulation(), {"alpha": 1.0}, Circulation(2.0, 0.0)):
        with pytest.raises(ValueError, match="changes nothing, so there is nothing to guide away from"):
            CirculatedAttentionGuidance(circulation)
    with pytest.raises(ValueError, match="the same for every image"):
        CirculatedAttentionGuidance(Circulation(torch.tensor([[1.0], [2.0]])))
    number: Any = 1.5
    with pytest.raises(ValueError, match="expected a Circulation, got float"):
        CirculatedAttentionGuidance(number)
    with pytest.raises(ValueError, match="scale of a weak branch must be a number above 0, got 0"):
        CirculatedAttentionGuidance(CALM, weak_scale=0)
    with pytest.raises(ValueError, match="start must come before stop"):
        CirculatedAttentionGuidance(CALM, weak_start=0.5, weak_stop=0.5)
    guider = CirculatedAttentionGuidance(CALM, weak_start=0.4, weak_stop=0.6)
    with pytest.raises(ValueError, match=r"no step lies between weak_start=0.4 and weak_stop=0.6: the 3 steps"):
        generate(modular(guider)[0], steps=3)
    with pytest.raises(ValueError, match="picks none of"):
        generate(modular(CirculatedAttentionGuidance(CALM, layers="nowhere"))[0])


def test_what_cannot_be_weak_is_an_error():
    pipe, _ = modular(CirculatedAttentionGuidance(CALM))
    pipe.unet.set_attention_slice(1)
    with pytest.raises(SilentControlError, match="the weak branch would have been as good as the other there"):
        generate(pipe)
    assert untouched(pipe.unet)
    pipe, _ = modular(CirculatedAttentionGuidance(CALM))
    config = diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500
    )
    diffusers.apply_pyramid_attention_broadcast(pipe.unet, config)
    with pytest.raises(ValueError, match="would mistake the weak pass for a step; leave one out"):
        generate(pipe)
    unet, guider = tiny.unet_sdxl(), CirculatedAttentionGuidance(CALM)
    guider.set_state(0, 3, torch.tensor(0))
    for _ in range(3):
        guider.prepare_models(unet)
    with torch.no_grad():
        unet.forward(**tiny.inputs(unet))
    with pytest.raises(SilentControlError, match="went past its forward, so nothing was weak"):
        guider.cleanup_models(unet)
    assert untouched(unet)
