"""The command line's main roads: generate, compare, make again, stop in the middle; and its other commands."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

import symskew
from folders import ensemble_folder, plain_folder
from symskew.cli import main
from symskew.images import read_record
from symskew.models import hash_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ensemble_folder(tmp_path_factory.mktemp("models") / "tiny")


def run(capsys, *arguments):
    """The exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return left.value.code, said.out, said.err


def rows(out):
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]


def pngs(out):
    return sorted(path.name for path in out.glob("*.png"))


def test_generate(capsys, folder, tmp_path):
    out = tmp_path / "out"
    code, table, errors = run(
        capsys, "generate", "a red three", "a blue one", "--model", folder, "--seeds", "0-1,7", "--out", out
    )
    assert (code, errors) == (0, "")
    assert len(rows(out)) == 6
    assert pngs(out) == sorted(row["file_name"] for row in rows(out))
    assert {(row["prompt"], row["seed"]) for row in rows(out)} == {
        (prompt, seed) for prompt in ("a red three", "a blue one") for seed in (0, 1, 7)
    }
    assert {"read", "right", "wrong", "seconds"} <= rows(out)[0].keys()
    assert re.search(r"entirely right: \d/6\n6 images in .* s each\), in ", table)
    assert "\x1b" not in table
    assert max(map(len, table.splitlines()[:-1])) <= 80
    record = read_record(out / rows(out)[0]["file_name"])
    assert record["steps"] == 2
    assert "circulation" not in record


def test_compare_draws_one_picture(capsys, folder, tmp_path):
    (tmp_path / "prompts.txt").write_text("# two\na red three\n\n  a blue one and a green two  \n")
    code, printed, errors = run(
        capsys, "generate", "--prompts", tmp_path / "prompts.txt", "--model", folder, "--out", tmp_path, "--json",
        "--compare", "--alpha", 3, "--beta", 2, "--adaptive", "sample", "--layers", "up", "--stop", 0.5,
        "--seeds", "3,4",
    )  # fmt: skip
    assert (code, errors) == (0, "")
    result = json.loads(printed)
    assert result["compare"] == str(tmp_path / "compare.png")
    assert len(result["images"]) == 8
    assert sum("circulation" in image for image in result["images"]) == 4
    (setting,) = {json.dumps(image["circulation"]) for image in result["images"] if "circulation" in image}
    assert json.loads(setting) == {"alpha": 3.0, "beta": 2.0, "adaptive": "sample"}
    assert re.fullmatch(
        r"entirely right: vanilla \d/4, controlled \d/4 \(\d mended, \d spoilt\); "
        r"4 pairs are far too few to mean anything",
        result["summary"],
    )
    with Image.open(tmp_path / "compare.png") as picture:
        assert picture.width > 4 * 192
        assert picture.height > 2 * 192


def test_compare_prints_both_readings(capsys, folder, tmp_path):
    code, table, _ = run(
        capsys, "generate", "a red three", "--model", folder, "--out", tmp_path, "--compare", "--alpha", 3
    )
    assert code == 0
    assert "vanilla beside α 3 β 1, same seeds" in " ".join(table.split())  # wherever the terminal breaks its lines
    assert "compare.png" in table.splitlines()[-1]


def test_a_model_of_another_family_has_no_judge(capsys, tmp_path):
    model = plain_folder(tmp_path / "model")
    code, table, errors = run(
        capsys, "generate", "any words", "--model", model, "--out", tmp_path, "--compare", "--alpha", 2, "--steps", 2
    )
    assert (code, errors) == (0, "")
    assert "judge" not in table
    assert "right" not in table
    assert (tmp_path / "compare.png").is_file()


def test_a_model_may_bring_its_own_control(capsys, tmp_path):
    model = ensemble_folder(tmp_path / "model", control={"alpha": 2.0, "layers": "mid", "stop": 0.5})
    code, printed, _ = run(
        capsys, "generate", "a red one", "--model", model, "--out", tmp_path, "--compare", "--json", "--steps", 3
    )
    assert code == 0
    vanilla, controlled = json.loads(printed)["images"]
    assert (controlled["circulation"], controlled["layers"], controlled["stop"]) == ({"alpha": 2.0}, "mid", 0.5)
    assert "circulation" not in vanilla


def test_from_makes_the_same_file_again(capsys, folder, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run(
        capsys, "generate", "a red three", "a blue one", "--model", folder, "--seeds", "0-2", "--batch-size", "4",
        "--out", first, "--alpha", "3", "--layers", "up", "--layers", "mid", "--negative", "a green two", "--quiet",
    )  # fmt: skip
    for name in pngs(first):
        code, _, errors = run(capsys, "generate", "--from", first / name, "--out", second, "--quiet")
        assert (code, errors) == (0, "")
        assert (second / name).read_bytes() == (first / name).read_bytes()
    assert pngs(second) == pngs(first)


def test_from_says_what_is_not_as_it_was(capsys, folder, tmp_path, monkeypatch):
    run(capsys, "generate", "a red three", "--model", folder, "--out", tmp_path / "a", "-q")
    monkeypatch.setattr("symskew.cli.again.versions", lambda: {"torch": "9.9"})
    image = next((tmp_path / "a").glob("*.png"))
    other = ensemble_folder(tmp_path / "other", training={})
    (other / "unet" / "config.json").write_text((other / "unet" / "config.json").read_text() + "\n")
    code, _, errors = run(capsys, "generate", "--from", image, "--model", other, "--out", tmp_path / "b", "-q")
    assert code == 0
    assert re.search(r"warning: the model was sha256:\w+ when a-red-.*\.png was made and is sha256:\w+: the ", errors)
    assert re.search(r"warning: torch was .* and is 9\.9: the image may differ", errors)
    assert len(errors.splitlines()) == 2


def test_words_the_model_does_not_know_are_warned_of(capsys, folder, tmp_path):
    code, _, errors = run(
        capsys, "generate", "a red dog, a cat and a blue one", "seven blue", "--model", folder, "--out", tmp_path, "-q"
    )
    assert code == 0
    first, second = errors.splitlines()
    assert "warning: 'a red dog, a cat and a blue one': this model does not know 'dog', 'cat': it draws" in first
    assert "'seven blue': cannot read 'seven'" in second
    assert {row["right"] for row in rows(tmp_path)} == {None}


@pytest.mark.usefixtures("heard")
def test_interrupt_keeps_what_is_finished(folder, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "symskew.cli", "generate", "a red three", "--model", folder, "--seeds", "0-5000",
               "--batch-size", "2", "--out", out]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            deadline = time.monotonic() + 300
            while len(list(out.glob("*.png"))) < 3:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            printed, errors = process.communicate(timeout=300)
        finally:
            process.kill()
    kept = pngs(out)
    assert process.returncode == 130
    assert printed == ""
    said = errors.splitlines()[-1]  # above it, other libraries may have said at import what they lack
    assert said == f"stopped: {len(kept)} of 5001 images were finished and kept in {out}"
    assert kept == sorted(row["file_name"] for row in rows(out))
    assert {path.suffix for path in out.iterdir()} == {".png", ".jsonl"}
    for name in kept:
        read_record(out / name)


def test_models(capsys, monkeypatch, tmp_path):
    model = ensemble_folder(tmp_path / "model", accuracy={"objects": 0.914})
    monkeypatch.setattr("symskew.ensemble.path", lambda name: model)
    code, text, _ = run(capsys, "models")
    assert code == 0
    assert re.search(
        r"ensemble-sdxl \d\.\d MB; licence Apache-2\.0; 2 steps; guidance 3; objects right 91%", " ".join(text.split())
    )
    assert "stabilityai/stable-diffusion-xl-base-1.0" in text
    listed = json.loads(run(capsys, "models", "--json")[1])
    assert [model["name"] for model in listed["shipped"]] == ["ensemble-sdxl", "ensemble-sd3"]
    assert {family["denoiser"] for family in listed["families"]} >= {"UNet2DConditionModel", "FluxTransformer2DModel"}
    (model / "unet" / "config.json").write_text("{")
    assert "unusable: ensemble-sdxl is damaged, these files are not whole" in " ".join(run(capsys, "models")[1].split())


def test_doctor(capsys, monkeypatch, tmp_path):
    model = ensemble_folder(tmp_path / "model")
    monkeypatch.setattr("symskew.ensemble.path", lambda name: model)
    code, text, _ = run(capsys, "doctor")
    assert code == 0
    assert "whole, sha256:" in text
    assert "all is well" in text
    (model / "symskew.json").write_text(
        json.dumps({"sha256": {"unet/config.json": hash_file(model / "unet/config.json")}})
    )
    assert "intact, sha256:" in run(capsys, "doctor")[1]
    found = json.loads(run(capsys, "doctor", "--json")[1])
    assert found["versions"]["symskew"] == symskew.__version__
    assert found["devices"][0]["device"] == "cpu"
    assert found["healthy"] is True
    (model / "unet" / "config.json").write_text("{}")
    code, text, _ = run(capsys, "doctor")
    assert code == 1
    assert "ensemble-sdxl is damaged" in text
    assert "something is wrong" in text


def test_doctor_names_the_install_line(capsys, monkeypatch):
    monkeypatch.setattr("symskew.cli.doctor._version", lambda name: None if name == "accelerate" else "1")
    monkeypatch.setattr(
        "symskew.cli.doctor._models",
        lambda: [dict.fromkeys(("revision", "verified")) | {"model": "x", "problem": "gone"}],
    )
    code, text, _ = run(capsys, "doctor")
    assert code == 1
    assert 'missing: pip install "symskew[offload]"' in text
    assert "gone" in text


def test_version_and_help(capsys):
    assert run(capsys, "--version")[:2] == (0, f"symskew {symskew.__version__}\n")
    for arguments in ((), ("-h",), ("generate", "-h")):
        code, text, _ = run(capsys, *arguments)
        assert code == 0
        assert "Usage: symskew" in text
        assert "\x1b" not in text
    assert "symskew generate 'a red three' --seeds 0-7" in text


def test_help_loads_nothing_heavy():
    code = (
        "import sys, symskew; before = set(sys.modules); import symskew.cli\n"
        "try: symskew.cli.main(['generate', '-h'])\n"
        "except SystemExit: pass\n"
        "print([n for n in ('diffusers', 'transformers', 'PIL', 'numpy') if n in sys.modules and n not in before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
