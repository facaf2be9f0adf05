"""Control of transformers models: every layer against the equations written out densely in float64.

The reference goes the library's own way: an attention function of Algorithm 2 with whole matrices, registered under a
name. Nothing of symskew is in it.
"""

from typing import Any

import pytest
import torch

import dense
import tiny_text as tiny
from symskew import Circulation, SilentControlError, control, diagnose
from symskew.layers import find_layers
from tiny_text import transformers

CAUSAL = [tiny.llama, tiny.qwen2, tiny.qwen3, tiny.mistral, tiny.phi3, tiny.gpt2, tiny.neox]
BOTH_WAYS = [tiny.bert, tiny.modernbert]
VISION = [tiny.vit, tiny.clip_vision]
TWO_SIDES = [tiny.t5, tiny.bart]
STRONG = Circulation(1.5, 3)
SETTINGS = {
    "blend": STRONG,
    "sym only": Circulation.sym_only(),
    "adaptive": Circulation(1.5, 3, adaptive="sample"),
    "input": Circulation(1.5, 3, space="input"),
}
VANILLA = {"alpha": 1.0, "beta": 1.0}


class Reference:
    """An attention function for transformers' table: Algorithm 2 where a module attends to itself."""

    def __init__(self, settings: Circulation, model: Any) -> None:
        self.circulation, self.inputs, self.calls = settings, {}, []
        for name, module in model.named_modules():
            if name.endswith(("EncDecAttention", "encoder_attn")):
                module.cross = True
            module.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, module: Any, args: Any, kwargs: Any) -> None:
        self.inputs[module] = args[0] if args else kwargs.get("hidden_states")

    def __call__(self, module, query, key, value, mask, scaling=None, position_bias=None, **_):
        if position_bias is not None:
            mask = position_bias if mask is None else mask + position_bias
        x = self.inputs[module]
        hidden = None if mask is None else (mask < -1e30).all(-2)[:, :, :, None]
        self.calls.append((query, key, value, mask, scaling, x))
        some: Any = {name: getattr(self.circulation, name) for name in ("alpha", "beta", "sym", "adaptive", "norm")}
        if getattr(module, "cross", False):
            some = VANILLA
        if some.get("adaptive"):
            q, k = query, key.repeat_interleave(query.shape[1] // key.shape[1], 1)
            if hidden is not None:
                q, k = q.masked_fill(hidden, 0), k.masked_fill(hidden, 0)
            some["eta"] = dense.symmetry(q, k)
        if self.circulation.space == "input" and not getattr(module, "cross", False):
            some["x"] = x
        return dense.algorithm2(query, key, value, mask=mask, scale=scaling, **some).transpose(1, 2), None


@pytest.fixture
def registered(monkeypatch):
    """Registers a reference as transformers' attention function "dense", with masks that are added."""

    def register(settings, model):
        reference = Reference(settings, model)
        masks = transformers.masking_utils
        transformers.AttentionInterface.register("dense", lambda *args, **kwargs: reference(*args, **kwargs))
        transformers.AttentionMaskInterface.register("dense", masks.eager_mask)
        return reference

    yield register
    transformers.AttentionInterface._global_mapping.pop("dense", None)
    transformers.AttentionMaskInterface._global_mapping.pop("dense", None)


def states(model, given):
    """What every layer hands on, (batch, tokens, features) each."""
    with torch.no_grad():
        out = model(**given, output_hidden_states=True)
    sides = (getattr(out, f"{side}hidden_states", None) for side in ("", "encoder_", "decoder_"))
    return [state for side in sides if side for state in side]


def hold(build, settings, registered, padding=None):
    model, other = build(), build()
    given = tiny.inputs(model, padding=padding)
    vanilla = states(model, given)
    with control(model, settings) as handle:
        found = states(model, given)
    reference = registered(settings, other)
    other.set_attn_implementation("dense")
    wanted = states(other, given)
    shown = given.get("attention_mask", torch.ones(2, found[0].shape[1])).bool()
    assert {row.calls for row in handle.summary()} == {1}
    assert len(found) == len(wanted) > 2
    for layer, (one, two, plain) in enumerate(zip(found, wanted, vanilla, strict=True)):
        # Norms of transformers round to float32, whatever the model's dtype.
        torch.testing.assert_close(one[shown], two[shown], atol=2e-5, rtol=2e-5, msg=lambda m, i=layer: f"{i}: {m}")
        assert layer in (0, 3) or not torch.allclose(two[shown], plain[shown], atol=1e-2)
    for one, two in zip(states(model, given), vanilla, strict=True):
        assert torch.equal(one, two)
    return reference


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("build", [*CAUSAL, *BOTH_WAYS, *VISION, *TWO_SIDES], ids=lambda build: build.__name__)
def test_every_layer_is_exact(build, settings, registered):
    hold(build, settings, registered)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("name", ["blend", "adaptive"])
@pytest.mark.parametrize("build", [tiny.llama, tiny.mistral, tiny.gpt2, *BOTH_WAYS], ids=lambda build: build.__name__)
def test_padding_changes_nothing(build, name, padding, registered):
    hold(build, SETTINGS[name], registered, padding)


def test_layers_are_found_by_what_they_are():
    """By structure: what asks transformers for its attention function, without the cross-attention."""
    expected = {
        tiny.llama: ["layers.0.self_attn", "layers.1.self_attn"],
        tiny.gpt2: ["h.0.attn", "h.1.attn"],
        tiny.bert: ["encoder.layer.0.attention.self", "encoder.layer.1.attention.self"],
        tiny.modernbert: ["layers.0.attn", "layers.1.attn"],
        tiny.neox: ["layers.0.attention", "layers.1.attention"],
        tiny.t5: [f"{side}.block.{i}.layer.0.SelfAttention" for side in ("encoder", "decoder") for i in (0, 1)],
        tiny.bart: [f"{side}.layers.{i}.self_attn" for side in ("encoder", "decoder") for i in (0, 1)],
    }
    for build, names in expected.items():
        layers = find_layers(build())
        assert [layer.name for layer in layers] == names
        assert {layer.heads for layer in layers} == {4}
    decoder = transformers.BertModel(transformers.BertConfig(
        hidden_size=32, num_attention_heads=4, num_hidden_layers=1, intermediate_size=8, vocab_size=9,
        is_decoder=True, add_cross_attention=True,
    ))  # fmt: skip
    assert [layer.name for layer in find_layers(decoder)] == ["encoder.layer.0.attention.self"]
    decoder = tiny.gpt2(add_cross_attention=True)
    assert [layer.name for layer in find_layers(decoder)] == ["h.0.attn", "h.1.attn"]


def test_cross_attention_given_as_a_second_sequence_is_left_alone():
    """As wide and as long as the first, and of the same class: only its argument tells."""
    from transformers.models.bart.modeling_bart import BartAttention

    config = transformers.BartConfig(d_model=16, decoder_attention_heads=2, attn_implementation="sdpa")
    module = torch.nn.ModuleDict({"one": BartAttention(16, 2, config=config, layer_idx=0)}).eval()
    x, y = torch.randn(2, 1, 5, 16)
    assert [layer.name for layer in find_layers(module)] == ["one"]
    with torch.no_grad(), control(module, STRONG) as handle:
        own = module["one"](x)[0]
        other = module["one"](x, key_value_states=y)[0]
    assert [row.tokens for row in handle.summary()] == [5]
    with torch.no_grad():
        assert not torch.allclose(own, module["one"](x)[0])
        assert torch.equal(other, module["one"](x, key_value_states=y)[0])


def generate(model, ids, **changes):
    return model.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=-1, **changes)


@pytest.mark.parametrize(
    ("cache", "first", "keys"),
    [({}, 6, 7), ({}, 2, 3), ({"cache_implementation": "static"}, 6, 8), ({"cache_implementation": "static"}, 1, 3)],
    ids=str,
)
def test_a_cached_step_has_no_decomposition(cache, first, keys):
    """One token's two query heads to a group are folded into two rows: with two keys that would look square."""
    model = tiny.llama("ForCausalLM")
    ids = tiny.inputs(model, batch=1, tokens=first)["input_ids"]
    vanilla = generate(model, ids, **cache)
    message = (
        rf"model.layers.0.self_attn attends from 1 token\(s\) to {keys} through a key-value cache.*use_cache=False"
    )
    for open_block in (lambda: control(model, STRONG), lambda: diagnose(model)):
        with pytest.raises(ValueError, match=message), open_block():
            generate(model, ids, **cache)
    with control(model, Circulation()):  # which asks for nothing
        assert torch.equal(generate(model, ids, **cache), vanilla)
    assert torch.equal(generate(model, ids, **cache), vanilla)


def test_without_a_cache_generation_is_controlled_at_every_step():
    model = tiny.llama("ForCausalLM")
    ids = tiny.inputs(model, batch=2, tokens=6)["input_ids"]
    with control(model, STRONG) as handle:
        found = generate(model, ids, use_cache=False)
        with torch.no_grad():
            wanted = ids
            for _ in range(3):
                wanted = torch.cat(
                    [wanted, model(wanted).logits[:, -1:].argmax(-1)], 1
                )  # a prefill: its cache is empty
    assert torch.equal(found, wanted)
    assert not torch.equal(found, generate(model, ids))
    assert [(row.tokens, row.calls) for row in handle.summary()] == [(8, 6)] * 2


def test_beams_need_a_row_of_alpha_each():
    model, ids = tiny.llama("ForCausalLM"), torch.randint(1, tiny.WORDS, (2, 5))
    each = torch.tensor([[0.2], [3.0]])
    message = r"given for 2 samples, but .* attends for 4 rows.* texts × beams"
    with pytest.raises(ValueError, match=message), control(model, Circulation(each, 2)):
        generate(model, ids, num_beams=2, use_cache=False)
    with control(model, Circulation(each.repeat_interleave(2, 0), 2)):
        both = generate(model, ids, num_beams=2, use_cache=False)
    for row, alpha in enumerate((0.2, 3.0)):
        with control(model, Circulation(alpha, 2)):
            assert torch.equal(both[row], generate(model, ids, num_beams=2, use_cache=False)[row])


def test_a_causal_control_lets_no_later_token_in():
    """M_ji needs q_j, and j ≤ i: what comes after i changes nothing at i."""
    model = tiny.llama()
    given = tiny.inputs(model)
    shorter = {"input_ids": given["input_ids"][:, :5]}
    with control(model, STRONG):
        for one, two in zip(states(model, given), states(model, shorter), strict=True):
            torch.testing.assert_close(one[:, :5], two, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("session", [lambda model: control(model, STRONG), diagnose], ids=["control", "diagnose"])
def test_what_never_calls_sdpa_is_refused_by_name(session):
    model = tiny.llama()
    model.set_attn_implementation("eager")
    message = r'layers.0.self_attn, layers.1.self_attn: LlamaAttention on backend eager; .*attn_implementation="sdpa"'
    with pytest.raises(RuntimeError, match=message) as caught, session(model), torch.no_grad():
        model(**tiny.inputs(model))
    assert type(caught.value).__name__.startswith("Silent")
    model.set_attn_implementation("sdpa")
    with session(model), torch.no_grad():
        model(**tiny.inputs(model))


def test_models_that_know_no_other_way_are_refused_by_name():
    sizes = {"vocab_size": 9, "hidden_size": 16}
    bloom = transformers.BloomModel(transformers.BloomConfig(n_head=2, n_layer=1, **sizes)).eval()
    deberta = transformers.DebertaV2Model(
        transformers.DebertaV2Config(num_attention_heads=2, num_hidden_layers=1, intermediate_size=8, **sizes)
    ).eval()
    ids = torch.tensor([[2, 3, 4, 5]])
    for model, name in ((bloom, "BloomAttention"), (deberta, "DisentangledSelfAttention")):
        with pytest.raises(SilentControlError, match=f"{name}.*transformers") as caught, control(model, STRONG):
            model(ids)
        assert "sdpa" in str(caught.value)


def test_training_is_refused_for_its_dropout():
    model = tiny.llama(attention_dropout=0.1).train()
    with pytest.raises(ValueError, match=r"drops out 0.1 of its links; call .eval\(\)"), control(model, STRONG):
        model(**tiny.inputs(model))


def test_compiled_models_are_controlled_alike():
    model = tiny.llama().float()
    given = tiny.inputs(model)
    with torch.no_grad(), control(model, STRONG):
        wanted = model(**given)[0]
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad(), control(compiled, STRONG) as handle:
        torch.testing.assert_close(compiled(**given)[0], wanted, atol=1e-4, rtol=1e-4)
    assert {row.calls for row in handle.summary()} == {1}
