"""The null of a circulation, against whole matrices in float64."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import dense
from symskew.baselines import displacement
from symskew.baselines.displacement import displaced
from symskew.circulate import Circulation, circulate


def qkv(tokens=12, head_dim=5, value_dim=4, batch=2, heads=3, kv_heads=None, seed=0, dtype=torch.float64):
    source = torch.Generator().manual_seed(seed)
    sizes = ((heads, head_dim), (kv_heads or heads, head_dim), (kv_heads or heads, value_dim))
    return [torch.randn(batch, h, tokens, d, generator=source, dtype=torch.float64).to(dtype) for h, d in sizes]


def orders(tokens, batch=2):
    return torch.stack([torch.randperm(tokens, generator=torch.Generator().manual_seed(i)) for i in range(batch)])


def reference(q, k, v, order, alpha, beta, norm, scale):
    """The docstring's three lines, with every matrix written out."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    m = q @ k.mT * scale
    skew = (m - m.mT) / 2
    elsewhere = torch.stack([part[:, o][:, :, o] for part, o in zip(skew, order, strict=True)])
    plain, moved = (torch.softmax(logits, -1) @ v for logits in (m, m + (alpha - 1) * elsewhere))
    blended = plain + beta * (moved - plain)
    if norm is not None:
        size = {"perturbed": moved, "baseline": plain}[norm].norm(dim=-1, keepdim=True)
        blended = blended * (size / blended.norm(dim=-1, keepdim=True)).clamp(0.25, 4)
    settings: Any = {"alpha": alpha, "beta": beta, "norm": norm, "scale": scale}
    treated = dense.algorithm2(q, k, v, **settings)
    length, want = ((t - plain).norm(dim=(-2, -1), keepdim=True) for t in (blended, treated))
    return plain + (want / length).clamp(max=displacement.MOST) * (blended - plain)


@pytest.mark.parametrize("norm", ["perturbed", "baseline", None])
@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 1.0), (1.05, 5.0), (0.0, 2.0)])
@pytest.mark.parametrize("kv_heads", [3, 1])
def test_it_is_what_its_formula_says(alpha, beta, norm, kv_heads):
    q, k, v = qkv(kv_heads=kv_heads)
    order = orders(12)
    out = displaced(q, k, v, Circulation(alpha, beta, norm=norm), order, scale=0.6)
    torch.testing.assert_close(out, reference(q, k, v, order, alpha, beta, norm, 0.6), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "circulation", [Circulation(2.0), Circulation(1.1, 5.0, adaptive="sample"), Circulation(0.3, 2.0, norm=None)]
)
def test_its_step_is_as_long_as_the_circulation_s_and_points_elsewhere(circulation):
    q, k, v = qkv(tokens=64)
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    null, treated = displaced(q, k, v, circulation, orders(64)) - plain, circulate(q, k, v, circulation) - plain
    torch.testing.assert_close(null.norm(dim=(-2, -1)), treated.norm(dim=(-2, -1)))
    cosine = (null * treated).sum((-2, -1)) / treated.square().sum((-2, -1))
    assert cosine.abs().max() < 0.5


def test_the_displaced_part_has_the_norm_and_the_spectrum_of_the_skew_part():
    # What makes it a null of the mechanism and not of the size: an identity of the construction, on one matrix.
    q, k, _ = qkv()
    m = (q @ k.mT)[0, 0]
    skew, order = (m - m.mT) / 2, orders(12)[0]
    other_q, other_k = q[0, 0][order], k[0, 0][order]
    elsewhere = (other_q @ other_k.mT - other_k @ other_q.mT) / 2
    torch.testing.assert_close(elsewhere, -elsewhere.mT)
    torch.testing.assert_close(torch.linalg.svdvals(elsewhere), torch.linalg.svdvals(skew))
    assert not torch.allclose(elsewhere, skew)


def test_an_order_that_moves_nothing_gives_the_circulation_itself():
    q, k, v = qkv()
    order = torch.arange(12).expand(2, -1)
    for circulation in (Circulation(2.0), Circulation(1.2, 4.0)):
        torch.testing.assert_close(displaced(q, k, v, circulation, order), circulate(q, k, v, circulation))


def test_a_step_is_lengthened_so_far_and_no_further():
    q, k, v = qkv()
    # Values that do not differ over tokens but for the one place where the circulation acts and its null does not.
    q[:, :, 1:], k[:, :, 1:] = 0, 0
    q[:, :, 0], k[:, :, 0] = 0, 0
    out = displaced(q, k, v, Circulation(2.0), orders(12))
    torch.testing.assert_close(out, v.mean(2, keepdim=True).expand_as(v))
    assert out.isfinite().all()


def test_samples_do_not_depend_on_each_other():
    q, k, v = qkv(dtype=torch.float32)
    order = orders(12)
    both = displaced(q, k, v, Circulation(1.5, 3.0), order)
    for i in range(2):
        one = slice(i, i + 1)
        torch.testing.assert_close(both[one], displaced(q[one], k[one], v[one], Circulation(1.5, 3.0), order[one]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_costs_no_more_than_the_rounding_of_the_result(dtype):
    q, k, v = qkv(tokens=32, dtype=dtype)
    out = displaced(q, k, v, Circulation(1.5, 3.0), orders(32))
    exact = displaced(q.double(), k.double(), v.double(), Circulation(1.5, 3.0), orders(32))
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=2 * torch.finfo(dtype).eps)


class Largest(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_no_large_matrix_is_ever_in_memory(monkeypatch):
    from symskew import retrieval

    monkeypatch.setattr(retrieval, "BLOCK_BYTES", 4 * 512 * 4)
    q, k, v = qkv(512, 8, 8, batch=1, heads=2, dtype=torch.float32)
    with Largest() as largest:
        displaced(q, k, v, Circulation(1.5, 3.0), orders(512, 1))
    assert largest.numel < 512 * 512 / 4


def test_bad_shapes_are_refused():
    q, k, v = qkv()
    with pytest.raises(ValueError, match="displaced: q, k and v must have the same tokens"):
        displaced(q, k[:, :, :5], v[:, :, :5], Circulation(2.0), orders(12))
