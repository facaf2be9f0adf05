"""What a diagnosis measures: the paper's numbers, of the right layer, step, sample and branch, and no image changed."""

import copy
import math
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

import dense
import tiny
from symskew import Circulation, control, diagnose
from symskew.layers import find_layers
from symskew.seam import Tap
from symskew.session import Session
from test_circulate import Largest
from test_goldens import GOLDENS

STRONG = Circulation(1.3, 3)
MODELS = [tiny.unet_sd15, tiny.unet_sdxl, tiny.sd3, tiny.flux, tiny.pixart]
PIPES = [tiny.pipeline_sd15, tiny.pipeline_sdxl, tiny.pipeline_sd3, tiny.pipeline_flux, tiny.pipeline_pixart]


class Witness(Tap):
    """Keeps what came by: q, k, v, the input, and the result."""

    rank = 2

    def attend(self, call, inner):
        out = inner()
        self.kept = call.q, call.k, call.v, call.x(), out
        return out


def run(model: Any) -> None:
    """One forward on the standard inputs, in the model's dtype."""
    dtype = next(model.parameters()).dtype

    def cast(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: cast(part) for name, part in value.items()}
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    with torch.no_grad():
        model(**cast(tiny.inputs_of(model)))


def witnessed(model: Any) -> list[Any]:
    taps = [Witness(layer) for layer in find_layers(model)]
    with Session(model, taps):
        run(model)
    return [tap.kept for tap in taps]


def values(means: dict[Any, float]) -> torch.Tensor:
    return torch.tensor(list(means.values()), dtype=torch.double)


def by_name(build):
    return build.__name__


@pytest.mark.parametrize("options", [{}, {"maps": True, "heads": True}, {"states": "value", "every": 2}], ids=str)
@pytest.mark.parametrize("build", PIPES, ids=by_name)
def test_images_stay_the_same_bit_for_bit(build, options):
    pipe = build()
    vanilla = tiny.generate(pipe)
    with diagnose(pipe, **options) as record:
        assert torch.equal(tiny.generate(pipe), vanilla)
    assert len(record) > 0
    with control(pipe, STRONG):
        controlled = tiny.generate(pipe)
        with diagnose(pipe, **options):
            assert torch.equal(tiny.generate(pipe), controlled)
    with diagnose(pipe, **options), control(pipe, STRONG):
        assert torch.equal(tiny.generate(pipe), controlled)
    assert torch.equal(tiny.generate(pipe), vanilla)


@pytest.mark.parametrize("states", ["input", "value"])
@pytest.mark.parametrize("build", MODELS, ids=by_name)
def test_measures_are_those_of_the_dense_matrix(build, states):
    model = build().double()
    kept = witnessed(model)
    with diagnose(model, states=states, features=None, heads=True) as record:
        run(model)
    table = record.to_pandas()
    for layer, (q, k, v, x, _) in zip(record.layers, kept, strict=True):
        retrieved = dense.probabilities(q, k, 1, 1, q.shape[-1] ** -0.5) @ (v if states == "value" else x[:, None])
        found = dense.stability(q, k, retrieved)
        eta = dense.symmetry(q, k)
        expected = {name: found[name].mean(-1) for name in ("energy", "instability", "alignment")}
        expected |= {"symmetry": eta, "skew_ratio": ((1 - eta) / (1 + eta)).sqrt(), "alpha": 0 * eta + 1}
        mine = table[table.layer == layer.name].sort_values(["sample", "head"])
        assert set(mine.states) == {states}
        for name, value in expected.items():
            got = torch.tensor(mine[name].to_numpy()).view(value.shape)
            assert torch.allclose(got, value, atol=1e-9, rtol=1e-9), (layer.name, name)


@pytest.mark.parametrize(
    "settings",
    [
        Circulation(1.3, 3, norm=None),
        Circulation(1.3, 3, space="input"),
        Circulation(1.4, 5, adaptive="head", norm=None),
        Circulation.sym_only(),
    ],
    ids=str,
)
@pytest.mark.parametrize("build", [tiny.unet_sdxl, tiny.sd3], ids=by_name)
def test_under_control_vanilla_and_controlled_states_are_both_measured(build, settings):
    model = build().double()
    layers = find_layers(model)[0].name
    with control(model, settings, layers=layers), diagnose(model, features=None, heads=True, layers=layers) as record:
        (q, k, _, x, _), *_ = witnessed(model)
    states = x[:, None].expand(-1, q.shape[1], -1, -1)
    how = {"alpha": settings.alpha, "beta": settings.beta, "sym": settings.sym, "adaptive": settings.adaptive}
    controlled = dense.algorithm2(q, k, states, x=x, norm=settings.norm, **how)
    vanilla = dense.probabilities(q, k, 1, 1, q.shape[-1] ** -0.5) @ states
    for retrieval, retrieved in (("vanilla", vanilla), ("controlled", controlled)):
        found = dense.stability(q, k, retrieved)
        for name in ("energy", "instability", "alignment"):
            mine = record.mean(name, by=["sample", "head"], retrieval=retrieval)
            assert torch.allclose(values(mine), found[name].mean(-1).flatten(), atol=1e-9), name
    eta = dense.symmetry(q, k) if settings.adaptive else torch.zeros(q.shape[:2]).double()
    alpha = 1 + (settings.alpha - 1) * eta if settings.adaptive else 0 * eta + settings.alpha
    for name, value in (("alpha", alpha), ("beta", settings.beta * (1 - eta))):
        assert torch.allclose(values(record.mean(name, by=["sample", "head"])), value.flatten())
    assert set(record.mean("alpha", by=["head"], retrieval="vanilla").values()) == {1.0}


def test_controlled_values_are_what_the_model_went_on_with():
    model = tiny.unet_sdxl()
    with control(model, STRONG), diagnose(model, states="value", features=None, heads=True) as record:
        kept = witnessed(model)
    for layer, (q, k, v, _, out) in zip(record.layers, kept, strict=True):
        for retrieval, states in (
            ("controlled", out),
            ("vanilla", dense.probabilities(q, k, 1, 1, q.shape[-1] ** -0.5) @ v),
        ):
            mine = record.mean("alignment", by=["sample", "head"], layer=layer.name, retrieval=retrieval)
            wanted = dense.stability(q, k, states)["alignment"].mean(-1).flatten()
            assert torch.allclose(values(mine), wanted.double(), atol=1e-4)


def golden_layer():
    width, heads = GOLDENS["x"].shape[-1], GOLDENS["eta"].shape[1]
    layer = Attention(width, heads=heads, dim_head=width // heads)
    for name in ("to_q", "to_k", "to_v"):
        getattr(layer, name).weight.data.copy_(GOLDENS[name])
    return nn.Sequential(layer)


def test_goldens():
    model = golden_layer()
    with diagnose(model, features=None) as record:
        model(GOLDENS["x"])
    for name in ("energy", "instability", "alignment"):
        mine = values(record.mean(name, by=["sample"]))
        assert torch.allclose(mine, GOLDENS[f"stability.default.{name}"].mean(1).double(), atol=1e-5), name
    assert math.isclose(record.mean("symmetry"), GOLDENS["eta"].mean().item(), abs_tol=1e-5)
    assert set(record.mean("energy", by=["states"])) == {"input"}


def test_energy_and_agreement_check_each_other():
    """2·E + Σ λ = 0 (Eq. 27): the energy does not come from the agreement."""
    pipe = tiny.pipeline_sdxl()
    with diagnose(pipe, maps=True, features=None) as record:
        tiny.generate(pipe)
    for name in [layer.name for layer in record.layers]:
        one = {"layer": name, "step": 1, "branch": "conditional"}
        energy, where = record.mean("energy", **one), record.map("agreement", **one)
        assert math.isclose(2 * energy, -where.sum().item(), rel_tol=1e-3, abs_tol=1e-5)


def test_a_subset_of_features_is_unbiased():
    """Each feature is as likely as any other, so the mean over subsets is the mean over all."""
    model, x = golden_layer(), GOLDENS["x"]

    def alignment(**how):
        with diagnose(model, **how) as record:
            model(x)
        return record.mean("alignment")

    every = alignment(features=None)
    draws = torch.tensor([alignment(features=4, seed=seed) for seed in range(300)])
    assert abs(draws.mean() - every) < 4 * draws.std() / 300**0.5
    assert draws.std() > 1e-4
    assert alignment(features=4, seed=7) == alignment(features=4, seed=7)
    assert alignment(features=10_000) == every


def test_the_stages_of_sdxl_are_the_block_ranges_of_table_1():
    """The paper counts self- and cross-attention: 0-47 down, 48-67 mid, 68-139 up."""
    with torch.device("meta"):
        sdxl = tiny.diffusers.UNet2DConditionModel(
            block_out_channels=(320, 640, 1280), layers_per_block=2, cross_attention_dim=2048,
            attention_head_dim=(5, 10, 20), transformer_layers_per_block=(1, 2, 10), use_linear_projection=True,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
    ranges = {"down": range(48), "mid": range(48, 68), "up": range(68, 140)}
    layers = find_layers(sdxl)
    assert [layer.index for layer in layers] == list(range(70))
    assert all(2 * layer.index in ranges[layer.stage] for layer in layers)


def test_nothing_as_large_as_tokens_squared():
    model = golden_layer().eval()
    x = torch.randn(1, 1600, GOLDENS["x"].shape[-1])
    with torch.no_grad(), diagnose(model, features=None, maps=True), Largest() as largest:
        model(x)
    assert largest.numel < 1600**2 / 2


@pytest.mark.parametrize("build", [tiny.unet_sdxl, tiny.sd3, tiny.flux], ids=by_name)
def test_compiled_models(build):
    model = build()
    with diagnose(model, maps=True) as eager:
        wanted = tiny.run(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager")
    with diagnose(compiled, maps=True) as record:
        assert torch.allclose(tiny.run(compiled), wanted, atol=1e-5)
    torch._dynamo.reset()
    assert torch.allclose(record.scores(), eager.scores(), atol=1e-4)
    assert torch.allclose(record.map(), eager.map(), atol=1e-3)


def test_gradients_go_through_unharmed():
    model = tiny.pixart()
    inputs = tiny.inputs_of(model)
    grads = []
    for watched in (False, True):
        twin = copy.deepcopy(model)
        if watched:
            with diagnose(twin):
                twin(**inputs)[0].square().mean().backward()
        else:
            twin(**inputs)[0].square().mean().backward()
        grads.append(twin.proj_out.weight.grad)
    assert torch.equal(*grads)
