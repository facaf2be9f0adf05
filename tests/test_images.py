"""Images carry their settings, and are on disk whole or not at all."""

import json

import pytest
from PIL import Image, PngImagePlugin

from symskew.files import replacing, write_section
from symskew.images import Folder, describe, file_name, read_record, save_image

RECORD = {
    "id": "0123456789abcdef",
    "model": "/home/someone/ensemble-sdxl",
    "revision": "sha256:fedcba9876543210",
    "prompt": "a red three, and “more” ✓",
    "negative": "blue",
    "seed": 7,
    "steps": 30,
    "guidance": 3.0,
    "size": [64, 48],
    "dtype": "float32",
    "scheduler": {"name": "DDIMScheduler", "config": "00000000"},
    "circulation": {"alpha": 1.2, "beta": 5.0},
    "layers": "up,mid",
    "start": 0.0,
    "stop": 1.0,
    "versions": {"symskew": "0.1.0"},
}
IMAGE = Image.new("RGB", (64, 48), "#123456")


def test_a_record_survives_its_image(tmp_path):
    save_image(tmp_path / "x.png", IMAGE, RECORD)
    assert read_record(tmp_path / "x.png") == RECORD
    with Image.open(tmp_path / "x.png") as image:
        assert image.text["parameters"] == describe(RECORD)
        assert image.tobytes() == IMAGE.tobytes()


def test_the_same_record_gives_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        save_image(tmp_path / name, IMAGE, RECORD)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_people_can_read_it_and_so_can_their_viewers():
    assert describe(RECORD).splitlines() == [
        "a red three, and “more” ✓",
        "Negative prompt: blue",
        "Steps: 30, Sampler: DDIMScheduler, CFG scale: 3, Seed: 7, Size: 64x48, Model hash: fedcba9876, "
        'Model: ensemble-sdxl, Circulation: "α 1.2 β 5 · layers up,mid", Version: symskew 0.1.0',
    ]
    vanilla = {key: value for key, value in RECORD.items() if key != "circulation"} | {"guidance": None}
    assert "Circulation: vanilla" in describe(vanilla)
    assert "CFG" not in describe(vanilla)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a red three", "a-red-three-s7-01234567.png"),
        ("../../etc/passwd", "etc-passwd-s7-01234567.png"),
        ("赤い三", "image-s7-01234567.png"),
        ("long " * 40, "long-long-long-long-long-long-long-long-long-lon-s7-01234567.png"),
    ],
)
def test_names(prompt, name):
    assert file_name(RECORD | {"prompt": prompt}) == name


def test_a_failure_half_way_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "x.png"
    path.write_text("before")

    def write():
        with replacing(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_list_of_a_folder_has_a_line_for_each_file(tmp_path):
    folder = Folder(tmp_path / "new" / "folder")
    first = folder.save(IMAGE, RECORD, right=True)
    folder.save(IMAGE, RECORD | {"seed": 8})
    Folder(folder.path).save(IMAGE, RECORD, right=False)
    rows = [json.loads(line) for line in (folder.path / "metadata.jsonl").read_text().splitlines()]
    assert sorted(row["file_name"] for row in rows) == sorted(path.name for path in folder.path.glob("*.png"))
    assert next(row for row in rows if row["file_name"] == first.name)["right"] is False
    assert rows[0]["text"] == RECORD["prompt"]
    assert not list(folder.path.glob(".*"))


def test_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to the folder .*file: (File exists|Not a directory)"):
        Folder(tmp_path / "file")
    (tmp_path / "metadata.jsonl").write_text('{"other": 1}\n')
    with pytest.raises(ValueError, match=r"metadata\.jsonl is no list of images: KeyError\('file_name'\)"):
        Folder(tmp_path)


def test_images_without_a_record(tmp_path):
    IMAGE.save(tmp_path / "bare.png")
    (tmp_path / "text.png").write_text("no image")
    save_image(tmp_path / "cut.png", IMAGE, RECORD)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-40])
    for name, message in {
        "bare.png": "carries no settings: symskew did not make it",
        "text.png": "cannot be read as an image",
        "cut.png": "cannot be read as an image",
        "none.png": "cannot be read as an image: .*No such file",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_record(tmp_path / name)
    for text, message in (("{", "settings inside .* are damaged"), ('{"id": 1}', "incomplete: model, prompt")):
        info = PngImagePlugin.PngInfo()
        info.add_text("symskew", text)
        IMAGE.save(tmp_path / "bad.png", pnginfo=info)
        with pytest.raises(ValueError, match=message):
            read_record(tmp_path / "bad.png")


def test_a_section_is_written_between_its_markers_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- part: begin -->\nold\n<!-- part: end -->\nafter\n")
    write_section(page, "part", ["new", "lines"])
    assert page.read_text() == "before\n<!-- part: begin -->\n\nnew\nlines\n<!-- part: end -->\nafter\n"
    with pytest.raises(ValueError, match="has no place for this: put the lines <!-- other: begin -->"):
        write_section(page, "other", ["lost"])
    assert "new" in page.read_text()
