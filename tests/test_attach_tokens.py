"""Joint attention controlled among the image's tokens alone, against the equations written out densely."""

import pytest
import torch

import tiny
from symskew import Circulation, control, diagnose
from symskew.layers import find_layers
from test_attach_models import record, reference

TEXT = 5
SETTINGS = {
    "blend": Circulation(1.6, 3, tokens="image"),
    "replace": Circulation(0.4, norm=None, tokens="image"),
    "adaptive": Circulation(1.6, 3, adaptive="sample", tokens="image"),
    "input": Circulation(1.6, 3, space="input", tokens="image"),
}


def place(attention, hidden, context):
    """The image's tokens: first in SD3, where one layer of the first block has no others; last in FLUX."""
    if "Flux" in type(attention).__name__:
        return slice(TEXT, None)
    return slice(None) if context is None else slice(0, hidden.shape[1])


def assert_close(got, want):
    # float32 against float64, through two projections of about unit scale.
    torch.testing.assert_close(got.double(), want, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("build", [tiny.sd3, tiny.flux], ids=lambda build: build.__name__)
def test_every_layer_equals_the_dense_reference(build, settings):
    model = build()
    seen = record(model)
    with control(model, settings) as handle:
        tiny.run(model)
    assert len(handle.layers) > 3
    for layer in handle.layers:
        hidden, context, rotary, output = seen[layer.name]
        image = place(layer.module, hidden, context)
        flux = build is tiny.flux
        want = reference(layer.module, hidden, context, rotary, settings, flux, image)
        every = reference(layer.module, hidden, context, rotary, settings, flux)
        got = output if isinstance(output, tuple) else (output,)
        for stream, tensor in zip(("image", "text"), got, strict=False):
            assert_close(tensor, want[stream])
        if image != slice(None):  # and the tolerance tells it from control of all tokens
            assert (want["image"] - every["image"]).abs().max() > 1e-3


def test_the_text_stream_is_what_it_would_be():
    model = tiny.sd3()
    seen = record(model)
    with control(model, SETTINGS["blend"]):
        tiny.run(model)
    attention = model.transformer_blocks[0].attn
    hidden, context, rotary, output = seen["transformer_blocks.0.attn"]
    assert_close(output[1], reference(attention, hidden, context, rotary, Circulation(), False)["text"])


@pytest.mark.parametrize("build", [tiny.pipeline_sd3, tiny.pipeline_flux], ids=lambda build: build.__name__)
def test_pipelines(build):
    pipe = build()
    vanilla = tiny.generate(pipe)
    with control(pipe, Circulation(1.6, 3)):
        every = tiny.generate(pipe)
    with control(pipe, Circulation(1.6, 3, tokens="image")):
        image = tiny.generate(pipe)
    assert not torch.equal(image, vanilla)
    assert not torch.equal(image, every)
    assert torch.equal(tiny.generate(pipe), vanilla)
    with control(pipe, Circulation(tokens="image")):
        assert torch.equal(tiny.generate(pipe), vanilla)


def test_a_diagnosis_sees_what_acts():
    model = tiny.flux()
    with control(model, SETTINGS["blend"]) as handle, diagnose(model, states="value", features=None) as value:
        wanted = tiny.run(model)
    with control(model, SETTINGS["blend"]), diagnose(model, states="input", features=None) as features:
        assert torch.equal(tiny.run(model), wanted)
    for record_ in (value, features):
        frame = record_.to_pandas()
        controlled = frame[frame.retrieval == "controlled"]
        assert controlled.alpha.to_numpy() == pytest.approx(1.6)
        assert len(controlled) == len(handle.layers) * 2
        vanilla = frame[frame.retrieval == "vanilla"]
        assert (controlled.energy.to_numpy() != vanilla.energy.to_numpy()).all()


def test_compiled_it_is_the_same():
    model = tiny.sd3(num_layers=1)
    with control(model, SETTINGS["blend"]):
        wanted = tiny.run(model)
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="aot_eager")
        torch.testing.assert_close(tiny.run(compiled), wanted, atol=2e-5, rtol=1e-4)
    torch._dynamo.reset()


@pytest.mark.parametrize("build", [tiny.unet_sdxl, tiny.pixart], ids=lambda build: build.__name__)
def test_an_image_without_text_beside_it_is_refused_before_anything_is_attached(build):
    model = build()
    message = r'tokens="image"\) would change nothing: none of the \d+ chosen layers, .* attends to text and image'
    with pytest.raises(ValueError, match=message), control(model, SETTINGS["blend"]):
        pass
    assert not any(hasattr(module, "_diffusers_hook") for module in model.modules())


def test_a_layer_of_the_image_alone_is_refused_when_it_turns_out_to_be_one():
    model = tiny.sd3()
    with pytest.raises(ValueError, match="would change nothing"), control(model, SETTINGS["blend"], layers="*attn2"):
        tiny.run(model)


def test_an_unknown_order_of_tokens_is_refused():
    model = tiny.sd3()
    layers = find_layers(model)
    strange = type("SomeProcessor", (type(layers[0].module.processor),), {})
    for layer in layers:
        vars(layer.module)["processor"] = strange()
    with (
        pytest.raises(ValueError, match="their order in SomeProcessor of transformer_blocks"),
        control(model, SETTINGS["blend"]),
    ):
        pass


def test_tokens_in_no_known_place_are_refused():
    model = tiny.flux()
    arguments = tiny.inputs(model)
    arguments["img_ids"] = arguments["img_ids"] * 3  # as if there were more
    message = r"tokens of .* cannot be known: .*Circulation\(tokens=\"image\"\) needs to know"
    with pytest.raises(ValueError, match=message), control(model, SETTINGS["blend"]):
        model(**arguments)
