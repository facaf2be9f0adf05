"""A gate lets a control act only on samples whose vanilla retrieval is unstable."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

import dense
from symskew.circulate import Circulation, circulate, circulated
from symskew.gate import Gate
from test_circulate import MODES, qkv, way

__all__ = ["way"]  # a fixture

MEASURES = ["alignment", "instability", "energy"]
STATIC = Circulation(1.3, 3.0)
UNSTABLE_FIRST = {"alignment": 1, "instability": -1, "energy": -1}


def levels(measure, q, k, v, mask=None):
    """The measure of each sample's vanilla retrieval, by the paper's equations."""
    found = dense.stability(q, k, dense.algorithm2(q, k, v, mask=mask))
    return found[measure].mean((1, 2))


def middle(measure: Any, q, k, v):
    """A gate that is open for some of the samples and closed for others."""
    some = levels(measure, q, k, v).sort().values
    return Gate(measure, (some[:-1] + some[1:])[0].item() / 2)


def always(opened, measure: Any = "alignment"):
    extremes = {"alignment": (1.0, -1.0), "instability": (0.0, 1.0), "energy": (-1e9, 1e9)}[measure]
    return Gate(measure, extremes[0] if opened else extremes[1])


@pytest.mark.parametrize("space", ["value", "input"])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("way")
def test_equals_the_dense_reference(mode, measure, space):
    q, k, v = qkv(33, 16)
    x = torch.randn(2, 33, 21, dtype=torch.double)
    gate = middle(measure, q, k, v)
    opened = (UNSTABLE_FIRST[measure] * (levels(measure, q, k, v) - gate.threshold) < 0)[:, None]
    assert opened.sum() == 1
    found = circulated(q, k, v, Circulation(**MODES[mode], space=space, gate=gate), x=x)
    acted = dense.algorithm2(q, k, v, **MODES[mode], x=x if space == "input" else None)
    expected = torch.where(opened[..., None, None], acted, dense.algorithm2(q, k, v))
    assert (found.out - expected).abs().max() < 1e-10
    assert found.open is not None
    assert torch.equal(found.open, opened)
    for have, want in zip((found.alpha, found.beta), Circulation(**MODES[mode]).effective(q, k), strict=True):
        assert torch.equal(have, torch.where(opened, want, 1.0))


@pytest.mark.parametrize("space", ["value", "input", "sketch"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("way")
def test_closed_is_vanilla_and_open_is_as_without(mode, space):
    q, k, v = qkv(33, 16, dtype=torch.float32)
    x, carry = torch.randn(2, 33, 21), torch.randn(2, 1, 33, 5)
    settings = {**MODES[mode], "space": space}
    free = circulated(q, k, v, Circulation(**settings), x=x, carry=carry)
    for measure in MEASURES:
        closed = circulated(q, k, v, Circulation(**settings, gate=always(False, measure)), x=x, carry=carry)
        assert closed.vanilla is not None
        assert closed.carried is not None
        assert closed.carried[1] is not None
        assert torch.equal(closed.out, closed.vanilla)
        assert torch.equal(closed.carried[0], closed.carried[1])
        assert torch.equal(closed.alpha, torch.ones_like(closed.alpha))
        assert torch.equal(closed.beta, torch.ones_like(closed.beta))
        opened = circulated(q, k, v, Circulation(**settings, gate=always(True, measure)), x=x, carry=carry)
        assert opened.carried is not None
        assert free.carried is not None
        assert torch.equal(opened.out, free.out)
        assert torch.equal(opened.carried[1], free.carried[1])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.usefixtures("way")
def test_a_sample_does_not_depend_on_its_batch_bit_for_bit(dtype, measure):
    q, k, v = qkv(64, 16, batch=3, dtype=dtype)
    circulation = Circulation(1.3, 3.0, adaptive="sample", gate=middle(measure, q, k, v))
    together = circulated(q, k, v, circulation)
    assert together.open is not None
    assert 0 < together.open.sum() < 3
    for one in (slice(i, i + 1) for i in range(3)):
        alone = circulated(q[one], k[one], v[one], circulation)
        assert alone.open is not None
        assert torch.equal(alone.open, together.open[one])
        assert torch.equal(alone.out, together.out[one])


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.usefixtures("way")
def test_hidden_tokens_are_not_measured(measure):
    q, k, v = qkv(33, 16, batch=1)
    seen = torch.ones(1, 1, 1, 33, dtype=torch.bool)
    seen[..., 20:] = False
    short = levels(measure, q[:, :, :20], k[:, :, :20], v[:, :, :20]).item()
    for nudge in (-1e-9, 1e-9):
        circulation = Circulation(1.3, 3.0, gate=Gate(measure, short + nudge))
        found = circulated(q, k, v, circulation, mask=seen)
        assert found.open is not None
        assert found.open.item() == (UNSTABLE_FIRST[measure] * nudge > 0)


@pytest.mark.usefixtures("way")
def test_some_heads_act_as_the_whole_call_decided():
    q, k, v = qkv(33, 16, batch=3)
    for settings in (STATIC, Circulation.skew_only()):
        circulation = replace(settings, gate=middle("alignment", q, k, v))
        whole = circulated(q, k, v, circulation)
        acting = whole.alpha, whole.beta, whole.open
        heads = (slice(i, i + 1) for i in range(3))
        parts = [circulated(q[:, one], k[:, one], v[:, one], circulation, acting=acting).out for one in heads]
        assert torch.allclose(torch.cat(parts, 1), whole.out, atol=1e-12)


@pytest.mark.usefixtures("way")
def test_grouped_heads_and_half_precision():
    q, k, v = qkv(33, 16, batch=3, heads=4, kv_heads=2, dtype=torch.float16)
    k2, v2 = (t.double().repeat_interleave(2, 1) for t in (k, v))
    gate = middle("alignment", q.double(), k2, v2)
    found = circulated(q, k, v, replace(STATIC, gate=gate))
    assert found.out.dtype == torch.float16
    assert found.open is not None
    assert torch.equal(found.open[:, 0], levels("alignment", q.double(), k2, v2) < gate.threshold)


@pytest.mark.usefixtures("way")
def test_gradients_flow_through_open_and_closed_samples():
    q, k, v = (t.requires_grad_() for t in qkv(5, 3, batch=3, heads=2))
    circulation = replace(STATIC, gate=middle("alignment", *(t.detach() for t in (q, k, v))))
    assert torch.autograd.gradcheck(lambda q, k, v: circulate(q, k, v, circulation), (q, k, v))


@pytest.mark.parametrize("measure", MEASURES)
def test_compiles_to_one_graph_for_all_thresholds(measure):
    q, k, v = qkv(33, 16, batch=3, dtype=torch.float32)
    compiled = torch.compile(circulate, backend="aot_eager", fullgraph=True)
    graphs = torch._dynamo.utils.counters["stats"]
    torch._dynamo.reset()
    before = graphs["unique_graphs"]
    for gate in (middle(measure, q.double(), k.double(), v.double()), always(True, measure), always(False, measure)):
        tensor = Gate(measure, torch.tensor(gate.threshold))
        found = compiled(q, k, v, replace(STATIC, gate=tensor))
        torch.testing.assert_close(found, circulate(q, k, v, replace(STATIC, gate=gate)), atol=2e-5, rtol=1e-4)
    assert graphs["unique_graphs"] == before + 1


def test_what_a_gate_needs():
    gate = always(True)
    assert not Circulation(1.5, gate=gate).replaces
    assert Circulation(gate=gate).is_identity
    assert not Circulation(1.5, space="input", gate=gate).needs_x
    assert Circulation(1.5, 3.0, space="input", gate=gate).needs_x
    q, k, v = qkv(12, 8)
    identity = circulated(q, k, v, Circulation(gate=Gate("energy", {"mid": 0.0})))
    assert identity.open is None
    assert torch.equal(identity.out, torch.nn.functional.scaled_dot_product_attention(q, k, v))


def test_thresholds_by_layer():
    gate = Gate("alignment", {"mid": 0.25, "down.0": -1})
    assert gate.at("mid") == Gate("alignment", 0.25)
    assert Gate("energy", 2).at("anything") == Gate("energy", 2.0)
    with pytest.raises(ValueError, match=r"Gate: no threshold for the layer up.1, only for down.0, mid"):
        gate.at("up.1")
    q, k, v = qkv(12, 8)
    with pytest.raises(
        ValueError, match=r"circulate: the gate has a threshold for each layer; .*gate.at\(layer_name\)"
    ):
        circulate(q, k, v, Circulation(1.5, gate=gate))


@pytest.mark.parametrize(
    "gate", [Gate("energy", -3), Gate("alignment", {"b": 0.5, "a": 0}), Gate("instability", torch.tensor(0.5))]
)
def test_settings_survive_json(gate):
    circulation = Circulation(1.05, 5, gate=gate, adaptive="sample")
    again = Circulation.from_dict(json.loads(json.dumps(circulation.to_dict())))
    assert again == circulation
    assert hash(again) == hash(circulation)
    assert again != Circulation(1.05, 5, adaptive="sample")
    assert eval(repr(again)) == again


def test_equal_gates_are_equal():
    one, other = Gate("alignment", {"a": 0.0, "b": 1}), Gate("alignment", {"b": 1.0, "a": 0})
    assert one == other
    assert hash(one) == hash(other)
    assert one != Gate("alignment", {"a": 0.0})
    assert Gate(threshold=0.2) == Gate("alignment", 0.2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("conflict", 0.0), "measure must be 'alignment', 'instability', 'energy', got 'conflict'"),
        (("alignment",), "threshold of alignment must be a number, -1 to 1, or one for each layer, got nan"),
        (("energy", math.inf), "threshold of energy must be a number, finite, .* got inf"),
        (("alignment", 1.5), "-1 to 1, .* got 1.5"),
        (("instability", {"mid": 0.5, "up": -0.1}), "0 to 1, .* got -0.1 for up"),
        (("alignment", "0.5"), "got '0.5'"),
        (("alignment", torch.zeros(2)), "got tensor"),
        (("alignment", {}), "one for each layer, got none"),
    ],
)
def test_bad_gates_are_named(settings, message):
    with pytest.raises(ValueError, match=f"Gate: .*{message}"):
        Gate(*settings)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="Circulation: gate must be a Gate or None"):
        Circulation(1.5, gate=0.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"Gate: unknown settings \['below'\]"):
        Circulation.from_dict({"gate": {"below": 0.5}})
