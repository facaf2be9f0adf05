"""`symskew diagnose`: the images that `generate` makes, pictured, measured and ranked; and what it refuses."""

import json
import sys
from contextlib import redirect_stdout
from io import StringIO

import pandas
import pyarrow.parquet
import pytest
from PIL import Image

from folders import ensemble_folder
from symskew.cli import job, main
from symskew.images import read_record
from test_cli import pngs, rows, run

PROMPTS = ("a red three", "a blue one")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ensemble_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def diagnosed(folder, tmp_path_factory):
    """A folder with two prompts of three seeds, and what the command printed as JSON."""
    out = tmp_path_factory.mktemp("diagnosed")
    with redirect_stdout(StringIO()) as stdout, pytest.raises(SystemExit) as left:
        main(["diagnose", *PROMPTS, "--model", str(folder), "--seeds", "0-2", "--batch-size", "4", "--json",
              "--out", str(out)])  # fmt: skip
    assert left.value.code == 0
    return out, json.loads(stdout.getvalue())


@pytest.fixture
def undrawn(monkeypatch):
    """Without the pictures, which take time and are looked at elsewhere."""
    monkeypatch.setattr("symskew.pictures.draw", lambda *args, **where: None)
    monkeypatch.setattr("symskew.pictures.render", lambda figure: Image.new("RGB", (1, 1)))


def means(out):
    """The conditional branch's means over layers and steps, by image id."""
    frame = pandas.read_parquet(out / "record.parquet")
    frame = frame[frame.branch == "conditional"]
    return frame.groupby("id", observed=True)[["energy", "instability", "alignment"]].mean()


def test_every_image_is_there_with_its_picture_and_numbers(diagnosed):
    out, printed = diagnosed
    images = printed["images"]
    assert {(image["prompt"], image["seed"]) for image in images} == {(p, s) for p in PROMPTS for s in range(3)}
    for image in images:
        with Image.open(image["diagnosis"]) as picture:
            assert picture.width > 1000
        assert image["diagnosis"] == image["file"].replace(".png", "-diagnosis.png")
        assert read_record(out / image["diagnosis"])["id"] == image["id"]
    assert len(pngs(out)) == 12
    assert {path.suffix for path in out.iterdir()} == {".png", ".jsonl", ".parquet"}
    assert printed["record"] == str(out / "record.parquet")
    assert set(means(out).index) == {image["id"] for image in images}


def test_numbers_and_ranks_are_those_of_the_record(diagnosed):
    out, printed = diagnosed
    found = means(out)
    listed = {row["id"]: row for row in rows(out)}
    for image in printed["images"]:
        seeds = found.loc[[other["id"] for other in printed["images"] if other["prompt"] == image["prompt"]]]
        for measure in found.columns:
            assert (
                image[measure] == listed[image["id"]][measure] == pytest.approx(found[measure][image["id"]], rel=1e-4)
            )
            ranks = seeds[measure].rank(ascending=measure != "alignment")
            assert image["rank"][measure] == ranks[image["id"]]


def test_a_film_of_the_steps(capsys, folder, tmp_path):
    code, printed, _ = run(capsys, "diagnose", "x", "--model", folder, "--out", tmp_path, "--animate", "--json")
    assert code == 0
    with Image.open(json.loads(printed)["images"][0]["animation"]) as film:
        assert film.n_frames == 2  # pyright: ignore[reportAttributeAccessIssue]


def test_images_are_those_of_generate(capsys, folder, tmp_path, undrawn):
    options = ("a red three", "--model", folder, "--seeds", "3,5", "--alpha", 2, "--layers", "up", "--stop", 0.5, "-q")
    for command in ("generate", "diagnose"):
        assert run(capsys, command, *options, "--out", tmp_path / command) == (0, "", "")
    names = pngs(tmp_path / "generate")
    assert set(names) < set(pngs(tmp_path / "diagnose"))
    for name in names:
        assert (tmp_path / "generate" / name).read_bytes() == (tmp_path / "diagnose" / name).read_bytes()
    frame = pandas.read_parquet(tmp_path / "diagnose" / "record.parquet")
    assert set(frame.stage) == {"up"}
    assert set(frame.retrieval) == {"vanilla", "controlled"}


def test_the_table(capsys, folder, tmp_path, undrawn):
    code, table, errors = run(
        capsys, "diagnose", *PROMPTS, "--model", folder, "--seeds", "0-1", "--out", tmp_path, "--steps", 1
    )
    assert (code, errors) == (0, "")
    lines = table.splitlines()
    assert lines[0].endswith(" · vanilla")
    assert [line.strip() for line in lines if line.strip() in PROMPTS] == list(PROMPTS)
    numbers = [line.split() for line in lines if line.strip()[:2] in ("0 ", "1 ")]
    for first, second in (numbers[:2], numbers[2:]):
        assert (first[0], second[0]) == ("0", "1")
        for column in (2, 4, 6):
            assert sorted((first[column], second[column])) == ["1/2", "2/2"]
    assert max(map(len, lines[:-3])) <= 80
    seen = f"the pictures are {tmp_path}/*-diagnosis.png, and {tmp_path}/record.parquet has every number"
    assert lines[-1].endswith(seen)
    one = run(capsys, "diagnose", "a red three", "--model", folder, "--out", tmp_path, "--steps", 1)[1]
    assert "1/1" not in one
    assert "most stable" not in one


def test_a_folder_gathers_what_it_is_given(capsys, folder, tmp_path, undrawn):
    for seeds in ("0-1", "1-2"):
        run(
            capsys,
            "diagnose",
            "a red three",
            "--model",
            folder,
            "--seeds",
            seeds,
            "--steps",
            1,
            "--out",
            tmp_path,
            "-q",
        )
    frame = pandas.read_parquet(tmp_path / "record.parquet")
    assert frame.groupby("seed").size().nunique() == 1
    assert set(frame.seed) == {0, 1, 2}
    assert set(frame.id) == {row["id"] for row in rows(tmp_path)}
    columns = json.loads(pyarrow.parquet.read_schema(tmp_path / "record.parquet").metadata[b"symskew"])["columns"]
    assert list(columns) == list(frame.columns)
    code, _, errors = run(
        capsys, "diagnose", "a red one", "--model", folder, "--features", "all", "--out", tmp_path, "-q"
    )
    assert (code, errors) == (
        2, f"error: {tmp_path}/record.parquet was measured with --features 64, not all; give another --out\n"
    )  # fmt: skip
    (tmp_path / "record.parquet").write_text("something else")
    code, _, errors = run(capsys, "diagnose", "a red one", "--model", folder, "--out", tmp_path, "-q")
    assert (code, errors) == (
        2, f"error: {tmp_path}/record.parquet is no record of symskew diagnose; give another --out\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to generate: give a prompt or --prompts FILE"),
        (("x", "--features", "some"), "--features takes a number or all, got 'some'"),
        (("x", "--features", "0"), "features is a number of at least 1, or None for all, got 0"),
        (("x", "--states", "outer"), "states must be 'input', 'value' or None, got 'outer'"),
        (("x", "--layers", "nowhere"), "layers='nowhere' picks none of the 7 self-attention layers"),
        (("x", "--beta", "5"), "--beta without --alpha changes nothing: give --alpha, where 1 is vanilla"),
        (("x", "--steps", "0"), "steps must be a whole number of at least 1, got 0"),
        (("x", "--compare"), "No such option: --compare"),
    ],
)
def test_refused(capsys, folder, tmp_path, arguments, message):
    code, printed, errors = run(capsys, "diagnose", *arguments, "--model", folder, "--out", tmp_path / "out")
    assert (code, printed) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith(f"error: {message}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("library", "extra"), [("matplotlib", "plots"), ("pyarrow", "tables")])
def test_a_missing_extra_is_named_before_anything_begins(capsys, tmp_path, monkeypatch, library, extra):
    for name in [library, *(name for name in sys.modules if name.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("symskew.cli.job.load_model", None)
    code, _, errors = run(capsys, "diagnose", "x", "--out", tmp_path / "out")
    assert (code, errors) == (2, f'error: this needs {library}: pip install "symskew[{extra}]"\n')
    assert not (tmp_path / "out").exists()


def test_interrupt_keeps_what_is_finished_and_its_numbers(capsys, folder, tmp_path, monkeypatch, undrawn):
    def interrupted(*args, whole=job.generate, **kwargs):
        for number, result in enumerate(whole(*args, **kwargs)):
            if number == 2:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(job, "generate", interrupted)
    code, printed, errors = run(
        capsys, "diagnose", "a red three", "--model", folder, "--seeds", "0-3", "--batch-size", "2", "--out", tmp_path
    )
    assert (code, printed) == (130, "")
    assert errors == f"stopped: 2 of 4 images were finished and kept in {tmp_path}\n"
    assert len(pngs(tmp_path)) == 4
    assert set(means(tmp_path).index) == {row["id"] for row in rows(tmp_path)}


def test_a_full_disk_is_one_sentence_and_keeps_the_images(capsys, folder, tmp_path, monkeypatch, undrawn):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    code, _, errors = run(capsys, "diagnose", "a red three", "--model", folder, "--out", tmp_path, "--steps", 1, "-q")
    assert (code, errors) == (1, "error: [Errno 28] No space left on device\n")
    assert len(pngs(tmp_path)) == 2
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".jsonl"}
