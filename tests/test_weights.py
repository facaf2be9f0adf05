"""Scores of W from its factors, against W itself."""

import pytest
import torch

import dense
from symskew.weights import weight_scores


def directionality(w):
    """As published: how far columns exceed their threshold, against rows; from the whole matrix."""
    over = []
    for dim in (0, 1):
        norms = w.norm(dim=dim)
        threshold = norms.mean() + 2 * norms.std()
        over.append((norms[norms > threshold] - threshold).sum())
    columns, rows = over
    return 0.0 if columns + rows == 0 else ((columns - rows) / (columns + rows)).item()


@pytest.mark.parametrize("shape", [(1, 16, 64), (4, 8, 40), (3, 30, 20)])
def test_scores_are_those_of_the_whole_matrix(shape):
    generator = torch.Generator().manual_seed(0)
    wq, wk = torch.randn(2, *shape, generator=generator, dtype=torch.double)
    wk[:, :, 3] *= 5  # a column that stands out
    wq[0, :, :2] *= 7  # and rows
    found = weight_scores(wq, wk)
    torch.testing.assert_close(found.symmetry, dense.symmetry(wq.mT, wk.mT))
    w = wq.mT @ wk
    for head in range(len(w)):
        assert found.directionality[head].item() == pytest.approx(directionality(w[head]), abs=1e-9)


def test_known_matrices():
    wq = torch.randn(2, 8, 32)
    symmetric = weight_scores(wq, wq)
    torch.testing.assert_close(symmetric.symmetry, torch.ones(2))
    torch.testing.assert_close(symmetric.directionality, torch.zeros(2), atol=1e-5, rtol=0)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    two = torch.randn(1, 2, 32)
    torch.testing.assert_close(weight_scores(two, turn @ two).symmetry, -torch.ones(1))  # W = w_aᵀw_b − w_bᵀw_a
    wk = torch.ones(1, 8, 32)
    wk[..., 0] = 50
    even = torch.ones(1, 8, 32)
    assert weight_scores(even, wk).directionality.tolist() == [1.0]
    assert weight_scores(wk, even).directionality.tolist() == [-1.0]
    assert weight_scores(even, even).directionality.tolist() == [0.0]


def test_swapping_queries_and_keys_transposes():
    wq, wk = torch.randn(2, 3, 8, 32)
    one, two = weight_scores(wq, wk), weight_scores(wk, wq)
    torch.testing.assert_close(one.symmetry, two.symmetry)
    torch.testing.assert_close(one.directionality, -two.directionality)


def test_scale_and_half_precision_change_nothing():
    wq, wk = torch.randn(2, 3, 8, 32).half()
    one, two = weight_scores(wq, wk), weight_scores(wq.double() * 1e4, wk.double() * 1e-6)
    torch.testing.assert_close(one.symmetry.double(), two.symmetry, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.directionality.double(), two.directionality, atol=1e-4, rtol=0)
