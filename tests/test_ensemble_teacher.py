"""A teacher's velocities at the points of a rectified flow, and a training that learns them."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from symskew.ensemble import path
from symskew.ensemble.build_sd3 import make_sd3_pipeline
from symskew.ensemble.train.__main__ import app
from symskew.ensemble.train.flow import train_sd3
from symskew.ensemble.train.latents import Latents
from symskew.ensemble.train.teacher import Teacher

FOLDER = path("ensemble-sdxl")


@pytest.fixture(scope="module")
def teacher():
    return Teacher(FOLDER, compiled=False)


@pytest.fixture(scope="module")
def data() -> Latents:
    rng = np.random.default_rng(0)
    labels = np.full((8, 6), -1, np.int8)
    labels[np.arange(8), np.arange(8) % 6] = rng.integers(10, size=8)
    return Latents(rng.standard_normal((8, 4, 16, 16)).astype(np.float16), labels)


def tokens_of(teacher, *texts):
    return teacher.pipeline.tokenizer(list(texts), padding="max_length", return_tensors="pt").input_ids


def test_who_knows_image_and_noise_names_their_difference(teacher, monkeypatch):
    latents, noise = torch.randn(2, 9, 4, 16, 16, generator=torch.Generator().manual_seed(0)).unbind(0)
    sigmas = torch.linspace(0.04, 1, 9)
    share = sigmas.view(-1, 1, 1, 1)
    asked: list[torch.Tensor] = []

    def knows(noisy, steps, text, added_cond_kwargs, return_dict):
        table = teacher.pipeline.scheduler.alphas_cumprod
        floor = steps.long().clamp(max=len(table) - 2)
        alphas = torch.lerp(table[floor], table[floor + 1], steps - floor).view(-1, 1, 1, 1)
        torch.testing.assert_close(noisy, alphas.sqrt() * latents + (1 - alphas).sqrt() * noise, rtol=1e-3, atol=1e-3)
        asked.append(text)
        return (alphas.sqrt() * noise - (1 - alphas).sqrt() * latents,)

    monkeypatch.setattr(teacher, "unet", knows)
    tokens = tokens_of(teacher, "a red three", *[""] * 8)
    velocity = teacher((1 - share) * latents + share * noise, sigmas, tokens)
    torch.testing.assert_close(velocity, noise - latents, rtol=1e-3, atol=2e-3)
    # The teacher's pipeline knows no empty caption: its unconditional branch sees zeros.
    assert asked[0][0].any()
    assert not asked[0][1:].any()


def test_the_caption_of_an_image_says_more_of_it_than_another(teacher):
    right, wrong = "a red three and a blue seven", "a green one and a yellow eight"
    teacher.pipeline.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 10, "guidance_scale": 5.0, "output_type": "latent"}
    made = teacher.pipeline(right, generator=torch.Generator().manual_seed(0), **call)
    latents = made.images.expand(2, -1, -1, -1)
    noise = torch.randn(1, *latents.shape[1:], generator=torch.Generator().manual_seed(1))
    velocity = teacher(0.4 * latents + 0.6 * noise, torch.full((2,), 0.6), tokens_of(teacher, right, wrong))
    errors = (velocity - (noise - latents)).square().mean((1, 2, 3))
    assert errors[0] < 0.8 * errors[1]
    assert errors[0] < 0.5 * (noise - latents).square().mean()


def test_it_says_nothing_wild_next_to_the_image(teacher):
    # Nearer to the image than the teacher's first timestep, where x and the point are all but one.
    points = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    velocity = teacher(points, torch.tensor([5e-4, 1e-2]), tokens_of(teacher, "a red three", ""))
    assert velocity.square().mean() < 9


def test_a_training_with_a_teacher_resumes_exactly(data, tmp_path):
    def train(name, **settings) -> Any:
        pipeline = train_sd3(make_sd3_pipeline("tiny"), data, tmp_path / name, steps=4, batch=2, compiled=False,
                             report=1, grid=0, **settings)  # fmt: skip
        lines = (tmp_path / name / "sd3.jsonl").read_text().splitlines()
        return pipeline.transformer.state_dict(), [json.loads(line)["loss"] for line in lines]

    _, of_data = train("data")
    whole, losses = train("whole", teacher=FOLDER)
    train("halves", teacher=FOLDER, stop=2)
    resumed, halves = train("halves", teacher=FOLDER)
    assert losses == halves
    assert losses[0] != of_data[0]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_command_has_a_teacher(data, tmp_path):
    np.save(tmp_path / "latents.npy", data.latents)
    np.save(tmp_path / "labels.npy", data.labels)
    losses = []
    for teacher in "--no-teacher", "--teacher":
        arguments = ["sd3", "--init", "shipped", "--run", f"run{teacher}", "--folder", str(tmp_path), "--steps", "1"]
        run = CliRunner().invoke(app, [*arguments, teacher, "--batch", "2", "--no-compile"], catch_exceptions=False)
        assert run.exit_code == 0
        losses.append(torch.load(tmp_path / f"run{teacher}.pt")["average"][0])
    assert not torch.equal(*losses)
