import pytest
import torch

import dense
from symskew import stability
from test_circulate import Largest, qkv


@pytest.mark.parametrize("options", [{}, {"center": False}, {"normalize": False}, {"scale": 0.25}])
@pytest.mark.parametrize(("tokens", "head_dim", "features"), [(2, 4, 5), (33, 16, 40), (9, 3, 3)])
def test_measures_are_those_of_the_dense_matrix(tokens, head_dim, features, options):
    q, k, _ = qkv(tokens, head_dim)
    states = torch.randn(2, 3, tokens, features, dtype=torch.double)
    expected = dense.stability(q, k, states, **options)
    found = stability(q, k, states, maps=True, **options)
    for name, value in expected.items():
        assert torch.allclose(getattr(found, name), value, atol=1e-10, rtol=1e-10), name
    alone = stability(q, k, states, **options)
    assert alone.field is None
    assert torch.allclose(alone.energy, found.energy, atol=1e-12)


def test_agreement_sums_to_minus_twice_the_energy():
    q, k, v = qkv(64, 16)
    found = stability(q, k, v, maps=True)
    assert found.agreement is not None
    assert torch.allclose(2 * found.energy + found.agreement.sum(2), torch.zeros(()).double(), atol=1e-12)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("options", [{}, {"normalize": False}])
def test_mean_maps_are_the_means_of_the_whole_ones(options, shared):
    q, k, _ = qkv(33, 4)
    states = torch.randn(2, 1 if shared else 3, 33, 50, dtype=torch.double)
    agreement = dense.stability(q, k, states, **options)["agreement"]
    found = stability(q, k, states, maps="mean", **options)
    assert (found.field, found.agreement) == (None, None)
    assert found.agreement_map is not None
    assert found.conflict_map is not None
    assert torch.allclose(found.agreement_map, agreement.mean(-1), atol=1e-10)
    assert torch.allclose(found.conflict_map, (agreement < 0).double().mean(-1), atol=1e-10)
    for have, want in zip(found[:3], stability(q, k, states, **options)[:3], strict=True):
        assert torch.equal(have, want)


@pytest.mark.parametrize("options", [{}, {"center": False}])
def test_hidden_tokens_take_no_part(options):
    q, k, v = qkv(33, 8)
    seen = torch.ones(2, 1, 1, 33, dtype=torch.bool)
    seen[0, ..., 20:] = False
    q[0, :, 20:] = torch.nan
    for mask in (seen, torch.where(seen, 0.0, -torch.inf)):
        found = stability(q, k, v, maps=True, mask=mask, **options)
        means = stability(q, k, v, maps="mean", mask=mask, **options)
        assert found.agreement is not None
        assert means.conflict_map is not None
        assert torch.allclose(means.conflict_map, (found.agreement < 0).double().mean(-1))
        assert found.agreement[0, :, 20:].eq(0).all()
        for sample, tokens in ((0, 20), (1, 33)):
            part = (t[sample : sample + 1, :, :tokens] for t in (q, k, v))
            for name, want in dense.stability(*part, **options).items():
                have = getattr(found, name)[sample : sample + 1]
                have = have[:, :, :tokens] if have.ndim == 4 else have
                assert torch.allclose(have, want, atol=1e-10), name
    whole = stability(q[1:], k[1:], v[1:])
    square = stability(q[1:], k[1:], v[1:], mask=torch.ones(33, 33, dtype=torch.bool).tril())
    assert torch.equal(square.energy, whole.energy)


@pytest.mark.parametrize("maps", [False, True, "mean"])
def test_gradients_flow(maps):
    q, k, v = (t.requires_grad_() for t in qkv(5, 3, batch=1, heads=2))

    def smooth(q, k, v):
        found = stability(q, k, v, maps=maps)._replace(instability=None, conflict_map=None)  # shares have none
        return tuple(measure for measure in found if measure is not None)

    assert torch.autograd.gradcheck(smooth, (q, k, v))


def test_the_skew_part_has_no_energy():
    q = torch.randn(1, 2, 30, 2, dtype=torch.double)
    turned = torch.stack([q[..., 1], -q[..., 0]], -1)
    energy = stability(q, turned, torch.randn(1, 2, 30, 5, dtype=torch.double), center=False).energy
    assert energy.abs().max() < 1e-12


def test_states_shared_by_heads_never_become_states_per_head():
    q, k, _ = qkv(64, 4, heads=8)
    shared = torch.randn(2, 1, 64, 96, dtype=torch.double)
    with Largest() as largest:
        found = stability(q, k, shared)
    assert largest.numel < 2 * 8 * 64 * 96 / 2
    assert torch.allclose(found.energy, stability(q, k, shared.expand(2, 8, 64, 96)).energy, atol=1e-12)


def test_zero_states_and_one_token_are_finite():
    q, k, _ = qkv(1, 4)
    found = stability(q, k, torch.zeros(2, 3, 1, 4, dtype=torch.double))
    assert all(measure.isfinite().all() for measure in found[:3])
    assert found.alignment.eq(0).all()


def test_states_of_another_call_are_refused():
    q, k, v = qkv(12, 8)
    with pytest.raises(ValueError, match=r"stability: states must be .*\(2, 3 or 1, 12, …\), got \(2, 3, 5, 8\)"):
        stability(q, k, v[:, :, :5])


def test_unknown_maps_are_refused():
    q, k, v = qkv(12, 8)
    with pytest.raises(ValueError, match="stability: maps must be True, False or 'mean', got 'sum'"):
        stability(q, k, v, maps="sum")  # pyright: ignore[reportArgumentType]
