"""Bad input ends before anything is generated: exit code 2, one sentence on stderr, no image, no traceback."""

import shutil
import subprocess
import sys

import pytest

from folders import ensemble_folder
from symskew.cli import main
from symskew.cli.inputs import gather_prompts, parse_seeds, parse_size
from symskew.cli.judging import sign_test, summarize


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ensemble_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def refused(capsys, tmp_path, *arguments):
    """The sentence a command is refused with; asserts that it is one, and that nothing was written."""
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as left:
        main(["generate", *map(str, arguments), "--out", str(out)])
    said = capsys.readouterr()
    assert left.value.code == 2
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    assert not out.exists()
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to generate: give a prompt, --prompts FILE, or --from IMAGE.png"),
        ((" ",), "a prompt is empty"),
        (("x", "--model", "ensemble-sdx"), "there is no model 'ensemble-sdx'; did you mean ensemble-sdxl?"),
        (
            ("x", "--model", "./nowhere"),
            "there is no model './nowhere'; give a shipped model's name, a folder or a hub id",
        ),
        (
            ("x", "--model", "nobody/nothing"),
            "nobody/nothing is neither a folder nor on this disk, and could not be had",
        ),
        (("x", "--seeds", "7-0"), "--seeds: a range runs from the smaller to the larger"),
        (("x", "--seeds", "1;2"), "--seeds: expected numbers and ranges such as 0-7 or 1,5,9, got '1;2'"),
        (("x", "--seed", "-1"), "--seeds: expected numbers and ranges"),
        (("x", "--argument", "eta"), "--argument takes NAME=VALUE, got 'eta'"),
        (("x", "--size", "big"), "--size takes a number or WIDTHxHEIGHT, got 'big'"),
        (("x", "--steps", "many"), "Invalid value for '--steps'"),
        (("x", "--nonsense", "1"), "No such option: --nonsense"),
        (("x", "--alpha", "much"), "--alpha: expected a number, a ramp such as 2..1, 2..1:cosine or 2..1:depth, or"),
        (("x", "--alpha", "2", "--beta", "up=3..3"), "--beta: Ramp: start and stop are both 3; give the number itself"),
        (("x", "--prompts", "missing.txt"), "--prompts: missing.txt cannot be read: No such file or directory"),
        (("--from", "missing.png"), "missing.png cannot be read as an image"),
        (
            ("--from", "x.png", "--alpha", "2", "--seeds", "3"),
            "--from makes an image again as it was: leave out --alpha, ",
        ),
        (("x", "--from", "x.png"), "--from makes an image again as it was: leave out PROMPT"),
    ],
)
def test_refused_without_a_model(capsys, tmp_path, arguments, message):
    assert refused(capsys, tmp_path, *arguments).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--alpha", "nan"), "Circulation: alpha must be finite numbers, got nan"),
        (("--alpha", "inf"), "Circulation: alpha must be finite numbers, got inf"),
        (("--alpha", "2", "--beta", "-1"), "Circulation: beta must be at least 0, got -1.0"),
        (("--alpha", "2", "--adaptive", "never"), "Circulation: adaptive must be 'call', 'sample', 'head' or None"),
        (("--alpha", "2", "--norm", "most"), "Circulation: norm must be 'perturbed', 'baseline' or None, got 'most'"),
        (("--alpha", "2", "--space", "outer"), "Circulation: space must be 'value', 'input', 'sketch', got 'outer'"),
        (("--alpha", "2..1", "--beta", "1..-1"), "Circulation: beta must be at least 0, got Ramp(1.0, -1.0)"),
        (("--alpha", "up=2", "--beta", "top=3"), "Circulation: beta takes a value for each of the stages down, mid"),
        (("--alpha", "2", "--branch", "both"), "Circulation: branch must be 'conditional', 'unconditional' or None"),
        (("--alpha", "2", "--tokens", "image"), 'Circulation(tokens="image") would change nothing: none of the 7'),
        (("--beta", "5"), "--beta without --alpha changes nothing: give --alpha, where 1 is vanilla"),
        (("--layers", "up", "--stop", "0.5"), "--layers, --stop without --alpha changes nothing"),
        (("--compare",), "--compare needs a control to compare with, and this model has none of its own: give --alpha"),
        (("--alpha", "2", "--layers", "nowhere"), "layers='nowhere' picks none of the 7 self-attention layers"),
        (("--alpha", "2", "--layers", "re:("), "layers='re:(' is no regular expression"),
        (("--alpha", "2", "--start", "0.7", "--stop", "0.2"), "start must come before stop"),
        (("--alpha", "2", "--stop", "1.5"), "stop is a fraction of the schedule between 0 and 1, got 1.5"),
        (("--alpha", "2", "--start", "0.6", "--stop", "0.7"), "no step lies between start=0.6 and stop=0.7"),
        (("--steps", "0"), "steps must be a whole number of at least 1, got 0"),
        (("--guidance", "nan"), "guidance must be a finite number, got nan"),
        (("--size", "63"), "width and height must be multiples of 4 for this model, got 63x63"),
        (("--batch-size", "0"), "--batch-size must be at least 1, got 0"),
        (("--dtype", "float8"), "dtype must be auto, float32, float16, bfloat16, got 'float8'"),
        (("--device", "toaster"), "the device 'toaster' cannot be used here"),
    ],
)
def test_refused_with_a_model(capsys, tmp_path, folder, arguments, message):
    assert refused(capsys, tmp_path, "a red one", "--model", folder, *arguments).startswith(message)


def test_an_empty_file_of_prompts(capsys, tmp_path):
    (tmp_path / "none.txt").write_text("# nothing\n\n")
    said = refused(capsys, tmp_path, "--prompts", tmp_path / "none.txt")
    assert said == f"--prompts: there is no prompt in {tmp_path}/none.txt"


def test_an_unwritable_folder(capsys, tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as left:
        main(["generate", "a red one", "--model", str(folder), "--out", str(tmp_path / "file" / "out")])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said == f"error: cannot write to the folder {tmp_path}/file/out: Not a directory\n"


def test_damaged_weights(capsys, tmp_path, folder):
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    said = refused(capsys, tmp_path, "a red one", "--model", copy)
    assert said.startswith(f"{copy} is damaged, these files are not whole: unet/diffusion_pytorch_model.safetensors")


def test_files_that_are_whole_but_wrong(capsys, tmp_path, folder):
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.copy(copy / "vae" / "diffusion_pytorch_model.safetensors", copy / "unet")
    assert f"{copy} cannot be loaded, its files may be damaged: " in refused(capsys, tmp_path, "x", "--model", copy)
    empty = tmp_path / "empty"
    empty.mkdir()
    said = refused(capsys, tmp_path, "x", "--model", empty)
    assert said == f"the folder {empty} is no diffusers pipeline: it has no model_index.json"


def test_from_would_write_over_its_source(capsys, tmp_path, folder):
    with pytest.raises(SystemExit):
        main(["generate", "a red one", "--model", str(folder), "--out", str(tmp_path), "-q"])
    (image,) = tmp_path.glob("*.png")
    before = image.read_bytes()
    with pytest.raises(SystemExit) as left:
        main(["generate", "--from", str(image), "--out", str(tmp_path)])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said == f"error: --from would write over {image} itself; give another --out\n"
    assert image.read_bytes() == before


def test_what_goes_wrong_on_the_way_is_one_message_and_code_1(capsys, tmp_path, folder, monkeypatch):
    def generate(*args, **kwargs):
        raise FloatingPointError("symskew: values that are not finite")

    monkeypatch.setattr("symskew.cli.job.generate", generate)
    with pytest.raises(SystemExit) as left:
        main(["generate", "a red one", "--model", str(folder), "--out", str(tmp_path)])
    assert left.value.code == 1
    assert capsys.readouterr().err == "error: values that are not finite\n"


def test_a_pipe_without_unicode_gets_question_marks():
    command, env = [sys.executable, "-m", "symskew.cli", "generate", "-h"], {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=env, check=True)
    assert b"Adapt ? and ?" in done.stdout


def test_inputs(tmp_path):
    assert parse_seeds(" 3 , 1-2,2") == [3, 1, 2]
    assert parse_size("512") == (512, 512)
    assert parse_size(None) is None
    (tmp_path / "p.txt").write_text("b\n#c\na\n")
    assert gather_prompts(["a", " a "], tmp_path / "p.txt") == ["a", "b"]


def test_summaries_say_what_they_are_worth():
    assert summarize([None, None], [True, None]) == ""
    assert summarize([], []) == ""
    many = [True] * 100 + [False] * 100
    assert "200, controlled 100/200 (0 mended, 0 spoilt); chance alone does as much (sign test p = 1)" in summarize(
        many, many
    )
    assert "(100 mended, 0 spoilt); more than chance would do" in summarize(many, [True] * 200)
    assert sign_test(0, 0) == 1
    assert sign_test(1, 9) == sign_test(9, 1) == pytest.approx(2 * 11 / 1024)
