"""The image's tokens alone: the block of M between them is decomposed, all other logits stay as they are."""

import importlib

import pytest
import torch
import torch.nn.functional as F

import dense
from symskew import Circulation, Gate, circulate
from symskew.circulate import circulated
from test_circulate import MODES, Largest, masks, qkv, way

__all__ = ["way"]  # a fixture

PLACES = {"image first": slice(0, 20), "text first": slice(12, 33), "between": slice(5, 30)}


@pytest.mark.parametrize("space", ["value", "input"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("mode", MODES)
def test_equals_the_dense_reference(way, mode, place, space):
    q, k, v = qkv(33, 16)
    x, image = torch.randn(2, 33, 21, dtype=torch.double), PLACES[place]
    found = circulate(q, k, v, Circulation(**MODES[mode], space=space, tokens="image"), x=x, image=image)
    expected = dense.algorithm2(q, k, v, **MODES[mode], x=x if space == "input" else None, image=image)
    assert (found - expected).abs().max() < 1e-10


@pytest.mark.parametrize("name", ["keys", "square", "per head", "one sample hidden"])
@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_masks(way, name, beta):
    q, k, v = qkv(33, 16)
    mask, image = masks(33)[name], PLACES["text first"]
    found = circulate(q, k, v, Circulation(1.3, beta, tokens="image"), mask=mask, image=image)
    assert (found - dense.algorithm2(q, k, v, alpha=1.3, beta=beta, mask=mask, image=image)).abs().max() < 1e-10


def test_adaptive_measures_the_block_without_hidden_tokens(way):
    q, k, v = qkv(33, 16)
    image, seen = slice(13, 33), torch.ones(2, 1, 1, 33, dtype=torch.bool)
    seen[..., :3] = seen[..., -5:] = False
    found = circulated(q, k, v, Circulation(1.5, 3, adaptive="head", tokens="image"), mask=seen, image=image)
    eta = dense.symmetry(q[:, :, 13:28], k[:, :, 13:28])
    assert (found.alpha - (1 + 0.5 * eta)).abs().max() < 1e-10


def test_text_retrieves_as_it_always_does(way):
    q, k, v = qkv(33, 16, dtype=torch.float32)
    for beta in (1.0, 4.0):
        out = circulate(q, k, v, Circulation(2.0, beta, tokens="image"), image=slice(0, 20))
        plain = F.scaled_dot_product_attention(q, k, v)
        torch.testing.assert_close(out[:, :, 20:], plain[:, :, 20:], atol=2e-6, rtol=1e-5)
        assert (out[:, :, :20] - plain[:, :, :20]).abs().max() > 1e-2


def test_an_image_alone_is_all_there_is(way):
    q, k, v = qkv(33, 16)
    alone = circulate(q, k, v, Circulation(1.4, 3, adaptive="sample", tokens="image"), image=slice(0, 33))
    assert torch.equal(alone, circulate(q, k, v, Circulation(1.4, 3, adaptive="sample")))


def test_the_identity_and_the_gate(way):
    q, k, v = qkv(33, 16, dtype=torch.float32)
    image = slice(0, 20)
    same = circulate(q, k, v, Circulation(tokens="image"), image=image)
    assert torch.equal(same, F.scaled_dot_product_attention(q, k, v))
    settings = Circulation(1.5, 3, tokens="image", gate=Gate("instability", 1.0))
    closed = circulated(q, k, v, settings, image=image)
    assert closed.vanilla is not None
    assert torch.equal(closed.out, closed.vanilla)


def test_what_is_carried_sees_what_the_values_see(way):
    q, k, v = qkv(33, 16)
    carry, image = torch.randn(2, 1, 33, 50, dtype=torch.double), PLACES["text first"]
    found = circulated(q, k, v, Circulation(1.5, 3, tokens="image"), image=image, carry=carry)
    assert found.carried is not None
    wanted = dense.algorithm2(q, k, v, alpha=1.5, beta=3, image=image, carry=carry)
    assert (found.carried[1] - wanted).abs().max() < 1e-10


def test_gradients_agree_with_the_dense_reference(way):
    q, k, v = qkv(17, 5)
    weights = torch.randn(2, 3, 17, 5, dtype=torch.double)

    def gradients(compute):
        inputs = [tensor.clone().requires_grad_() for tensor in (q, k, v)]
        return torch.autograd.grad((compute(*inputs) * weights).sum(), inputs)

    image = slice(4, 17)
    ours = gradients(lambda q, k, v: circulate(q, k, v, Circulation(1.3, 2, tokens="image"), image=image))
    theirs = gradients(lambda q, k, v: dense.algorithm2(q, k, v, alpha=1.3, beta=2, image=image))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() < 1e-9


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_memory_stays_linear_in_tokens(monkeypatch, beta):
    monkeypatch.setattr(importlib.import_module("symskew.circulate"), "fused_serves_best", lambda *_: True)
    q, k, v = qkv(1024, 8, dtype=torch.float32)
    with Largest() as largest, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        circulate(q, k, v, Circulation(1.3, beta, tokens="image"), image=slice(100, 1024))
    assert largest.numel <= 2 * 3 * 1024 * 16 * 2


@pytest.mark.parametrize(
    ("settings", "given", "message"),
    [
        ({"tokens": "image"}, {}, r"needs to know which tokens .* as in image=slice\(0, 1024\); got None"),
        ({"tokens": "image"}, {"image": slice(0, 9), "causal": True}, r"got slice\(0, 9, None\) and causal=True"),
        ({"tokens": "image"}, {"image": slice(0, 9, 2)}, r"got slice\(0, 9, 2\)"),
        ({"tokens": "image"}, {"image": slice(40, 50)}, r"has none of the 33 tokens"),
        ({}, {"image": slice(0, 9)}, r'image= without Circulation\(tokens="image"\) would do nothing'),
    ],
)
def test_what_makes_no_sense_is_refused(settings, given, message):
    with pytest.raises(ValueError, match=message):
        circulate(*qkv(33, 16), Circulation(1.3, 2, **settings), **given)
    with pytest.raises(ValueError, match="tokens must be 'all', 'image', got 'text'"):
        Circulation(1.3, tokens="text")  # pyright: ignore[reportArgumentType]
