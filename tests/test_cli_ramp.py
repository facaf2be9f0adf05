"""Settings that change along the way on the command line, in an image's own text, and made again from it."""

import json

import pytest

from folders import ensemble_folder
from symskew import Circulation, Ramp
from symskew.images import read_record
from test_cli import run

TYPED = {
    "steps": (["--alpha", "3..1:cosine"], {"alpha": Ramp(3, 1, "cosine")}),
    "depth": (["--alpha", "2", "--beta", "1..4:depth"], {"alpha": 2, "beta": Ramp(1, 4, over="depth")}),
    "stages": (
        ["--alpha", "2", "--beta", "down=1,mid=3,up=5..1", "--branch", "conditional", "--adaptive", "sample"],
        {"alpha": 2, "beta": {"down": 1, "mid": 3, "up": Ramp(5, 1)}, "branch": "conditional", "adaptive": "sample"},
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ensemble_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize(("typed", "settings"), TYPED.values(), ids=TYPED)
def test_an_image_says_what_made_it_and_is_made_again_byte_for_byte(capsys, folder, tmp_path, typed, settings):
    first, second = tmp_path / "first", tmp_path / "second"
    how = ["--model", folder, "--steps", 3, "--seeds", "0-1", "-q"]
    for where, control in ((tmp_path / "vanilla", []), (first, typed)):
        assert run(capsys, "generate", "a red three", *how, *control, "--out", where)[::2] == (0, "")
    image, _ = sorted(first.glob("*.png"))
    record = read_record(image)
    assert Circulation.from_dict(json.loads(json.dumps(record["circulation"]))) == Circulation(**settings)
    vanilla = {path.read_bytes() for path in (tmp_path / "vanilla").glob("*.png")}
    assert image.read_bytes() not in vanilla
    assert run(capsys, "generate", "--from", image, "--out", second, "-q")[::2] == (0, "")
    assert (second / image.name).read_bytes() == image.read_bytes()


def test_the_table_says_it_in_a_few_words(capsys, folder, tmp_path):
    arguments = [
        "a red one",
        "--model",
        folder,
        "--steps",
        2,
        "--out",
        tmp_path,
        "--alpha",
        "2..1",
        "--beta",
        "up=3,mid=2,down=1",
    ]
    code, table, _ = run(capsys, "generate", *arguments)
    assert code == 0
    assert "α 2..1 β down=1,mid=2,up=3" in " ".join(table.split())


def test_help_tells_how_to_write_it(capsys):
    code, text, _ = run(capsys, "generate", "-h")
    assert code == 0
    said = " ".join(text.replace("│", " ").split())
    assert "2..1 goes from 2 at the first step to 1 at the last" in said
    assert "--branch" in said
    assert "--tokens" in said
