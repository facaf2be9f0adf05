"""A folder of real images becomes a file of features, the same for the same images; nothing else is taken for one."""

import json
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import scorers
from symskew.metrics import Site, real, reference
from symskew.metrics.dinov2 import dinov2


@pytest.fixture(scope="module")
def eye(tiny_scorers):
    return dinov2(Site.of(tiny_scorers))


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "photographs"
    (place / "more").mkdir(parents=True)
    for number, image in enumerate(scorers.images()):
        end = ("png", "PNG", "jpg", "jpeg", "webp", "png")[number]
        image.convert("RGB").save(place / ("more" if number % 2 else "") / f"{number}.{end}")
    (place / "notes.txt").write_text("no image")
    return place


def test_all_images_in_the_folder_are_looked_at_in_the_order_of_their_names(folder, eye):
    files = real.pictures_in(folder)
    assert [path.relative_to(folder).as_posix() for path in files] == [
        "0.png", "2.jpg", "4.webp", "more/1.PNG", "more/3.jpeg", "more/5.png",
    ]  # fmt: skip
    told: list[int] = []
    found = real.look(folder, eye, tell=told.append)
    images = []
    for path in files:
        with Image.open(path) as image:
            images.append(image.convert("RGB"))
    assert np.array_equal(found.features["features"], eye.extract(images)["features"])
    assert sum(told) == found.metadata["count"] == 6
    assert found.metadata["extractor"] == "dinov2-l/fp32@1"
    assert found.metadata["weights"] == eye.weights
    assert found.told == (
        "6 real images, by dinov2-l/fp32@1, images resized to 224×224 whatever the shape, PIL bicubic, antialiased, "
        f"8 bits, reference {found.digest}"
    )


def test_fewer_images_are_drawn_by_their_names_alone(folder):
    every = [set(real.pictures_in(folder, count)) for count in range(1, 7)]
    assert [len(some) for some in every] == [1, 2, 3, 4, 5, 6]
    assert all(less < more for less, more in pairwise(every))


def test_a_changed_image_is_another_reference_and_a_renamed_one_is_told(folder, eye):
    before = real.look(folder, eye)
    (folder / "4.webp").rename(folder / "7.webp")
    renamed = real.look(folder, eye)
    assert renamed.metadata["images"] != before.metadata["images"]
    assert renamed.digest == before.digest  # of the same features in the same order
    Image.new("RGB", (50, 50)).save(folder / "0.png")
    assert real.look(folder, eye).digest != before.digest


def test_what_is_saved_is_read_again(folder, eye, tmp_path):
    found = real.look(folder, eye, limit=4)
    real.save(found, tmp_path / "mine.safetensors")
    again = real.read(tmp_path / "mine.safetensors")
    assert again.metadata == found.metadata
    assert again.digest == found.digest
    assert again.told == found.told


def test_folders_without_images_and_images_that_are_none_are_refused(folder, eye, tmp_path):
    with pytest.raises(FileNotFoundError, match="reference: there is no folder"):
        real.pictures_in(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has 0 images .* and some were asked for"):
        real.pictures_in(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"has 6 images .* and 7 were asked for"):
        real.pictures_in(folder, 7)
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"0\.png cannot be read as an image"):
        real.look(folder, eye)
    (folder / "0.png").write_bytes((folder / "2.jpg").read_bytes())  # a PNG by its name alone
    with pytest.raises(ValueError, match=r"0\.png cannot be read as an image"):
        real.look(folder, eye)


def test_files_that_are_no_references_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="make one by: symskew metrics reference FOLDER --features NAME --out"):
        real.read(tmp_path / "none")
    (tmp_path / "damaged").write_bytes(b"damaged")
    rows = {"features": np.zeros((3, 2), np.float32)}
    about = {"count": 3, "extractor": "x", "weights": "y", "resize": "z"}
    for name, arrays, said in (
        ("untold", rows, None),
        ("number", rows, "7"),
        ("nested", rows, "[" * 100_000),
        ("lacking", rows, json.dumps({"count": 3})),
        ("other", {"embedding": np.zeros((3, 2))}, json.dumps(about)),
        ("unnamed", rows, json.dumps(about | {"extractor": ["x"]})),
        ("square", {"features": np.zeros((3, 2, 2))}, json.dumps(about)),
    ):
        save_file(arrays, tmp_path / name, None if said is None else {"symskew": said})
    for name in ("damaged", "untold", "number", "nested", "lacking", "other", "unnamed", "square"):
        with pytest.raises(ValueError, match=f"{name} is not a reference"):
            real.read(tmp_path / name)
    with pytest.raises(ValueError, match="is not a reference made of a folder of images"):
        real.read(reference.shipped())
