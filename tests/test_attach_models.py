"""Every family of denoisers: what control does to each layer, against the equations written out densely.

The reference takes what went into each attention module and the module's own weights, follows the equations of its
model in float64, and applies Algorithm 2 with the whole tokens × tokens matrices. Nothing in it comes from symskew.
"""

import math

import pytest
import torch

import tiny
from symskew.attach import control, disable, enable
from symskew.circulate import Circulation
from symskew.layers import find_layers

FAMILIES = {tiny.unet_sd15: 4, tiny.unet_sdxl: 11, tiny.sd3: 4, tiny.flux: 5, tiny.pixart: 3}  # self-attention layers
PIPELINES = [tiny.pipeline_sd15, tiny.pipeline_sdxl, tiny.pipeline_sd3, tiny.pipeline_flux, tiny.pipeline_pixart]
SETTINGS = {
    "blend": Circulation(1.3, 3),
    "sym only": Circulation.sym_only(),
    "adaptive": Circulation(1.3, 3, adaptive="sample"),
    "input": Circulation(1.3, 3, space="input"),
}


@pytest.fixture(params=FAMILIES, ids=lambda build: build.__name__)
def model(request):
    return request.param()


def linear(layer, x):
    out = x @ layer.weight.detach().double().T
    return out if layer.bias is None else out + layer.bias.detach().double()


def rms(norm, x):
    if norm is None:
        return x
    return x * (x.square().mean(-1, keepdim=True) + norm.eps).rsqrt() * norm.weight.detach().double()


def split(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def rotate(x, rotary):
    """Rotary positions as FLUX applies them: neighbouring pairs of columns."""
    if rotary is None:
        return x
    cos, sin = (part.double() for part in rotary)
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cos + torch.stack([-imaginary, real], -1).flatten(-2) * sin


def algorithm_2(q, k, v, x, settings, image=slice(None)):
    """Dense, from the paper: M = q kᵀ/√d, its symmetric and skew parts, the blend, and the norm of Algorithm 2.

    Of the block of M between the image's tokens alone, where these are given.
    """
    m = q @ k.mT / math.sqrt(q.shape[-1])
    block = m[..., image, image]
    sym, skew = (block + block.mT) / 2, (block - block.mT) / 2
    alpha, beta = settings.alpha, settings.beta
    if settings.adaptive == "sample":
        energy_sym, energy_skew = sym.square().sum((-2, -1)), skew.square().sum((-2, -1))
        eta = ((energy_sym - energy_skew) / (energy_sym + energy_skew)).mean(1)[:, None, None, None]
        alpha, beta = 1 + (alpha - 1) * eta, beta * (1 - eta)
    logits = m.clone()
    logits[..., image, image] = settings.sym * sym + alpha * skew
    p, p_alpha = torch.softmax(m, -1), torch.softmax(logits, -1)
    blend = p + beta * (p_alpha - p)
    if settings.norm is None:
        return blend @ v
    features = x[:, None] if settings.space == "input" else v
    ratio = (p_alpha @ features).norm(dim=-1) / (blend @ features).norm(dim=-1)
    return (blend @ v) * ratio.clamp(0.25, 4)[..., None]


def reference(attention, hidden, context, rotary, settings, text_first, image=slice(None)):
    """The output of one attention module: one tensor, or one per stream."""
    heads, streams = attention.heads, {"image": hidden.double()}
    if context is not None:
        streams["text"] = context.double()
    order = sorted(streams, reverse=text_first)
    names = {"image": ("to_q", "to_k", "to_v"), "text": ("add_q_proj", "add_k_proj", "add_v_proj")}
    norms = {"image": ("norm_q", "norm_k"), "text": ("norm_added_q", "norm_added_k")}
    parts = []
    for stream in order:
        q, k, v = (split(linear(getattr(attention, name), streams[stream]), heads) for name in names[stream])
        q, k = (rms(getattr(attention, name, None), t) for name, t in zip(norms[stream], (q, k), strict=True))
        parts.append((q, k, v))
    q, k, v = (torch.cat(some, 2) for some in zip(*parts, strict=True))
    x = torch.cat([streams[stream] for stream in order], 1)
    out = algorithm_2(rotate(q, rotary), rotate(k, rotary), v, x, settings, image).transpose(1, 2).flatten(2)
    out = dict(zip(order, out.split([streams[stream].shape[1] for stream in order], 1), strict=True))
    if getattr(attention, "to_out", None) is not None:
        out["image"] = linear(attention.to_out[0], out["image"])
    if context is not None and getattr(attention, "to_add_out", None) is not None:
        out["text"] = linear(attention.to_add_out, out["text"])
    return out


def record(model):
    """What goes into and comes out of every attention module, by plain hooks."""
    seen = {}

    def hook(name):
        def note(module, args, kwargs, output):
            hidden = args[0] if args else kwargs["hidden_states"]
            seen[name] = hidden, kwargs.get("encoder_hidden_states"), kwargs.get("image_rotary_emb"), output

        return note

    for name, module in model.named_modules():
        if hasattr(module, "get_processor"):
            module.register_forward_hook(hook(name), with_kwargs=True)
    return seen


def assert_layers(model, seen, chosen, settings):
    for name in chosen:
        attention = model.get_submodule(name)
        hidden, context, rotary, output = seen[name]
        want = reference(attention, hidden, context, rotary, settings, text_first="Flux" in type(model).__name__)
        got = output if isinstance(output, tuple) else (output,)
        # float32 against float64, through two projections of about unit scale.
        for stream, tensor in zip(("image", "text"), got, strict=False):
            torch.testing.assert_close(
                tensor.double(), want[stream], atol=2e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize(("build", "count"), FAMILIES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_every_layer_equals_the_dense_reference(build, count, settings):
    model = build()
    seen = record(model)
    with control(model, settings) as handle:
        tiny.run(model)
    names = [layer.name for layer in handle.layers]
    assert len(names) == count
    assert_layers(model, seen, names, settings)
    with pytest.raises(AssertionError):  # the tolerance tells control from vanilla
        assert_layers(model, seen, names, Circulation())


def test_layers_that_were_not_chosen_are_vanilla(model):
    seen = record(model)
    with control(model, Circulation(1.3, 3), layers="mid") as handle:
        tiny.run(model)
    chosen = {layer.name for layer in handle.layers}
    rest = {layer.name for layer in find_layers(model)} - chosen
    assert chosen
    assert rest
    assert_layers(model, seen, rest, Circulation())
    assert_layers(model, seen, chosen, Circulation(1.3, 3))


def test_identity_is_bit_identical_and_leaving_restores(model):
    vanilla = tiny.run(model)
    with control(model, Circulation()) as handle:
        assert torch.equal(tiny.run(model), vanilla)
    assert all(row.calls == 1 for row in handle.summary())
    with control(model, Circulation(1.3, 3)):
        assert not torch.equal(tiny.run(model), vanilla)
    assert torch.equal(tiny.run(model), vanilla)
    assert not any({"forward", "_diffusers_hook"} & vars(module).keys() for module in model.modules())


@pytest.mark.parametrize("build", PIPELINES, ids=lambda build: build.__name__)
def test_pipelines(build):
    pipe = build()
    vanilla = tiny.generate(pipe)
    handle = enable(pipe, Circulation(1.3, 3))
    assert not torch.equal(tiny.generate(pipe), vanilla)
    disable(pipe)
    assert torch.equal(tiny.generate(pipe), vanilla)
    assert all(row.calls == 3 for row in handle.summary())
