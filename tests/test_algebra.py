import pytest
import torch

import dense
from symskew import symmetry_index
from test_circulate import qkv


@pytest.mark.parametrize(("tokens", "head_dim"), [(1, 4), (7, 3), (33, 16), (16, 64)])
def test_symmetry_index_is_that_of_the_dense_matrix(tokens, head_dim):
    q, k, _ = qkv(tokens, head_dim)
    assert torch.allclose(symmetry_index(q, k), dense.symmetry(q, k), atol=1e-10, rtol=0)


def test_closed_forms():
    q = torch.randn(2, 3, 9, 4, dtype=torch.double)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.double)
    assert torch.allclose(symmetry_index(q, 3 * q), torch.ones(2, 3, dtype=torch.double))
    pair = q[..., :2]
    assert torch.allclose(symmetry_index(pair, pair @ turn), -torch.ones(2, 3, dtype=torch.double))
    assert symmetry_index(torch.zeros_like(q), q).eq(1).all()


def test_scale_does_not_matter_even_where_squares_would_overflow():
    q, k, _ = (t.float() for t in qkv(33, 16))
    assert torch.allclose(symmetry_index(q * 1e15, k * 1e-15), symmetry_index(q, k), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    q, k, _ = (t.to(dtype) for t in qkv(33, 16))
    found = symmetry_index(q * 128, k * 128)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), dense.symmetry(q.double(), k.double()), atol=1e-5)


def test_grouped_heads_and_hidden_tokens():
    q, k, _ = qkv(12, 8, heads=6, kv_heads=2)
    whole = k.repeat_interleave(3, 1)
    assert torch.equal(symmetry_index(q, k), symmetry_index(q, whole))
    seen = torch.ones(2, 1, 1, 12, dtype=torch.bool)
    seen[..., 9:] = False
    expected = dense.symmetry(q[:, :, :9], whole[:, :, :9])
    additive = torch.zeros(seen.shape).masked_fill(~seen, -1e4)
    for mask in (seen, additive):
        assert torch.allclose(symmetry_index(q, k, mask=mask), expected, atol=1e-10)
    centred = [t[:, :, :9] - t[:, :, :9].mean(2, keepdim=True) for t in (q, whole)]
    assert torch.allclose(symmetry_index(q, k, mask=seen, center=True), dense.symmetry(*centred), atol=1e-10)


def test_cross_attention_is_refused_with_the_remedy():
    q, k, _ = qkv(12, 8)
    with pytest.raises(ValueError, match=r"symmetry_index: .*same tokens.*\(2, 3, 12, 8\).*cross-attention"):
        symmetry_index(q, k[:, :, :5])
    with pytest.raises(ValueError, match="heads of q must be a multiple"):
        symmetry_index(q, k[:, :2])
    with pytest.raises(ValueError, match="same head_dim"):
        symmetry_index(q, k[..., :4])
    with pytest.raises(ValueError, match="floating point"):
        symmetry_index(q.long(), k.long())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(value):
    q, k, _ = qkv(12, 8)
    q[0, 0, 3, 0] = value
    found = symmetry_index(q, k)
    assert found[0, 0].isnan()
    assert found[1].isfinite().all()


def test_autocast_does_not_put_the_sums_into_half_precision():
    q, k, _ = (t.half().float() * 8 for t in qkv(2048, 16, batch=1))
    with torch.autocast("cpu", torch.float16):
        found = symmetry_index(q, k)
    assert found.dtype == torch.float32
    assert torch.allclose(found, symmetry_index(q, k), atol=1e-5)
