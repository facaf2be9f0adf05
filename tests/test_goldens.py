"""The published code's results for one self-attention layer, met with its conventions named."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from symskew import Circulation, circulate, stability, symmetry_index

GOLDENS = load_file(Path(__file__).parent / "data" / "published_self_attention.safetensors")
X, ETA = GOLDENS["x"], GOLDENS["eta"]
BATCH, TOKENS, CHANNELS = X.shape
HEADS = ETA.shape[1]
INPUTS = {"x", "to_q", "to_k", "to_v", "to_out_weight", "to_out_bias"}


def heads(name):
    return (X @ GOLDENS[name].T).view(BATCH, TOKENS, HEADS, -1).transpose(1, 2)


Q, K, V = heads("to_q"), heads("to_k"), heads("to_v")
STATES = torch.softmax(Q @ K.mT * Q.shape[-1] ** -0.5, -1) @ X[:, None]
CONVENTIONS = {
    "default": {},
    "raw": {"center": False, "normalize": False},
    "scaled": {"scale": Q.shape[-1] ** -0.5},
}


def result(key):
    kind, *rest = key.split(".", 1)
    if kind == "eta":
        return symmetry_index(Q, K)
    if kind == "stability":
        convention, measure = rest[0].split(".")
        if measure == "eta_head_mean":
            return symmetry_index(Q, K, center=convention != "raw").mean(0)
        return getattr(stability(Q, K, STATES, **CONVENTIONS[convention]), measure).mean(1)
    circulation = Circulation()
    if found := re.fullmatch(r"(static|adaptive)\.alpha=(.+)\.beta=(.+)", rest[0]):
        # Its conventions: norms in the input space, of the perturbed retrieval, and one η for the whole call.
        mode, alpha, beta = found.groups()
        adaptive = "call" if mode == "adaptive" else None
        circulation = Circulation(float(alpha), float(beta), space="input", norm="perturbed", adaptive=adaptive)
    out = circulate(Q, K, V, circulation, x=X).transpose(1, 2).reshape(X.shape)
    return out @ GOLDENS["to_out_weight"].T + GOLDENS["to_out_bias"]


@pytest.mark.parametrize("key", sorted(GOLDENS.keys() - INPUTS))
def test_published_number(key):
    golden = GOLDENS[key]
    # 1e-5, or where the number itself has fewer float32 digits than that (energies near 1600), four of its last units.
    tolerance = max(1e-5, 4 * torch.finfo(torch.float32).eps * golden.abs().max().item())
    assert (result(key) - golden).abs().max() <= tolerance
