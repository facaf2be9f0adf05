"""The miniature SD3: an ordinary pipeline, controlled and diagnosed; its training computes what the pipeline does."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from typer.testing import CliRunner

import symskew
from symskew.ensemble.build import make_autoencoder
from symskew.ensemble.build_sd3 import fold_normalisation, make_sd3_pipeline
from symskew.ensemble.evaluate import app as evaluation
from symskew.ensemble.generate import iterate_images
from symskew.ensemble.train.__main__ import app
from symskew.ensemble.train.export import read_checkpoint, ship
from symskew.ensemble.train.flow import (
    PlainJointAttention,
    draw_flow_batch,
    encode_sd3_text,
    noise_levels,
    train_sd3,
)
from symskew.ensemble.train.latents import Latents
from symskew.generation import Request, generate
from symskew.models import damaged_files, find_model, load_model

DEFAULTS = {"steps": 3, "guidance": 2.0, "arguments": {"max_sequence_length": 24}}
PROMPT = "a picture of a red three and a blue seven"


def make() -> Any:
    """A tiny pipeline whose gates and output are not zero, as they are in a new one, which ignores its text."""
    pipeline: Any = make_sd3_pipeline("tiny")
    with torch.no_grad():
        for name, weight in pipeline.transformer.named_parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.2 if name.endswith("weight") else 0.02)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def pipeline():
    return make()


@pytest.fixture(scope="module")
def shipped(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    ship(pipeline, folder, {"defaults": DEFAULTS})
    return folder


def image(pipeline, seed=0, **settings):
    call = {"num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "np", **settings}
    return pipeline(PROMPT, generator=torch.Generator().manual_seed(seed), **call).images[0]


@pytest.fixture
def data() -> Latents:
    rng = np.random.default_rng(0)
    labels = np.full((40, 6), -1, np.int8)
    labels[np.arange(40), np.arange(40) % 6] = rng.integers(10, size=40)
    return Latents(rng.standard_normal((40, 4, 16, 16)).astype(np.float16), labels)


def test_a_shipped_folder_loads_as_a_plain_sd3_pipeline_and_repeats(pipeline, shipped):
    loaded = DiffusionPipeline.from_pretrained(shipped)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded).__name__ == "StableDiffusion3Pipeline"
    assert type(loaded.transformer).__name__ == "SD3Transformer2DModel"
    assert type(loaded.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    assert json.loads((shipped / "model_index.json").read_text())["tokenizer_3"] == ["transformers", "T5TokenizerFast"]
    first = image(loaded)
    assert first.shape == (64, 64, 3)
    assert np.array_equal(first, image(loaded))
    assert not np.array_equal(first, image(loaded, seed=1))
    assert np.abs(first - image(pipeline)).max() < 0.02  # half precision in the files, no more


def test_a_shipped_folder_says_what_its_weights_are(shipped):
    files = find_model(str(shipped))
    assert files.info["defaults"] == DEFAULTS
    assert {Path(name).parent.name for name in files.info["sha256"]} == {
        *("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
    }
    assert damaged_files(shipped, {"sha256": {"vae/diffusion_pytorch_model.safetensors": "0"}}) == [
        "vae/diffusion_pytorch_model.safetensors"
    ]


def evaluated(shipped, tmp_path, section, *more):
    """The page after an evaluation of four images that writes its tables there."""
    page = tmp_path / "page.md"
    page.write_text(f"Before\n<!-- {section}: begin -->\n<!-- {section}: end -->\nAfter")
    arguments = ["--model", str(shipped), "--count", "4", "--held-out", "0", "--out", str(tmp_path), *more]
    run = CliRunner().invoke(evaluation, [*arguments, "--write", str(page)], catch_exceptions=False)
    assert run.exit_code == 0
    return page.read_text()


def test_an_evaluation_writes_its_tables_into_a_page(shipped, tmp_path):
    text = evaluated(shipped, tmp_path, shipped.name)
    # An untrained model's images hold nothing to read: whatever is asked for is wrong.
    assert re.search(r"\| seen \| all \| 2 \| 4 \| 0\.0% \(0\.0% to 49\.0%\) \| 0\.0% \(0\.0% to 27\.8%\) \|", text)
    assert text.startswith("Before\n")
    assert text.endswith("\nAfter")
    shares = [float(cell) for cell in re.findall(r"(\d+)%", text.split("\n| seen | all |")[2].split("\n")[0])]
    assert sum(shares) == pytest.approx(100, abs=3)


def test_a_choice_of_guidance_has_a_section_of_its_own(shipped, tmp_path):
    text = evaluated(shipped, tmp_path, f"{shipped.name}-guidance", "--guidance", "1", "--guidance", "2.5")
    assert re.findall(r"\| seen \| (\w+) \| ([\d.]+) \| 4 \|", text) == [("all", "1"), ("all", "2.5")]


def test_its_own_arguments_are_used_unless_others_are_given(shipped):
    model = load_model(str(shipped))
    for arguments, zeros in (({}, 24), ({"max_sequence_length": 30}, 30)):
        made = next(iter(generate(model, [Request(PROMPT, arguments=arguments)])))
        expected = (image(model.pipe, max_sequence_length=zeros) * 255).round()
        assert np.array_equal(np.asarray(made.image), expected)
        assert made.settings["arguments"] == {"max_sequence_length": zeros}


def test_t5_is_silent_and_knows_the_words(pipeline):
    without: Any = make_sd3_pipeline("tiny")
    without.register_modules(text_encoder_3=None, tokenizer_3=None)
    text, *_ = pipeline.encode_prompt(PROMPT, None, None, max_sequence_length=30)
    bare, *_ = without.encode_prompt(PROMPT, None, None, max_sequence_length=30)
    assert torch.equal(text, bare)
    words = PROMPT.split()
    assert len(pipeline.tokenizer_3(PROMPT).input_ids) == len(words) + 1
    assert (
        pipeline.tokenizer_3.unk_token_id
        not in pipeline.tokenizer_3("a blue one, a red two and a green ten").input_ids[:-2]
    )


def test_a_sample_does_not_depend_on_its_batch(pipeline):
    prompts = ["a red three", "a blue one", PROMPT]
    together, apart = (
        np.concatenate(list(iterate_images(pipeline, prompts, range(3), steps=2, guidance=2.0, batch=batch)))
        for batch in (3, 2)
    )
    assert np.abs(together.astype(int) - apart.astype(int)).max() <= 1


def test_control_moves_the_image_and_is_gone_afterwards(pipeline):
    plain = image(pipeline)
    with symskew.control(pipeline, symskew.Circulation(4, 2)):
        assert np.abs(image(pipeline) - plain).max() > 1e-3
    assert np.array_equal(image(pipeline), plain)


def test_diagnosis_maps_the_image_tokens_and_leaves_the_text_out(pipeline):
    with symskew.diagnose(pipeline, maps=True) as record:
        image(pipeline)
    assert [place.name for place in record.layers] == [f"transformer_blocks.{n}.attn" for n in range(2)]
    assert set(record.mean("energy", by=["branch"])) == {"unconditional", "conditional"}
    assert record.map("conflict").shape == (8, 8)


@pytest.mark.parametrize("count", [1, 7, 256])
def test_one_biased_zero_is_as_good_as_many(pipeline, count):
    """What training computes is what the pipeline will, at any `max_sequence_length`."""
    tokens = pipeline.tokenizer([PROMPT, ""], padding="max_length", return_tensors="pt").input_ids
    latents, when = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([700.0, 20.0])
    usual = pipeline.transformer.attn_processors
    with torch.no_grad():
        text, _, pooled, _ = pipeline.encode_prompt(
            [PROMPT, ""], None, None, do_classifier_free_guidance=False, max_sequence_length=count
        )
        theirs = pipeline.transformer(latents, text, pooled, when).sample
        ours_text, ours_pooled = encode_sd3_text(pipeline, tokens)
        assert torch.allclose(encode_sd3_text(pipeline, tokens, zeros=count)[0], text, atol=1e-6)
        assert torch.allclose(ours_pooled, pooled, atol=1e-6)
        bias = torch.zeros(2, 1, 1, 64 + 24 + 1)
        bias[..., -1] = np.log(count)
        pipeline.transformer.set_attn_processor(PlainJointAttention())
        ours = pipeline.transformer(
            latents, ours_text, ours_pooled, when, joint_attention_kwargs={"attention_mask": bias}
        ).sample
    pipeline.transformer.set_attn_processor(usual)
    assert theirs.std() > 0.1
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_autoencoder_takes_over_the_normalisation():
    torch.manual_seed(0)
    original: Any = make_autoencoder().eval()
    mean, std = torch.tensor([0.5, -0.1, 0.6, 0.7]), torch.tensor([0.6, 1.0, 0.8, 1.6])
    original.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist(), scaling_factor=1.0)
    folded: Any = fold_normalisation(original)
    pixels, latents = torch.rand(2, 3, 64, 64), torch.randn(2, 4, 16, 16)
    shape = (1, 4, 1, 1)
    with torch.no_grad():
        before, after = (model.encode(pixels).latent_dist for model in (original, folded))
        assert torch.allclose(after.mean, (before.mean - mean.view(shape)) / std.view(shape), atol=1e-5)
        assert torch.allclose(after.std, before.std / std.view(shape), rtol=1e-4)
        decoded = original.decode(latents * std.view(shape) + mean.view(shape)).sample
        assert torch.allclose(folded.decode(latents).sample, decoded, atol=1e-5)
    assert folded.config["latents_mean"] is None
    assert original.config["latents_mean"] == mean.tolist()
    again: Any = fold_normalisation(folded)
    assert torch.equal(again.post_quant_conv.weight, folded.post_quant_conv.weight)


def test_a_new_transformer_predicts_nothing_yet():
    fresh: Any = make_sd3_pipeline("tiny")
    text, pooled = torch.randn(1, 25, 32), torch.randn(1, 32)
    with torch.no_grad():
        assert not fresh.transformer(torch.randn(1, 4, 16, 16), text, pooled, torch.tensor([5.0])).sample.any()


def train(data, folder, **settings):
    settings = {"steps": 6, "batch": 4, "compiled": False, "report": 1, "grid": 0, **settings}
    pipeline = train_sd3(make_sd3_pipeline("tiny"), data, folder, **settings)
    losses = {line["step"]: line["loss"] for line in map(json.loads, (folder / "sd3.jsonl").read_text().splitlines())}
    return pipeline, losses


def test_a_training_left_off_and_resumed_is_the_same_training_and_can_be_shipped(data, tmp_path):
    whole, losses = train(data, tmp_path / "whole")
    train(data, tmp_path / "halves", stop=3)
    resumed, halves = train(data, tmp_path / "halves")
    assert losses == halves
    assert len(losses) == 6
    weights, again = whole.transformer.state_dict(), resumed.transformer.state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    read: Any = make_sd3_pipeline("tiny", seed=1)
    assert read_checkpoint(read, tmp_path / "whole", "sd3")["step"] == 6
    assert all(torch.equal(weights[name], value) for name, value in read.transformer.state_dict().items())
    with pytest.raises(FileNotFoundError, match=r"holds no other\.pt; train it first"):
        read_checkpoint(read, tmp_path, "other")


def test_another_sitting_begins_with_the_shipped_weights(data, shipped, tmp_path, monkeypatch):
    monkeypatch.setattr("symskew.ensemble.path", lambda name: shipped)
    np.save(tmp_path / "latents.npy", data.latents)
    np.save(tmp_path / "labels.npy", data.labels)
    arguments = ["sd3", "--init", "shipped", "--run", "second", "--folder", str(tmp_path), "--steps", "1"]
    run = CliRunner().invoke(
        app, [*arguments, "--batch", "2", "--rate", "1e-6", "--no-compile"], catch_exceptions=False
    )
    assert run.exit_code == 0
    began, trained = DiffusionPipeline.from_pretrained(shipped), make()
    read_checkpoint(trained, tmp_path, "second")
    for part in ("transformer", "text_encoder", "text_encoder_2"):
        for one, other in zip(getattr(began, part).parameters(), getattr(trained, part).parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_training_lowers_the_loss(data, tmp_path):
    # One image over and over: whatever the data, a working trainer must fit it.
    few = Latents(np.tile(data.latents[:1], (4, 1, 1, 1)), np.tile(data.labels[:1], (4, 1)))
    _, losses = train(few, tmp_path, steps=60, batch=8, peak=1e-2)
    assert np.mean([losses[s] for s in range(55, 61)]) < 0.8 * np.mean([losses[s] for s in range(1, 6)])


def test_batches_depend_on_seed_and_step_alone(data):
    def draw(seed, step, size=8):
        seen.clear()
        return draw_flow_batch(
            data, lambda texts: seen.extend(texts) or torch.zeros(1), size=size, seed=seed, step=step
        )

    seen: list[str] = []
    one, two, other = draw(1, 5), draw(1, 5), draw(1, 6)
    assert torch.equal(one.noise, two.noise)
    assert not torch.equal(one.noise, other.noise)
    many = draw(2, 0, size=2000)
    assert seen.count("") / 2000 == pytest.approx(0.1, abs=0.03)
    assert (many.zeros == 256).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert many.zeros.min() >= 1


def test_noise_levels_are_mostly_logit_normal():
    places = (np.arange(10_000) + 0.5) / 10_000
    sigmas = noise_levels(places)
    assert np.all(np.diff(sigmas) > 0)
    assert sigmas[[0, -1]] == pytest.approx([0, 1], abs=2e-3)
    # Φ(logit 0.8 − 0.6) = Φ(0.786) = 0.7841 of the normal part, 0.8 of the even one; Φ(logit 0.3 − 0.6) = 0.0739
    assert (sigmas < 0.8).mean() == pytest.approx(0.8 * 0.7841 + 0.2 * 0.8, abs=2e-3)
    assert (sigmas < 0.3).mean() == pytest.approx(0.8 * 0.0739 + 0.2 * 0.3, abs=2e-3)


def test_commands_say_what_is_missing(tmp_path):
    run = CliRunner().invoke(app, ["export", "--model", "ensemble-sd9", "--folder", str(tmp_path)])
    assert run.exit_code == 2
    run = CliRunner().invoke(app, ["sd3", "--folder", str(tmp_path)])
    assert (run.exit_code, "run `train autoencoder` first" in run.output) == (2, True)
