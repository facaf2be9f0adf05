"""A gate on a pipeline: it acts on the samples it should, layer by layer, and says so."""

import json
from dataclasses import replace

import pytest
import torch

import tiny
from symskew import Circulation, Gate, control, diagnose
from symskew.layers import find_layers

STRONG = {"alpha": 1.6, "beta": 3}


def images(pipe, circulation=None, **how):
    if circulation is None:
        return tiny.generate(pipe, **how)
    with control(pipe, circulation):
        return tiny.generate(pipe, **how)


@pytest.mark.parametrize("build", [tiny.pipeline_sdxl, tiny.pipeline_sd3], ids=lambda build: build.__name__)
def test_closed_is_vanilla_and_open_is_ungated(build):
    pipe = build()
    closed = Circulation(**STRONG, gate=Gate("instability", 1.0))
    opened = Circulation(**STRONG, gate=Gate("instability", 0.0))
    torch.testing.assert_close(images(pipe, closed), images(pipe), atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(images(pipe, opened), images(pipe, Circulation(**STRONG)), atol=2e-3, rtol=1e-3)


def test_an_image_does_not_depend_on_its_batch():
    pipe = tiny.pipeline_sdxl()
    with diagnose(pipe, states="value", features=None) as record:
        tiny.generate(pipe, batch=3, generator=[torch.Generator().manual_seed(n) for n in range(3)])
    middle = Circulation(**STRONG, gate=Gate("alignment", record.mean("alignment")))
    generators = [torch.Generator().manual_seed(n) for n in range(3)]
    together = images(pipe, middle, batch=3, generator=generators)
    for n in range(3):
        alone = images(pipe, middle, batch=1, generator=[torch.Generator().manual_seed(n)])
        torch.testing.assert_close(alone[0], together[n], atol=2e-3, rtol=1e-3)


def test_the_record_tells_where_it_was_open():
    pipe = tiny.pipeline_sdxl()
    with diagnose(pipe, states="value", features=None) as before:
        tiny.generate(pipe)
    layers = [layer.name for layer in before.layers]
    gate = {name: before.mean("alignment", layer=name) for name in layers}
    with control(pipe, Circulation(**STRONG, gate=Gate("alignment", gate))), diagnose(
        pipe, states="value", features=None
    ) as record:  # fmt: skip
        tiny.generate(pipe)
    frame = record.to_pandas()
    vanilla = frame[frame.retrieval == "vanilla"].reset_index()
    controlled = frame[frame.retrieval == "controlled"].reset_index()
    opened = vanilla.alignment < vanilla.layer.astype(str).map(gate) - 1e-6
    closed = vanilla.alignment > vanilla.layer.astype(str).map(gate) + 1e-6
    assert opened.any()
    assert closed.any()
    assert controlled.alpha[opened].to_numpy() == pytest.approx(1.6)
    assert (controlled.alpha[closed] == 1).all()
    assert controlled.energy[closed].to_numpy() == pytest.approx(vanilla.energy[closed].to_numpy(), rel=1e-4)


@pytest.mark.parametrize("settings", [Circulation.skew_only(), Circulation(**STRONG, norm=None)], ids=str)
def test_carried_input_features_go_through_the_gate_too(settings):
    """A closed gate leaves the input features' retrieval vanilla as well, whatever the symmetric part's scale."""
    pipe = tiny.pipeline_sdxl()
    closed = replace(settings, gate=Gate("instability", 1.0))
    with control(pipe, closed), diagnose(pipe, states="input") as record:
        tiny.generate(pipe)
    frame = record.to_pandas()
    vanilla, controlled = (frame[frame.retrieval == name].energy.to_numpy() for name in ("vanilla", "controlled"))
    assert controlled == pytest.approx(vanilla, rel=1e-4)


def test_compiled_layers_of_different_thresholds_share_what_they_can():
    model = tiny.pixart(num_layers=2)
    with diagnose(model, states="value") as record:
        wanted = tiny.run(model)
    gate = Gate("alignment", {layer.name: record.mean("alignment", layer=layer.name) for layer in record.layers})
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager")
    with control(model, Circulation(**STRONG, gate=gate)):
        wanted = tiny.run(model)
        torch.testing.assert_close(tiny.run(compiled), wanted, atol=2e-4, rtol=1e-3)
    torch._dynamo.reset()


def test_a_layer_without_a_threshold_is_refused_before_anything_is_attached():
    model = tiny.pixart()
    name = find_layers(model)[0].name
    with (
        pytest.raises(ValueError, match=r"no threshold for the layer transformer_blocks\.1\.attn1"),
        control(model, Circulation(**STRONG, gate=Gate("energy", {name: 0.0}))),
    ):
        pass
    assert not any(hasattr(module, "_diffusers_hook") for module in model.modules())


def test_settings_survive_json():
    settings = Circulation(1.2, 3, adaptive="sample", gate=Gate("alignment", {"a": 0.2, "b": 0.1}))
    assert Circulation.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
