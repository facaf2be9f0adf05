"""`symskew metrics`: the list, and verification, with tiny weights."""

import json

import pytest
from huggingface_hub import constants

from symskew.cli.app import run
from symskew.metrics import every_source


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.delenv("SYMSKEW_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def everywhere(nowhere, tiny_scorers, monkeypatch):
    from pathlib import Path

    monkeypatch.setenv("SYMSKEW_WEIGHTS", str(Path(tiny_scorers["hps"]).parent))


def test_the_list_has_every_metric_with_its_weights(nowhere, capsys):
    assert run(["metrics"]) == 0
    text = capsys.readouterr().out
    for line in ("imagereward", "HPS v2.1", "CLIPScore ViT-L/14", "clip-l + aesthetic", "ensemble/all-right", "THUDM"):
        assert line in text
    assert "fp16@" not in text


def test_the_list_as_json(everywhere, capsys):
    assert run(["metrics", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["metric"]: row for row in found["metrics"]}
    assert rows["hps/v2.1/fp16@1"]["short"] == "hps/fp16"
    assert rows["imagereward/v1.0/fp32@1"]["needs"] == ["imagereward", "bert"]
    assert found["weights"]["hps"] == {
        "bytes": 1_972_000_000,
        "licence": "Apache-2.0",
        "here": True,
        "page": "https://huggingface.co/xswu/HPSv2",
        "remedy": found["weights"]["hps"]["remedy"],
    }


def test_without_weights_it_says_how_to_get_each(nowhere, capsys):
    assert run(["metrics", "verify"]) == 2
    text = capsys.readouterr().err
    assert "not here: hps: get it by: hf download xswu/HPSv2 HPS_v2.1_compressed.pt (2.0 GB" in text
    assert [line.split(": ")[1] for line in text.splitlines() if line.startswith("not here: ")] == list(every_source())
    assert "error: verify: of no metric of single images are all published weights on this machine" in text
    assert run(["metrics", "verify", "hps"]) == 2
    assert "hps: the weights are not on this machine; get it by" in capsys.readouterr().err


def test_recording_and_comparing(everywhere, tiny_scorers, tmp_path, capsys):
    there = tmp_path / "scores.json"
    named = [word for name in ("clip-l", "aesthetic") for word in ("--weights", f"{name}={tiny_scorers[name]}")]
    assert run(["metrics", "verify", "clip-l", "aesthetic", "hps", "--record", str(there), *named]) == 0
    text = capsys.readouterr().out
    assert "own caption best: " in text
    assert "Nothing to compare with was given" in text
    assert run(["metrics", "verify", "clip-l", "hps", "--against", str(there)]) == 0
    assert "hps/v2.1/fp32@1: agrees, by at most 0 (0.0% of the spread)" in capsys.readouterr().out
    other = f"hps={tiny_scorers['hps']}/HPS_v2.1_compressed.pt"
    record = json.loads(there.read_text())
    record["scores"]["hps/v2.1/fp32@1"][0][0] += 1
    there.write_text(json.dumps(record))
    assert run(["metrics", "verify", "hps", "--against", str(there), "--weights", other]) == 1
    assert "hps/v2.1/fp32@1: differs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["metrics", "verify", "hsp"], "there is no metric called 'hsp'; did you mean 'hps'"),
        (["metrics", "verify", "hps", "--weights", "hps"], "--weights takes NAME=PLACE, got 'hps'"),
        (["metrics", "verify", "hps", "--weights", "hsp=x"], "--weights: there is no 'hsp'; there are "),
        (["metrics", "verify", "hps", "--images", "."], "published scores are known of imagereward/v1.0/fp32@1 alone"),
        (
            ["metrics", "verify", "imagereward", "--images", "."],
            "1.webp is not there; published scores are of the README",
        ),
        (["metrics", "verify", "hps", "--against", "nothing.json"], "nothing.json"),
        (["metrics", "--json", "verify"], "--json lists metrics; it is nothing to verify"),
    ],
)
def test_what_makes_no_sense_is_refused(everywhere, capsys, words, says):
    assert run(words) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_a_reference_is_made_of_a_folder(everywhere, tmp_path, capsys):
    import scorers

    (tmp_path / "photographs").mkdir()
    for number, image in enumerate(scorers.images()):
        image.save(tmp_path / "photographs" / f"{number}.png")
    made, command = tmp_path / "real.safetensors", ["metrics", "reference", str(tmp_path / "photographs")]
    assert run([*command, "--features", "dinov2-l", "--limit", "5", "--device", "cpu", "--out", str(made)]) == 0
    assert "5 real images, by dinov2-l/fp32@1, images resized to 224×224" in capsys.readouterr().out
    assert made.is_file()
    for wrong, said in (
        (["--features", "dino", "--out", str(made)], "there are inception-tf1, inception-clean, dinov2-l"),
        (["--features", "dinov2-l", "--out", str(tmp_path / "none" / "x")], "--out: there is no folder"),
        (["--features", "inception-tf1", "--out", str(made)], "inception: the weights are not on this machine; get it"),
    ):
        assert run([*command, *wrong]) == 2
        assert said in capsys.readouterr().err
