"""The trainings run, repeat and resume, in a tiny configuration."""

import json
import re

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from symskew.ensemble.build import WORDS, make_pipeline, make_tokenizer
from symskew.ensemble.prompts import PHRASINGS, caption
from symskew.ensemble.train.__main__ import app
from symskew.ensemble.train.latents import Latents, load_latents
from symskew.ensemble.train.run import Average, Budget, learning_rate
from symskew.ensemble.train.unet import draw_batch, encode_text, loss_weights, timestep_shares, train_unet
from symskew.ensemble.vocabulary import COLOUR_NAMES, ColouredDigit


@pytest.fixture
def data() -> Latents:
    rng = np.random.default_rng(0)
    labels = np.full((40, 6), -1, np.int8)
    labels[np.arange(40), np.arange(40) % 6] = rng.integers(10, size=40)
    return Latents(rng.standard_normal((40, 4, 16, 16)).astype(np.float16), labels)


def _train(data, folder, **settings):
    settings = {"steps": 6, "batch": 4, "compiled": False, "report": 1, "grid": 0, **settings}
    pipeline = train_unet(make_pipeline("tiny"), data, folder, **settings)
    losses = {line["step"]: line["loss"] for line in map(json.loads, (folder / "unet.jsonl").read_text().splitlines())}
    return pipeline.unet.state_dict(), losses


def test_a_training_left_off_and_resumed_is_the_same_training(data, tmp_path):
    whole, losses = _train(data, tmp_path / "whole")
    _train(data, tmp_path / "halves", stop=3)
    resumed, halves = _train(data, tmp_path / "halves")
    assert losses == halves
    assert len(losses) == 6
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_training_lowers_the_loss(data, tmp_path):
    # One batch over and over: whatever the data, a working trainer must fit it.
    few = Latents(np.tile(data.latents[:1], (4, 1, 1, 1)), np.tile(data.labels[:1], (4, 1)))
    _, losses = _train(few, tmp_path, steps=40, batch=8, peak=5e-3)
    assert np.mean([losses[s] for s in range(35, 41)]) < 0.8 * np.mean([losses[s] for s in range(1, 6)])


def test_batches_depend_on_seed_and_step_alone(data):
    def draw(seed, step):
        return draw_batch(data, lambda texts: torch.tensor([[len(t)] for t in texts]), size=8, seed=seed, step=step)

    one, two, other = draw(1, 5), draw(1, 5), draw(1, 6)
    assert torch.equal(one.noise, two.noise)
    assert torch.equal(one.tokens, two.tokens)
    assert not torch.equal(one.noise, other.noise)
    assert one.steps.sort().values.tolist() == one.steps.tolist()  # one from each eighth of the schedule's shares
    drawn = np.concatenate([draw(2, step).steps.numpy() for step in range(500)])
    assert drawn.min() >= 0
    assert drawn.max() <= 999
    wanted = timestep_shares().reshape(10, 100).sum(1)
    assert np.bincount(drawn // 100, minlength=10) / len(drawn) == pytest.approx(wanted, abs=0.02)


def test_text_is_encoded_as_the_pipeline_does():
    pipeline = make_pipeline("tiny")
    text = "a picture of a red three and a blue seven"
    tokens = pipeline.tokenizer([text], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        ours, pooled = encode_text(pipeline, tokens)
        theirs, none, their_pooled, none_pooled = pipeline.encode_prompt(text, do_classifier_free_guidance=True)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert torch.allclose(pooled, their_pooled, atol=1e-6)
    # What a dropped caption becomes in training is what the unconditional branch gets when sampling.
    assert none is not None
    assert none_pooled is not None
    assert not none.any()
    assert not none_pooled.any()


def test_every_word_is_one_token():
    tokenizer = make_tokenizer()
    assert all(len(tokenizer.tokenize(word)) == 1 for word in WORDS)
    longest = [ColouredDigit(c, 3) for c in COLOUR_NAMES[:4]]
    assert max(len(tokenizer(caption(longest, p)).input_ids) for p in PHRASINGS) <= tokenizer.model_max_length
    ids = tokenizer("a red three", padding="max_length").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[4:] == [tokenizer.eos_token_id] * (tokenizer.model_max_length - 4)
    assert tokenizer.tokenize("mauve")[-1] == "e</w>"  # unknown words fall into letters instead of failing


def test_loss_weights_keep_pure_noise_and_limit_clean_steps():
    alphas = torch.tensor([0.0, 0.5, 0.8, 0.99])  # snr + 1 = 1, 2, 5, 100
    assert loss_weights(alphas).tolist() == pytest.approx([1, 1, 1, 0.05], rel=1e-4)


def test_learning_rate_warms_up_stays_and_ends_at_zero():
    assert learning_rate(0.01, 1.0, warmup=0.02) == pytest.approx(0.5)
    assert learning_rate(0.3, 1.0, flat=0.5) == 1
    assert learning_rate(0.75, 1.0, flat=0.5) == pytest.approx(0.5)
    assert learning_rate(1.0, 1.0, flat=0.5) == 0


def test_budget_is_minutes_or_steps():
    assert Budget(steps=10).share(5) == 0.5
    assert Budget(minutes=1, spent=30).share(0) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match="either minutes or steps"):
        Budget()


def test_average_follows_and_swaps():
    weight = torch.zeros(3)
    average = Average([weight], decay=0.5)
    weight += 1
    average.update(10**6)
    average.swap()
    assert weight.tolist() == [0.5] * 3
    average.swap()
    assert weight.tolist() == [1.0] * 3


def test_commands_say_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    run = CliRunner().invoke(app, ["data", "--mnist", str(tmp_path)])
    assert run.exit_code == 2
    assert "put MNIST's four" in re.sub(r"\s+", " ", run.output)
    assert CliRunner().invoke(app, ["unet", "--folder", str(tmp_path), "--init", "nowhere"]).exit_code == 2
    run = CliRunner().invoke(app, ["unet", "--folder", str(tmp_path)])
    assert (run.exit_code, "run `train autoencoder` first" in run.output) == (2, True)
    with pytest.raises(FileNotFoundError, match="train latents"):
        load_latents(tmp_path)
