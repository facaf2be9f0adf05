import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import dense
from symskew import Circulation, circulate, retrieval
from symskew.circulate import circulated
from symskew.retrieval import retrieve


def qkv(tokens, head_dim, *, batch=2, heads=3, kv_heads=None, seed=0, dtype=torch.double):
    generator = torch.Generator().manual_seed(seed)

    def draw(count):
        return torch.randn(batch, count, tokens, head_dim, generator=generator, dtype=torch.double).to(dtype)

    return draw(heads), draw(kv_heads or heads), draw(kv_heads or heads)


class Largest(TorchDispatchMode):
    """Watches every tensor that is made and keeps the size of the largest."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = [
            t.untyped_storage().nbytes() // t.element_size() for t in tree_leaves(out) if isinstance(t, torch.Tensor)
        ]
        self.numel = max(self.numel, *made, 0)
        return out


MODES = {
    "static": {"alpha": 1.3, "beta": 3.0},
    "below one": {"alpha": 0.5, "beta": 2.0},
    "replace": {"alpha": 1.5},
    "baseline norm": {"alpha": 1.3, "beta": 3.0, "norm": "baseline"},
    "replace, baseline norm": {"alpha": 1.5, "norm": "baseline"},
    "no norm": {"alpha": 1.3, "beta": 3.0, "norm": None},
    "call": {"alpha": 1.3, "beta": 5.0, "adaptive": "call"},
    "sample": {"alpha": 1.3, "beta": 5.0, "adaptive": "sample"},
    "head": {"alpha": 1.3, "beta": 5.0, "adaptive": "head"},
    "sym only": {"alpha": 0.0, "norm": None},
    "skew only": {"alpha": 1.0, "sym": 0.0, "norm": None},
    "temperature": {"alpha": 0.8, "sym": 0.8, "norm": None},
    "everything": {"alpha": 1.7, "beta": 2.5, "sym": 0.9, "adaptive": "sample", "norm": "baseline"},
    "alpha per sample": {"alpha": torch.tensor([[1.0], [1.5]]), "beta": 2.0},
    "alpha per head": {"alpha": torch.tensor([[1.0, 1.5, 0.2]]), "beta": torch.tensor([[2.0], [0.0]])},
    "alpha per both": {"alpha": torch.tensor([[1.0, 1.5, 0.2], [2.0, 0.1, 0.9]]), "beta": 3.0, "adaptive": "head"},
}


def masks(tokens):
    half = torch.ones(2, 1, 1, tokens, dtype=torch.bool)
    half[1, ..., : tokens // 2] = False
    generator = torch.Generator().manual_seed(1)
    square = torch.rand(tokens, tokens, generator=generator) > 0.3
    return {
        "none": None,
        "keys": half,
        "square": square,
        "per head": torch.randn(1, 3, tokens, tokens, generator=generator, dtype=torch.double),
        "one sample hidden": torch.tensor([True, False]).view(2, 1, 1, 1).expand(2, 1, 1, tokens),
    }


@pytest.fixture(params=["blocks", "small blocks", "fused"])
def way(request, monkeypatch):
    """Every way to the two retrievals: as on the CPU, with blocks that do not divide anything, and as on a GPU."""
    if request.param == "small blocks":
        monkeypatch.setattr(retrieval, "BLOCK_ROWS", 5)
        monkeypatch.setattr(retrieval, "BLOCK_BYTES", 2 * 5 * 33 * 8)
    if request.param == "fused":
        for module in ("symskew.circulate", "symskew.retrieval"):
            monkeypatch.setattr(importlib.import_module(module), "fused_serves_best", lambda *_: True)
    return request.param


@pytest.mark.parametrize("space", ["value", "input"])
@pytest.mark.parametrize(("tokens", "head_dim"), [(1, 4), (2, 8), (33, 16), (17, 5)])
@pytest.mark.parametrize("mode", MODES)
def test_equals_the_dense_reference(way, mode, tokens, head_dim, space):
    q, k, v = qkv(tokens, head_dim)
    x = torch.randn(2, tokens, 21, dtype=torch.double)
    settings = MODES[mode]
    found = circulate(q, k, v, Circulation(**settings, space=space), x=x)
    expected = dense.algorithm2(q, k, v, **settings, x=x if space == "input" else None)
    assert (found - expected).abs().max() < 1e-10


@pytest.mark.parametrize("space", ["value", "input"])
@pytest.mark.parametrize("name", ["keys", "square", "per head", "one sample hidden"])
def test_masks(way, name, space):
    q, k, v = qkv(33, 16)
    x, mask = torch.randn(2, 33, 21, dtype=torch.double), masks(33)[name]
    circulation = Circulation(1.3, 3.0, space=space)
    found = circulate(q, k, v, circulation, x=x, mask=mask)
    expected = dense.algorithm2(q, k, v, alpha=1.3, beta=3.0, x=x if space == "input" else None, mask=mask)
    assert (found - expected).abs().max() < 1e-10


def test_adaptive_with_hidden_tokens_measures_the_tokens_that_take_part(way):
    q, k, v = qkv(33, 16)
    seen = torch.ones(2, 1, 1, 33, dtype=torch.bool)
    seen[..., 20:] = False
    found = circulate(q, k, v, Circulation(1.3, 3.0, adaptive="head"), mask=seen)
    eta = dense.symmetry(q[:, :, :20], k[:, :, :20])
    expected = dense.algorithm2(q, k, v, alpha=1.3, beta=3.0, adaptive="head", mask=seen, eta=eta)
    assert (found - expected).abs().max() < 1e-10


def test_causal_scale_and_grouped_heads(way):
    q, k, v = qkv(33, 16, heads=6, kv_heads=2)
    lower = torch.ones(33, 33, dtype=torch.bool).tril()
    found = circulate(q, k, v, Circulation(1.3, 3.0, adaptive="sample"), scale=0.1, causal=True)
    expected = dense.algorithm2(q, k, v, alpha=1.3, beta=3.0, adaptive="sample", scale=0.1, mask=lower)
    assert (found - expected).abs().max() < 1e-10


def test_values_of_another_width(way):
    q, k, _ = qkv(33, 16)
    for width in (3, 40):
        v = torch.randn(2, 3, 33, width, dtype=torch.double)
        found = circulate(q, k, v, Circulation(1.3, 3.0))
        assert (found - dense.algorithm2(q, k, v, alpha=1.3, beta=3.0)).abs().max() < 1e-10


@pytest.mark.parametrize("space", ["value", "input"])
@pytest.mark.parametrize("mode", MODES)
def test_carried_columns_see_what_the_values_see(way, mode, space):
    q, k, v = qkv(33, 16)
    x, shared = torch.randn(2, 33, 21).double(), torch.randn(2, 1, 33, 70).double()
    settings, circulation = MODES[mode], Circulation(**MODES[mode], space=space)
    x_norm = x if space == "input" else None
    for carry in (shared, torch.cat([shared, shared.square(), -shared], 1)):
        found = circulated(q, k, v, circulation, x=x, carry=carry)
        assert torch.equal(found.out, circulate(q, k, v, circulation, x=x))
        assert found.vanilla is not None
        assert found.carried is not None
        assert torch.allclose(found.vanilla, dense.algorithm2(q, k, v), atol=1e-10)
        expected = dense.algorithm2(q, k, v, carry=carry), dense.algorithm2(q, k, v, **settings, x=x_norm, carry=carry)
        for have, want in zip(found.carried, expected, strict=True):
            assert have is not None
            assert (have - want).abs().max() < 1e-10


def test_what_is_found_on_the_way(way):
    q, k, v = qkv(33, 16, heads=4, kv_heads=2, dtype=torch.bfloat16)
    columns = torch.randn(2, 1, 33, 40)
    replaced = circulated(q, k, v, Circulation(1.5))
    assert (replaced.vanilla, replaced.carried) == (None, None)
    adapted = circulated(q, k, v, Circulation(1.3, 5.0, adaptive="sample", space="sketch"), x=columns[:, 0])
    assert adapted.vanilla is not None
    assert adapted.vanilla.dtype == v.dtype
    plain = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    assert torch.allclose(adapted.vanilla, plain, atol=2e-2)
    for have, want in zip(adapted[2:4], Circulation(1.3, 5.0, adaptive="sample").effective(q, k), strict=True):
        assert torch.equal(have, want)
    identity = circulated(q, k, v, Circulation(), carry=columns)
    assert identity.vanilla is None
    assert identity.alpha.item() == identity.beta.item() == 1
    assert torch.equal(identity.out, plain)
    assert identity.carried is not None
    assert identity.carried[1] is None
    assert torch.allclose(identity.carried[0], retrieve(q.float(), k.float(), columns), atol=2e-2)
    assert identity.carried[0].dtype == torch.float32


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("width", [1, 16, 40])
def test_retrieval_of_any_width(way, width, shared):
    q, k, _ = qkv(33, 16, heads=4, kv_heads=2)
    columns = torch.randn(2, 1 if shared else 4, 33, width).double()
    causal = torch.ones(33, 33, dtype=torch.bool).tril()
    for mask, options in [
        (None, {}),
        (causal, {"causal": True}),
        *((mask, {"mask": mask}) for name, mask in masks(33).items() if name != "per head"),
    ]:
        p = dense.probabilities(q, k.repeat_interleave(2, 1), 1.0, 1.0, 0.3, mask)
        found = retrieve(q, k, columns, scale=0.3, **options)
        assert (found - p @ columns).abs().max() < 1e-10


@pytest.mark.parametrize("heads", [1, 4])
def test_wide_columns_are_retrieved_without_a_large_matrix(heads, monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK_BYTES", 4 * 512 * 4)
    q, k, v = qkv(512, 8, batch=1, heads=4, dtype=torch.float32)
    columns = torch.randn(1, heads, 512, 24)
    with Largest() as largest:
        retrieve(q, k, columns)
        circulated(q, k, v, Circulation(1.2, 3.0), carry=columns)
    assert largest.numel < 512 * 512 / 4


def test_sketch_approaches_the_exact_norm_and_beats_values_where_values_mislead(way):
    torch.manual_seed(0)
    x = torch.randn(3, 64, 48, dtype=torch.double) + 1
    q, k, v = ((x @ torch.randn(48, 128, dtype=torch.double) / 5).view(3, 64, 2, 64).transpose(1, 2) for _ in "qkv")
    exact, sketch, value = (
        circulate(q, k, v, circulation, x=x)
        for circulation in (
            Circulation(1.3, 5.0, space="input"),
            Circulation(1.3, 5.0, space="sketch"),
            Circulation(1.3, 5.0),
        )
    )
    moved = (exact - F.scaled_dot_product_attention(q, k, v)).norm()
    assert (sketch - exact).norm() < 0.1 * moved
    assert (sketch - exact).norm() < (value - exact).norm()


def test_sketch_is_exact_where_there_are_columns_enough(way):
    q, k, _ = qkv(33, 16)
    v = torch.randn(2, 3, 33, 8192, dtype=torch.double)
    x = torch.randn(2, 33, 4, dtype=torch.double)
    found = circulate(q, k, v, Circulation(1.3, 5.0, space="sketch"), x=x)
    expected = dense.algorithm2(q, k, v, alpha=1.3, beta=5.0, x=x)
    # n signs estimate a squared norm to about √(2/n), 1.6% here, and the ratio of two norms hence to about 1.1%.
    assert (found - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("circulation", [Circulation(), Circulation(1.0, 5.0, adaptive="call", space="input")])
def test_identity_is_torch_attention_bit_for_bit(circulation, dtype):
    q, k, v = qkv(33, 16, heads=4, kv_heads=2, dtype=dtype)
    plain = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    assert circulation.is_identity
    assert torch.equal(circulate(q, k, v, circulation), plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("space", ["value", "input", "sketch"])
@pytest.mark.parametrize("beta", [1.0, 5.0])
def test_half_precision_is_as_exact_as_plain_attention(way, dtype, space, beta):
    q, k, v = qkv(128, 64, batch=2, dtype=dtype)
    x = torch.randn(2, 128, 96).to(dtype)
    own = (F.scaled_dot_product_attention(q, k, v).double() - dense.algorithm2(q, k, v)).abs().max()
    found = circulate(q, k, v, Circulation(1.2, beta, space=space), x=x)
    # The sketch is an estimate; its own float64 result is the truth its rounding is held to.
    expected = circulate(q.double(), k.double(), v.double(), Circulation(1.2, beta, space=space), x=x.double())
    assert found.dtype == dtype
    assert (found.double() - expected).abs().max() <= 2 * own
    if space != "sketch":
        given = x if space == "input" else None
        assert torch.allclose(expected, dense.algorithm2(q, k, v, alpha=1.2, beta=beta, x=given))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("space", ["value", "input", "sketch"])
def test_autocast_takes_part_of_nothing_but_the_inputs_dtype(dtype, space):
    q, k, v = qkv(33, 16, dtype=torch.float32)
    x = torch.randn(2, 33, 21)
    circulation = Circulation(1.2, 5.0, adaptive="sample", space=space)
    with torch.autocast("cpu", dtype):
        found = circulate(q, k, v.to(dtype), circulation, x=x)
    assert torch.equal(found, circulate(q.to(dtype), k.to(dtype), v.to(dtype), circulation, x=x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_masks_in_half_precision(way, dtype):
    q, k, v = qkv(17, 16, dtype=dtype)
    hide = torch.zeros(2, 1, 1, 17, dtype=dtype)
    hide[1, ..., 9:] = -1e4
    settings = Circulation(1.2, 3.0)
    found, expected = (circulate(*some, settings, mask=hide.to(some[0].dtype)) for some in
                       ((q, k, v), (q.double(), k.double(), v.double())))  # fmt: skip
    assert torch.allclose(found.double(), expected, atol=0.02)


def test_large_half_precision_inputs_do_not_overflow():
    q, k, v = (t * 200 for t in qkv(33, 64, dtype=torch.float16))
    found = circulate(q, k, v, Circulation(1.1, 5.0, adaptive="call"))
    assert found.isfinite().all()


def test_non_finite_values_are_passed_on_never_hidden():
    q, k, v = qkv(33, 16)
    v[0, 0, 3, 0] = math.nan
    assert circulate(q, k, v, Circulation(1.1, 5.0))[0, 0].isnan().any()
    assert circulate(q, k, v, Circulation(1.1, 5.0))[1].isfinite().all()


@pytest.mark.parametrize("space", ["value", "input", "sketch"])
@pytest.mark.parametrize("adaptive", [None, "call", "sample", "head"])
def test_no_large_matrix_is_ever_in_memory(space, adaptive, monkeypatch):
    tokens, heads, head_dim, features = 512, 4, 8, 160
    monkeypatch.setattr(retrieval, "BLOCK_BYTES", 4 * 512 * 4)
    q, k, v = qkv(tokens, head_dim, batch=1, heads=heads, dtype=torch.float32)
    x = torch.randn(1, tokens, features)
    with Largest() as largest:
        circulate(q, k, v, Circulation(1.2, 3.0, space=space, adaptive=adaptive), x=x)
    # The bounds that matter: tokens × tokens and heads × tokens × features; x itself and two blocks fit well below.
    assert largest.numel < min(tokens * tokens, heads * tokens * features) / 2


def test_gradients_flow(way):
    q, k, v = (t.requires_grad_() for t in qkv(5, 3, batch=1, heads=2))
    x = torch.randn(1, 5, 4, dtype=torch.double, requires_grad=True)
    value, exact = Circulation(1.3, 2.0), Circulation(1.3, 2.0, space="input")
    assert torch.autograd.gradcheck(lambda q, k, v: circulate(q, k, v, value), (q, k, v))
    assert torch.autograd.gradcheck(lambda q, k, v, x: circulate(q, k, v, exact, x=x), (q, k, v, x))
    carry = torch.randn(1, 1, 5, 4, dtype=torch.double, requires_grad=True)

    def carried(q, k, v, carry):
        both = circulated(q, k, v, value, carry=carry).carried
        assert both is not None
        assert both[1] is not None
        return both[0], both[1]

    assert torch.autograd.gradcheck(carried, (q, k, v, carry))


@pytest.mark.parametrize("name", ["alpha", "beta", "q", "k", "v", "x"])
@pytest.mark.parametrize("space", ["value", "input", "sketch"])
def test_gradients_of_one_input_alone(name, space, monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK_ROWS", 3)
    q, k, v = qkv(7, 3)
    given = {"q": q, "k": k, "v": v, "x": torch.randn(2, 7, 4).double()}
    given |= {"alpha": torch.tensor(1.3).double(), "beta": torch.tensor(2.0).double()}

    def run(value):
        now = given | {name: value}
        circulation = Circulation(now["alpha"], now["beta"], space=space)
        return circulate(now["q"], now["k"], now["v"], circulation, x=now["x"])

    if name != "x" or space != "value":
        assert torch.autograd.gradcheck(run, (given[name].requires_grad_(),))


def test_adaptive_per_sample_does_not_depend_on_batch_mates():
    q, k, v = qkv(33, 16)
    circulation = Circulation(1.3, 5.0, adaptive="sample")
    alone = circulate(q[:1], k[:1], v[:1], circulation)
    assert torch.allclose(circulate(q, k, v, circulation)[:1], alone, atol=1e-12)
    call = Circulation(1.3, 5.0, adaptive="call")
    assert not torch.allclose(circulate(q, k, v, call)[:1], circulate(q[:1], k[:1], v[:1], call), atol=1e-6)


def test_effective_alpha_and_beta_follow_the_paper():
    q, k, _ = qkv(33, 16)
    alpha, beta = Circulation(1.2, 5.0, adaptive="call").effective(q, k)
    eta = dense.symmetry(q, k).mean()
    assert torch.allclose(alpha - 1, 0.2 * eta)
    assert torch.allclose(beta, 5.0 * (1 - eta))


def test_named_constructors_and_serialisation():
    assert Circulation.sym_only() == Circulation(0.0, norm=None)
    assert Circulation.skew_only() == Circulation(1.0, sym=0.0, norm=None)
    assert Circulation.temperature(2.0) == Circulation(0.5, sym=0.5, norm=None)
    assert Circulation().to_dict() == {}
    for circulation in (Circulation(**settings) for settings in MODES.values()):
        again = Circulation.from_dict(circulation.to_dict())
        assert again == circulation
        assert hash(again) == hash(circulation)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": math.nan}, "alpha must be finite"),
        ({"alpha": "1"}, "alpha must be finite"),
        ({"beta": torch.ones(0, 1)}, "beta must be finite"),
        ({"beta": -1.0}, "beta must be at least 0, got -1.0"),
        ({"beta": torch.tensor([[-1.0]])}, "beta must be at least 0"),
        ({"alpha": torch.ones(3)}, r"got \(3,\)"),
        ({"sym": torch.tensor(1.0)}, "sym must be a number"),
        ({"adaptive": "batch"}, "adaptive must be 'call', 'sample', 'head' or None, got 'batch'"),
        ({"norm": "none"}, "norm must be"),
        ({"space": None}, "space must be 'value', 'input', 'sketch', got None"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Circulation(**settings)


def test_bad_calls_are_named():
    q, k, v = qkv(12, 8)
    with pytest.raises(ValueError, match="tau must be a positive number"):
        Circulation.temperature(0)
    with pytest.raises(ValueError, match="unknown settings"):
        Circulation.from_dict({"gamma": 1})
    with pytest.raises(ValueError, match=r"circulate: q, k and v must have the same tokens.*cross-attention"):
        circulate(q, k[:, :, :5], v[:, :, :5], Circulation())
    with pytest.raises(ValueError, match=r"needs the input features x .* got none; pass x, or use space='value'"):
        circulate(q, k, v, Circulation(1.1, 3.0, space="input"))
    with pytest.raises(ValueError, match=r"alpha \(5, 1\) does not fit \(batch, heads\) \(2, 3\)"):
        circulate(q, k, v, Circulation(torch.ones(5, 1)))
    with pytest.raises(
        ValueError, match=r"circulate: the mask must be broadcastable .*\(2, 3, 12, 12\), got \(5, 12\)"
    ):
        circulate(q, k, v, Circulation(1.1), mask=torch.ones(5, 12, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"circulate: carry must be .*\(2, 3 or 1, 12, …\), got \(2, 2, 12, 5\)"):
        circulated(q, k, v, Circulation(), carry=torch.ones(2, 2, 12, 5))
    with pytest.raises(ValueError, match="not both"):
        circulate(q, k, v, Circulation(1.1), mask=torch.ones(12, 12, dtype=torch.bool), causal=True)
