"""Attention that has no q kᵀ of all its tokens: each kind of it is an error that names the layer and says why."""

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention as attend

from symskew import Circulation, control, diagnose
from symskew.attach import SilentControlError
from symskew.silence import SilentProbeError

STRONG = Circulation(1.3, 3)


class Attention(nn.Module):
    """Two heads of self-attention over (batch, tokens, 8), computed as `how` says."""

    def __init__(self, how):
        super().__init__()
        self.heads, self.how = 2, how
        self.to_q, self.to_k, self.to_v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        q, k, v = (way(x).unflatten(-1, (2, 4)).transpose(1, 2) for way in (self.to_q, self.to_k, self.to_v))
        return self.how(q, k, v).transpose(1, 2).flatten(2)


def blocks_in_time(q, k, v):
    first = attend(q[:, :, :3], k[:, :, :3], v[:, :, :3])
    return torch.cat([first, attend(q[:, :, 3:], k, v)], 2)


def first_all_then_some(q, k, v):
    return attend(q, k, v) + attend(q[:, :, :2], k, v).mean(2, keepdim=True)


def difference(q, k, v):
    return attend(q, k, v) - attend(k, q, v)


def queries_of_some(q, k, v):
    return torch.cat([attend(q[:, :, 2:], k, v), v[:, :, :2]], 2)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (blocks_in_time, "layer attends in parts, the first of 3 of its 6 tokens with themselves"),
        (first_all_then_some, "layer attends once among some of its tokens, and again from 2 others to 6"),
        (difference, "layer .* attends more than once in one forward"),
    ],
)
@pytest.mark.parametrize("watch", [lambda model: control(model, STRONG), diagnose], ids=["control", "diagnose"])
def test_no_association_of_all_tokens(how, message, watch):
    model, x = nn.ModuleDict({"layer": Attention(how)}), torch.randn(2, 6, 8)
    with pytest.raises(ValueError, match=message), watch(model):
        model["layer"](x)


def test_queries_of_some_tokens_are_no_square():
    model, x = nn.Sequential(Attention(queries_of_some)), torch.randn(2, 6, 8)
    message = "0: Attention; it has queries for some of its tokens only, 4 for 6 keys: q kᵀ is not square"
    with pytest.raises(SilentControlError, match=message), control(model, STRONG):
        model(x)
    with pytest.raises(SilentProbeError, match=message), diagnose(model):
        model(x)


def test_samples_may_attend_one_by_one():
    def one_by_one(q, k, v):
        return torch.cat([attend(*(t[row : row + 1] for t in (q, k, v))) for row in range(len(q))])

    together, apart, x = nn.Sequential(Attention(attend)), nn.Sequential(Attention(one_by_one)), torch.randn(3, 6, 8)
    apart.load_state_dict(together.state_dict())
    outputs, records = [], []
    for model in (together, apart):
        with control(model, STRONG), diagnose(model, states="value", heads=True) as record:
            outputs.append(model(x))
        records.append(record.to_pandas()[["sample", "head", "energy", "alignment", "symmetry"]].to_numpy())
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*map(torch.tensor, records))
