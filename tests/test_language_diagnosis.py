"""Diagnosis of transformers models: the paper's numbers at every layer, for every text, and at every token."""

import pytest
import torch

import dense
import tiny_text as tiny
from symskew import Circulation, control, diagnose
from symskew.layers import find_layers
from symskew.seam import Tap
from symskew.session import Session


class Witness(Tap):
    """Keeps what came by."""

    def attend(self, call, inner):
        self.kept = call
        return inner()


def witnessed(model, given):
    taps = [Witness(layer) for layer in find_layers(model)]
    with Session(model, taps), torch.no_grad():
        model(**given)
    return [tap.kept for tap in taps]


def expected(call, row, real):
    """Energy, instability, alignment, symmetry and λ of one text, from whole matrices over its own tokens."""
    heads, tokens = call.q.shape[1], call.q.shape[2]
    q, k = call.q[row : row + 1], call.k[row : row + 1].repeat_interleave(heads // call.k.shape[1], 1)
    shown = torch.ones(tokens, tokens, dtype=torch.bool)
    if call.causal:
        shown = shown.tril()
    if call.mask is not None:
        shown = call.mask.expand(call.q.shape[0], 1, tokens, tokens)[row, 0]
    scale = q.shape[-1] ** -0.5 if call.scale is None else call.scale
    p = dense.probabilities(q, k, 1.0, 1.0, scale, shown)
    states = p @ call.x()[row : row + 1, None]
    q, k, states = (part[:, :, real] for part in (q, k, states))
    return dense.stability(q, k, states), dense.symmetry(q, k)


TEXTS = [tiny.llama, tiny.qwen3, tiny.mistral, tiny.gpt2, tiny.bert, tiny.modernbert]
CASES = [(build, padding) for build in TEXTS for padding in (None, "left", "right")] + [(tiny.vit, None)]


@pytest.mark.parametrize(("build", "padding"), CASES, ids=lambda part: getattr(part, "__name__", str(part)))
def test_measures_are_the_papers_at_every_layer(build, padding):
    model = build()
    given = tiny.inputs(model, padding=padding)
    with torch.no_grad(), diagnose(model, features=None, maps=build is not tiny.vit) as record:
        model(**given)
    table = record.to_pandas()
    assert set(table["states"]) == {"input"}
    assert set(table["step"]) == {0}
    for layer, call in enumerate(witnessed(model, given)):
        for row in range(2):
            tokens = call.q.shape[2]
            real = given["attention_mask"][row].bool() if padding else torch.ones(tokens, dtype=torch.bool)
            wanted, eta = expected(call, row, real)
            found = table[(table["index"] == layer) & (table["sample"] == row)].iloc[0]
            assert found["symmetry"] == pytest.approx(eta.mean().item(), abs=1e-5)
            for name in ("energy", "instability", "alignment"):
                assert found[name] == pytest.approx(wanted[name].mean().item(), rel=1e-5, abs=1e-5), (layer, row, name)
            if build is not tiny.vit:
                agreement = record.tokens("agreement", sample=row)[layer]
                conflict = record.tokens("conflict", sample=row)[layer]
                assert torch.equal(agreement.isnan(), ~real)
                lam = wanted["agreement"]
                torch.testing.assert_close(agreement[real].double(), lam.mean((0, 1, 3)), atol=1e-5, rtol=1e-4)
                torch.testing.assert_close(conflict[real].double(), (lam < 0).double().mean((0, 1, 3)))


def test_forwards_are_counted_and_texts_kept_apart():
    """Without a timestep a step is a forward; what a text measures depends on neither its batch nor its padding."""
    model = tiny.bert()
    short, long = tiny.inputs(model, batch=1, tokens=6), tiny.inputs(model, tokens=9, padding="right")
    long["input_ids"][0, :6] = short["input_ids"][0]
    with torch.no_grad(), diagnose(model, features=None, maps=True) as record:
        alone = model(**short)[0]
        model(**long)
    assert torch.equal(alone, model(**short)[0])
    means = record.mean("alignment", by=["step", "sample"])
    assert list(means) == [(0, 0), (1, 0), (1, 1)]
    assert means[0, 0] == pytest.approx(means[1, 0], abs=1e-6)
    torch.testing.assert_close(record.tokens(step=0)[:, :6], record.tokens(step=1, sample=0)[:, :6])
    both = record.tokens(step=1)
    assert torch.equal(both[:, 6:], record.tokens(step=1, sample=1)[:, 6:])  # the mean of those that have a token there
    with pytest.raises(ValueError, match=r"texts of 6, 9 tokens; choose one with step="):
        record.tokens()
    with pytest.raises(ValueError, match=r"encoder.layer.0.attention.self are no image's; record.tokens\('conflict'\)"):
        record.map("conflict")
    with pytest.raises(ValueError, match="'alignment' is no map"):
        record.tokens("alignment")


def test_texts_whose_tokens_would_make_a_square_are_no_images():
    model = tiny.llama()
    with torch.no_grad(), diagnose(model, maps=True) as record:
        model(**tiny.inputs(model, tokens=9))
    assert record.tokens().shape == (2, 9)


def test_a_picture_has_a_map_without_the_class_token():
    model = tiny.vit()
    given = tiny.inputs(model)
    with torch.no_grad(), diagnose(model, features=None, maps=True) as record:
        model(**given)
    for layer, call in enumerate(witnessed(model, given)):
        wanted, _ = expected(call, 1, torch.ones(17, dtype=torch.bool))
        lam = wanted["agreement"].mean((0, 1, 3))[1:].view(4, 4)
        torch.testing.assert_close(record.map(sample=1, index=layer).double(), lam, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"layers.0.attention are an image's; record.map\('agreement'\)"):
        record.tokens()


def test_under_a_control_both_retrievals_are_measured():
    model = tiny.llama()
    given = tiny.inputs(model, padding="left")
    with torch.no_grad(), diagnose(model, maps=True) as plain:
        model(**given)
    with torch.no_grad(), control(model, Circulation(1.5, 3)), diagnose(model, maps=True) as record:
        model(**given)
    first = {"layer": "layers.0.self_attn"}
    for measure in ("energy", "alignment", "symmetry"):
        vanilla = record.mean(measure, retrieval="vanilla", **first)
        assert vanilla == pytest.approx(plain.mean(measure, **first), abs=1e-6)
    assert record.mean("alpha", retrieval="controlled") == 1.5
    used, vanilla = record.tokens(sample=0, **first), record.tokens(sample=0, retrieval="vanilla", **first)
    assert not torch.allclose(used[:, 3:], vanilla[:, 3:])
    torch.testing.assert_close(vanilla, plain.tokens(sample=0, **first), equal_nan=True)


def test_an_encoder_and_its_decoder_read_texts_of_their_own():
    model = tiny.bart()
    given = tiny.inputs(model) | {"decoder_input_ids": torch.tensor([[2, 3, 4], [5, 6, 7]])}
    with torch.no_grad(), diagnose(model, maps=True) as record:
        model(**given)
    with pytest.raises(ValueError, match="texts of 3, 9 tokens"):
        record.tokens()
    assert record.tokens(stage="down").shape == (1, 9)
    assert record.tokens(layer=["decoder.layers.0.self_attn", "decoder.layers.1.self_attn"]).shape == (2, 3)


@pytest.mark.parametrize("family", [tiny.t5, tiny.bart], ids=lambda build: build.__name__)
def test_a_text_that_is_generated_is_measured_from_its_encoder_on(family):
    """`generate` runs the encoder past the forward of the whole: a step of its own, before those of the decoder."""
    model = family("ForConditionalGeneration")
    given = tiny.inputs(model)["input_ids"]
    how = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "use_cache": False}
    with torch.no_grad(), diagnose(model, features=None) as record:
        text = model.generate(given, **how)
        model.generate(given, num_beams=2, **how)
    with torch.no_grad(), diagnose(model, features=None) as whole:
        model(input_ids=given, decoder_input_ids=text[:, :-1])
    by = ["layer", "sample"]
    wanted = whole.mean("energy", by=by)
    assert len(wanted) == 4 * 2
    assert record.mean("energy", by=by, step=[0, 3]) == pytest.approx(wanted, rel=1e-6)
    again = record.mean("energy", by=by, step=4)
    assert len(again) == 2 * 2
    assert again == record.mean("energy", by=by, step=0)
    samples = record.to_pandas().groupby("step")["sample"].nunique()
    assert samples.to_dict() == dict.fromkeys(range(5), 2) | dict.fromkeys(range(5, 8), 4)


@pytest.mark.parametrize("after", [False, True], ids=["alone", "then the whole"])
def test_calls_past_the_root_are_steps_of_their_own(after):
    model = tiny.bert("ForSequenceClassification")
    texts = [tiny.inputs(model, tokens=tokens, seed=tokens) for tokens in (5, 6, 7)]
    wanted = []
    for text in texts:
        with torch.no_grad(), diagnose(model.bert, maps=True) as record:
            model.bert(**text)
        wanted.append(record)
    with torch.no_grad(), diagnose(model, maps=True) as record:
        for text in texts[:2]:
            model.bert(**text)
        (model if after else model.bert)(**texts[2])
    found = record.to_pandas()
    for step, (one, text) in enumerate(zip(wanted, texts, strict=True)):
        measures = ["sample", "energy", "instability", "alignment", "symmetry"]
        assert found[found.step == step][measures].to_numpy() == pytest.approx(one.to_pandas()[measures].to_numpy())
        assert record.tokens(step=step).shape == (2, text["input_ids"].shape[1])
    assert set(found.step) == {0, 1, 2}
    with torch.no_grad(), diagnose(model, every=2) as record:
        model(**texts[0])
        model(**texts[1])
        model.bert(**texts[2])
        model.bert(**texts[1])
        model.bert(**texts[0])
    assert set(record.to_pandas().step) == {0, 2, 4}


def test_what_was_broken_off_is_not_taken_for_a_call_past_the_root():
    model = tiny.bert("ForSequenceClassification")
    text = tiny.inputs(model)
    with torch.no_grad(), diagnose(model) as record:
        handle = model.classifier.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(**text)
        handle.remove()
        model.bert(**text)
        model(**text)
    assert record.to_pandas().groupby("step").size().to_dict() == {1: 4, 2: 4}


def test_a_backward_that_runs_layers_again_measures_nothing_twice():
    none = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    model = tiny.bert("ForSequenceClassification", **none).train().requires_grad_(True)
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)()  # as transformers 5.0 calls it
    with control(model, Circulation(1.5, 3)), diagnose(model) as record:
        for _ in range(2):
            model(**tiny.inputs(model)).logits.square().sum().backward()
    assert record.to_pandas().groupby(["step", "retrieval"]).size().tolist() == [4] * 4


def test_values_that_are_not_finite_are_found_in_calls_past_the_root():
    model = tiny.bert("ForSequenceClassification")
    text = tiny.inputs(model)
    bias = model.bert.encoder.layer[1].attention.self.value.bias.data
    kept = bias.clone()

    def run():
        bias.fill_(float("nan"))
        model.bert(**text)
        bias.copy_(kept)
        model(**text)

    with pytest.raises(FloatingPointError, match=r"first at bert.encoder.layer.1"), control(model, Circulation(1.5, 3)):
        run()
