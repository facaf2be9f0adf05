"""The interception itself: which calls are seen, with which arguments, by whom, and that nothing of it stays behind."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.hooks.hooks import HookRegistry, ModelHook
from diffusers.models.attention_dispatch import _AttentionBackendRegistry, dispatch_attention_fn
from torch import nn

import tiny
from symskew import seam
from symskew.attach import SilentControlError, control
from symskew.circulate import Circulation
from symskew.diagnose import diagnose
from symskew.layers import find_layers
from symskew.seam import Tap, watching
from symskew.session import Session

STRONG = Circulation(1.3, 3)


class Probe(Tap):
    """A second user of the seam: sees each call and its result, changes nothing."""

    rank = 1

    def __init__(self, layer):
        super().__init__(layer)
        self.log = []

    def attend(self, call, inner):
        out = inner()
        self.log.append((call, out, call.vanilla()))
        return out


class Probes(Session):
    taps: list[Probe]


def probe(model):
    return Probes(model, [Probe(layer) for layer in find_layers(model)])


class Attention(nn.Module):
    """An attention with a projection for each of q, k, v, whose `how` makes the call."""

    def __init__(self, how, width=8, heads=2, kv_heads=2):
        super().__init__()
        self.heads, self.how = heads, how
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, 4 * n) for n in (heads, kv_heads, kv_heads))

    def forward(self, x, context=None):
        source = x if context is None else context
        q, k, v = self.to_q(x), self.to_k(source), self.to_v(source)
        return self.how(*(t.unflatten(-1, (-1, 4)).transpose(1, 2) for t in (q, k, v)))


def clean():
    return not watching() and torch._C._len_torch_function_stack() == 0 and seam.local.frame is None


@pytest.fixture(autouse=True)
def leaves_nothing_behind():
    assert clean()
    yield
    assert clean()


@pytest.mark.parametrize("build", [tiny.unet_sdxl, tiny.sd3, tiny.flux, tiny.pixart], ids=lambda build: build.__name__)
def test_a_probe_sees_every_call_and_changes_nothing(build):
    model = build()
    vanilla = tiny.run(model)
    with probe(model) as session:
        assert torch.equal(tiny.run(model), vanilla)
    for tap in session.taps:
        ((call, out, plain),) = tap.log
        assert call.q.shape == call.k.shape == call.v.shape == out.shape
        assert call.q.shape[1] == tap.layer.heads
        assert torch.equal(out, plain)
        assert call.x().shape[:2] == (2, call.q.shape[2])
        torch.testing.assert_close(out, F.scaled_dot_product_attention(call.q, call.k, call.v))


@pytest.mark.parametrize("outside", [True, False])
def test_a_probe_sees_what_control_makes_whichever_came_first(outside):
    model = tiny.flux()
    with control(model, STRONG):
        controlled = tiny.run(model)
    first, second = probe(model), control(model, STRONG)
    if not outside:
        first, second = second, first
    with first, second:
        assert torch.equal(tiny.run(model), controlled)
    session = first if outside else second
    assert isinstance(session, Probes)
    assert not any(torch.equal(out, plain) for tap in session.taps for _, out, plain in tap.log)


CALLS = {
    "positional": lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
    "keywords": lambda q, k, v: F.scaled_dot_product_attention(query=q, key=k, value=v),
    "mask": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, hide_last(q)),
    "additive": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=torch.linspace(-1, 1, 6)[None]),
    "causal": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, None, 0.0, True),
    "scale": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.2),
    "dispatched": lambda q, k, v: dispatched(q, k, v),
    "dispatched, two-dimensional mask": lambda q, k, v: dispatched(q, k, v, attn_mask=hide_last(q)[:, 0, 0]),
    "dispatched, causal and scaled": lambda q, k, v: dispatched(q, k, v, is_causal=True, scale=0.2),
}


def hide_last(q):
    mask = torch.ones(q.shape[0], 1, 1, q.shape[2], dtype=torch.bool)
    mask[0, ..., -1] = False
    return mask


def dispatched(q, k, v, **how):
    return dispatch_attention_fn(*(t.transpose(1, 2) for t in (q, k, v)), **how).transpose(1, 2)


def dense(q, k, v, mask, scale, causal):
    """Algorithm 2 with alpha 1.3, beta 3, in float64 and with whole matrices."""
    q, k, v = (t.double() for t in (q, k, v))
    m = q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT * (scale or q.shape[-1] ** -0.5)
    v = v.repeat_interleave(q.shape[1] // v.shape[1], 1)
    bias = torch.zeros_like(m)
    if causal:
        bias.masked_fill_(torch.ones_like(m, dtype=torch.bool).triu(1), -torch.inf)
    if mask is not None:
        bias = bias.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else bias + mask
    p, p_alpha = (torch.softmax(some + bias, -1) for some in (m, 1.15 * m - 0.15 * m.mT))
    blend = (p + 3 * (p_alpha - p)) @ v
    ratio = (p_alpha @ v).norm(dim=-1, keepdim=True) / blend.norm(dim=-1, keepdim=True)
    return blend * ratio.clamp(0.25, 4)


@pytest.mark.parametrize("how", CALLS.values(), ids=CALLS.keys())
def test_all_that_decides_the_result_is_read(how):
    torch.manual_seed(0)
    model = nn.ModuleDict({"attn": Attention(how)})
    x = torch.randn(2, 6, 8)
    vanilla = model["attn"](x)
    with probe(model) as session, control(model, STRONG):
        out = model["attn"](x)
    ((call, _, plain),) = session.taps[0].log
    assert torch.equal(plain, vanilla)
    assert call.x() is x
    want = dense(call.q, call.k, call.v, call.mask, call.scale, call.causal)
    torch.testing.assert_close(out.double(), want, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(out, vanilla, atol=1e-3)


@pytest.mark.parametrize("dispatch", [False, True])
def test_grouped_queries(dispatch):
    def how(q, k, v):
        return (dispatched if dispatch else F.scaled_dot_product_attention)(q, k, v, enable_gqa=True)

    torch.manual_seed(0)
    model = nn.ModuleDict({"attn": Attention(how, heads=4, kv_heads=2)})
    x = torch.randn(2, 6, 8)
    with probe(model) as session, control(model, STRONG):
        out = model["attn"](x)
    call = session.taps[0].log[0][0]
    assert (call.q.shape[1], call.k.shape[1]) == (4, 2)
    torch.testing.assert_close(out.double(), dense(call.q, call.k, call.v, None, None, False), atol=1e-5, rtol=1e-5)


REFUSED = {
    "drops out 0.1 of its links; call .eval()": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, None, 0.1),
    "is over .8, 6, 4. where .batch, heads, tokens, head_dim. was expected": lambda q, k, v: (
        F.scaled_dot_product_attention(*(t.flatten(0, 1).repeat(2, 1, 1) for t in (q, k, v)))
    ),
    "asked for its log-sum-exp": lambda q, k, v: dispatched(q, k, v, attention_kwargs={"return_lse": True}),
    "in parallel over parts of the sequence": lambda q, k, v: dispatched(q, k, v, parallel_config=object()),
    "has a mask of type str; only tensor masks": lambda q, k, v: dispatched(q, k, v, attn_mask="a block mask"),
    "attends more than once in one forward": lambda q, k, v: (
        F.scaled_dot_product_attention(q, k, v) + F.scaled_dot_product_attention(q, k, v)
    ),
}


@pytest.mark.parametrize(("message", "how"), REFUSED.items(), ids=REFUSED.keys())
def test_what_cannot_be_controlled_is_refused(message, how):
    model = nn.ModuleDict({"attn": Attention(how)})
    for attach in (control(model, STRONG), diagnose(model)):
        with pytest.raises(ValueError, match=message) as caught, attach:
            model["attn"](torch.randn(2, 6, 8))
        assert "attn" in str(caught.value)
        assert "symskew" in str(caught.value)


def test_unknown_arguments_of_a_backend_are_refused(monkeypatch):
    def windowed(query, key, value, window_size=None):
        return query

    registry = _AttentionBackendRegistry
    name, _ = registry.get_active_backend()
    monkeypatch.setitem(registry._backends, name, windowed)
    monkeypatch.setitem(registry._supported_arg_names, name, {"query", "key", "value", "window_size"})
    how = {"attention_kwargs": {"window_size": (4, 4)}}
    model = nn.ModuleDict({"attn": Attention(lambda q, k, v: dispatched(q, k, v, **how))})
    message = "takes window_size, which a controlled attention would ignore"
    with pytest.raises(ValueError, match=message), control(model, STRONG):
        model["attn"](torch.randn(2, 6, 8))


def test_as_many_words_as_image_tokens_is_still_cross_attention():
    model = nn.ModuleDict({"attn": Attention(F.scaled_dot_product_attention)})  # does not say what it is for
    x, text = torch.randn(2, 2, 6, 8)
    vanilla = model["attn"](x, text)
    with control(model, STRONG) as handle:
        assert torch.equal(model["attn"](x, text), vanilla)
        assert torch.equal(model["attn"](x, context=text), vanilla)
        assert not torch.equal(model["attn"](x), model["attn"](x, text))
    assert [row.tokens for row in handle.summary()] == [6]
    unet = tiny.unet_sd15()
    vanilla = tiny.run(unet, text=64)
    with probe(unet) as session, control(unet, STRONG):
        assert not torch.equal(tiny.run(unet, text=64), vanilla)
    assert all(len(tap.log) == 1 for tap in session.taps)


def test_layers_that_only_ever_attend_to_text_are_no_control():
    model = nn.ModuleDict({"attn": Attention(F.scaled_dot_product_attention)})
    x, text = torch.randn(2, 2, 6, 8)
    with pytest.raises(SilentControlError, match="nothing was generated under it"), control(model, STRONG):
        model["attn"](x, text)


def test_dispatched_attention_is_intercepted_once():
    model = tiny.flux()
    with probe(model) as session:
        before = dict(_AttentionBackendRegistry._backends)
        tiny.run(model)
    assert all(len(tap.log) == 1 for tap in session.taps)
    assert {tap.backend for tap in session.taps} == {"native"}
    assert not any(before[name] is backend for name, backend in _AttentionBackendRegistry._backends.items())


def test_without_the_private_table_the_mode_sees_dispatched_models(monkeypatch):
    model = tiny.flux()
    with control(model, STRONG):
        wanted = tiny.run(model)
    monkeypatch.setattr(seam, "_backends", lambda: None)
    with control(model, STRONG) as handle:
        assert torch.equal(tiny.run(model), wanted)
    assert {row.backend for row in handle.summary()} == {"sdpa"}


def test_backends_come_back_as_they_were():
    table, before = _AttentionBackendRegistry._backends, dict(_AttentionBackendRegistry._backends)
    model = tiny.flux()
    with probe(model):
        with probe(model):
            assert watching()
        assert watching()

        def mine(**_):
            raise NotImplementedError

        table["native"] = mine  # someone else's, put there meanwhile, is left alone
    assert table["native"] is mine
    table["native"] = before["native"]
    assert dict(table) == before


class Doubling(ModelHook):
    def new_forward(self, module, *args, **kwargs):
        forward: Any = self.fn_ref.original_forward
        return 2 * forward(*args, **kwargs)


class Rooted(nn.ModuleDict):
    def forward(self, x):
        return self["attn"](x)


def test_a_hook_that_came_later_survives():
    model = Rooted({"attn": Attention(F.scaled_dot_product_attention)})
    x = torch.randn(2, 6, 8)
    vanilla = model(x)
    with control(model, STRONG):
        controlled = model(x)
        registry = HookRegistry.check_if_exists_or_initialize(model["attn"])
        registry.register_hook(Doubling(), "doubling")
        assert torch.equal(model(x), 2 * controlled)
    assert torch.equal(model(x), 2 * vanilla)
    with control(model, STRONG):  # the sleeping hook wakes up
        assert torch.equal(model(x), 2 * controlled)
        registry.remove_hook("doubling")
        assert torch.equal(model(x), controlled)
    assert torch.equal(model(x), vanilla)
    assert not {"forward", "_diffusers_hook"} & vars(model["attn"]).keys()


def test_a_wrapper_that_came_later_survives():
    model = nn.ModuleDict({"attn": Attention(F.scaled_dot_product_attention)})
    attention = model["attn"]
    x = torch.randn(2, 6, 8)
    vanilla = attention(x)
    with control(model, STRONG):
        controlled = attention(x)
        inner = attention.forward
        attention.forward = lambda *args: 2 * inner(*args)  # as accelerate does
        assert torch.equal(attention(x), 2 * controlled)
    assert torch.equal(attention(x), 2 * vanilla)
    attention.forward = inner
    assert torch.equal(attention(x), vanilla)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("build", [tiny.unet_sd15, tiny.flux], ids=lambda build: build.__name__)
def test_a_forward_that_is_broken_off_leaves_nothing(build, error):
    model = build()
    vanilla = tiny.run(model)

    class Bomb(Tap):
        rank = 2

        def attend(self, call, inner):
            raise error

    last = find_layers(model)[-1]
    with control(model, STRONG):
        wanted = tiny.run(model)
        with pytest.raises(error), Session(model, [Bomb(last)]):
            tiny.run(model)
        assert seam.local.frame is None
        assert torch._C._len_torch_function_stack() == 0
        assert torch.equal(tiny.run(model), wanted)
    assert torch.equal(tiny.run(model), vanilla)


def test_entering_half_way_is_undone(monkeypatch):
    model = tiny.flux()
    vanilla = tiny.run(model)
    taps = [Probe(layer) for layer in find_layers(model)]
    monkeypatch.setattr(type(taps[3].layer.module), "_diffusers_hook", property(lambda _: 1 / 0), raising=False)
    with pytest.raises(ZeroDivisionError), Session(model, taps):
        pass
    monkeypatch.undo()
    assert torch.equal(tiny.run(model), vanilla)
    assert not any({"forward", "_diffusers_hook"} & vars(module).keys() for module in model.modules())
