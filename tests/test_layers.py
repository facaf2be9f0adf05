"""Finding, naming and choosing layers."""

import pytest
import torch
from torch import nn

import tiny
from symskew.layers import attention_input, context_reader, find_denoisers, find_layers
from symskew.selection import select_layers


def names(layers):
    return [layer.name for layer in layers]


@pytest.fixture(scope="module")
def unet():
    return find_layers(tiny.unet_sdxl())


def test_only_self_attention_in_the_order_it_runs(unet):
    assert all(name.endswith("attn1") for name in names(unet))
    assert [layer.stage for layer in unet] == ["down"] * 3 + ["mid"] * 2 + ["up"] * 6
    assert [layer.depth for layer in unet] == pytest.approx([(i + 0.5) / 11 for i in range(11)])
    assert [layer.heads for layer in unet] == [2] + [4] * 8 + [2] * 2
    assert not any(layer.joint for layer in unet)


def test_transformers_have_their_depth_in_thirds():
    layers = find_layers(tiny.flux())
    assert [layer.stage for layer in layers] == ["down", "down", "mid", "up", "up"]
    assert [layer.joint for layer in layers] == [True, True, False, False, False]
    layers = find_layers(tiny.sd3(), prefix="transformer.")
    assert names(layers) == [
        f"transformer.transformer_blocks.{block}" for block in ("0.attn", "0.attn2", "1.attn", "2.attn")
    ]
    assert [layer.joint for layer in layers] == [True, False, True, True]
    assert {layer.processor for layer in layers} == {"JointAttnProcessor2_0"}


@pytest.mark.parametrize(
    ("selector", "count"),
    [
        (None, 11),
        ("down", 3),
        ("mid", 2),
        ("up", 6),
        ("down,mid", 5),
        (["down", "mid"], 5),
        (("down", "mid"), 5),
        ("up, up_blocks.0.*", 6),
        ("up_blocks.1.*", 2),
        ("*.1.attn1", 4),
        ("mid_block.attentions.0.transformer_blocks.0.attn1", 1),
        ("re:(down|up)_blocks.1.*", 4),
        ("re:mid_block.{1,99}", 2),
        ("0-0.5", 5),
        ("0.5-1.0", 6),
        ((0.0, 0.5), 5),
        ([(0, 0.1), "0.9 - 1"], 2),
        (["mid", (0.0, 0.1)], 3),
    ],
)
def test_selection(unet, selector, count):
    chosen = select_layers(unet, selector)
    assert len(chosen) == count
    assert names(chosen) == [name for name in names(unet) if name in names(chosen)]  # in the model's order, each once


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("up_blocks.1", r"layers='up_blocks.1' picks none of the 11 .*did you mean 'up_blocks.1\.\*'"),
        ("down_block.0.attentions.0.transformer_blocks.0.attn1", "there are down_blocks.0.attentions.0"),
        (
            "middle",
            r"picks none.*a stage \(down, mid, up\), a glob, re:… or a range of depth, and there are down_blocks.0",
        ),
        (["mid", "nonsense"], "layers='nonsense' picks none"),
        ("re:(", r"layers='re:\(' is no regular expression"),
        ((1.0, 2.0), r"layers=\(1.0, 2.0\) picks none.*depths run from 0.05 to 0.95"),
        ("0.3-0.3", "layers='0.3-0.3' picks none"),
        ([], r"layers= is empty"),
        ([("a", "b", 3)], r"takes patterns and \(low, high\) ranges of depth, got \('a', 'b', 3\)"),
        (3, r"takes patterns and \(low, high\) ranges of depth, got 3"),
    ],
)
def test_selection_errors(unet, selector, message):
    with pytest.raises(ValueError, match=message):
        select_layers(unet, selector)


def test_temporal_and_text_layers_need_to_be_spelled_out():
    model = nn.ModuleDict({"spatial": Projections(), "motion_modules": Projections(), "token_refiner": Projections()})
    layers = find_layers(model)
    assert names(layers) == ["spatial", "motion_modules", "token_refiner"]
    for selector in (None, "*", "re:.*", "0-1", "mid"):
        assert names(select_layers(layers, selector)) == ["spatial"]
    assert names(select_layers(layers, "*motion_modules*")) == ["motion_modules"]
    assert names(select_layers(layers, ["spatial", "token_refiner"])) == ["spatial", "token_refiner"]


class Projections(nn.Module):
    """Attention by the looks of it: three projections."""

    def __init__(self, width=4, context=4, style=("to_q", "to_k", "to_v")):
        super().__init__()
        for name, features in zip(style, (width, context, context), strict=True):
            setattr(self, name, nn.Linear(features, width))

    def forward(self, x, context=None):
        raise NotImplementedError


def test_modules_are_known_by_what_they_have():
    class CrossThing(Projections):
        pass

    model = nn.ModuleDict(
        {
            "a": Projections(),
            "b": Projections(style=("q_proj", "k_proj", "v_proj")),
            "keys of another width": Projections(context=6),
            "called cross": CrossThing(),
            "none": nn.Linear(3, 3),
        }
    )
    assert names(find_layers(model)) == ["a", "b"]
    marked = Projections()
    marked.is_cross_attention = True  # type: ignore[assignment]
    assert find_layers(nn.ModuleList([marked])) == []
    assert names(find_layers(nn.ModuleDict({"self_attn": marked}))) == ["self_attn"]
    assert names(find_layers(Projections())) == ["Projections"]


def test_no_layers():
    with pytest.raises(ValueError, match="no self-attention layer"):
        select_layers(find_layers(nn.Linear(2, 2)))


def test_denoisers_of_a_pipeline_only():
    pipe = tiny.pipeline_sd15()
    assert find_denoisers(pipe) == {"unet": pipe.unet}
    assert find_layers(pipe.vae)  # of the very class that is controlled in the UNet
    pipe.unet = torch.compile(pipe.unet, backend="aot_eager")
    assert isinstance(find_denoisers(pipe)["unet"], type(tiny.unet_sd15()))
    with pytest.raises(TypeError, match=r"expected a diffusers pipeline with one of unet, .* got object"):
        find_denoisers(object())


def test_context_is_read_by_name_and_place():
    read = context_reader(Projections())
    x, y = torch.ones(2, 1)
    for args, kwargs in [((x,), {}), ((), {"x": x}), ((x, x), {}), ((x, None), {}), ((x, [y]), {})]:
        hidden, context = read(args, kwargs)
        assert hidden is x
        assert context is None  # also where self-attention is said the long way
    for args, kwargs in [((x, y), {}), ((x,), {"context": y}), ((), {"context": y, "x": x})]:
        hidden, context = read(args, kwargs)
        assert hidden is x
        assert context is y


def test_blocks_compiled_one_by_one_keep_their_names():
    model = tiny.pixart()
    model.transformer_blocks[1] = torch.compile(model.transformer_blocks[1], backend="aot_eager")
    assert names(find_layers(model)) == names(find_layers(tiny.pixart()))


def layer(model, name):
    return next(layer for layer in find_layers(model) if layer.name == name)


def test_input_of_joint_attention_is_in_the_order_of_its_tokens():
    image, text = torch.randn(2, 4, 16), torch.randn(2, 3, 16)
    first = attention_input(layer(tiny.sd3(), "transformer_blocks.1.attn"), image, text)
    assert torch.equal(first, torch.cat([image, text], 1))
    image, text = torch.randn(2, 4, 32), torch.randn(2, 3, 32)
    first = attention_input(layer(tiny.flux(), "transformer_blocks.1.attn"), image, text)
    assert torch.equal(first, torch.cat([text, image], 1))
    single = layer(tiny.flux(), "single_transformer_blocks.1.attn")
    assert attention_input(single, image, None) is image


def test_unknown_inputs_are_refused():
    vae = tiny.vae()
    (attention, *_) = find_layers(vae)
    with pytest.raises(
        ValueError, match=r"normalizes or reshapes its input itself; use Circulation\(space=\"value\"\)"
    ):
        attention_input(attention, torch.randn(1, 4, 8), None)
    plain = find_layers(nn.ModuleDict({"a": Projections()}))[0]
    with pytest.raises(ValueError, match="projections of a saw cannot be known: it normalizes or reshapes"):
        attention_input(plain, torch.randn(1, 4, 4, 4), None)
    with pytest.raises(ValueError, match="its two streams differ in width, 4 and 6"):
        attention_input(plain, torch.randn(1, 4, 4), torch.randn(1, 4, 6))
    with pytest.raises(ValueError, match="the order of text and image tokens in Projections is unknown"):
        attention_input(plain, torch.randn(1, 4, 4), torch.randn(1, 3, 4))
