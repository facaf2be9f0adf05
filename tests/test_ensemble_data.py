"""The data maker: what it promises of every image, whatever the seed."""

import gzip
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from symskew.ensemble.data import ABSENT, draw_caption, label, make_scenes, objects_of
from symskew.ensemble.mnist import Digits, load_mnist
from symskew.ensemble.prompts import (
    PHRASINGS,
    caption,
    draw_objects,
    has_held_out_pair,
    held_out_pairs,
    make_prompts,
    parse_caption,
)
from symskew.ensemble.vocabulary import COLOUR_NAMES, COLOURS, ColouredDigit


@pytest.fixture(scope="module")
def digits() -> Digits:
    with np.load(Path(__file__).parent / "data" / "mnist-test-300.npz") as file:
        return Digits(file["images"], file["labels"])


def test_scenes_hold_one_to_four_objects_and_no_held_out_pair(digits):
    labels = make_scenes(1000, digits, seed=3).labels
    counts = (labels != ABSENT).sum(1)
    assert set(counts) == {1, 2, 3, 4}
    assert np.bincount(counts)[1:].min() > 200  # 250 expected, standard deviation 14
    assert not any(has_held_out_pair(objects_of(row)) for row in labels)


def test_scenes_show_exactly_the_colours_of_their_labels(digits):
    scenes = make_scenes(60, digits, seed=4)
    palette = np.array(list(COLOURS.values()), float)
    palette /= palette.max(1, keepdims=True)
    for image, row in zip(scenes.images, scenes.labels, strict=True):
        ink = image[image.max(-1) > 100].astype(float)
        hues = ink / ink.max(1, keepdims=True)
        found = np.bincount(np.square(hues[:, None] - palette).sum(-1).argmin(-1), minlength=6)
        # Where two strokes touch, a few blended pixels look like a third colour; a digit has 20 and more.
        assert (found[row != ABSENT] > 15).all()
        assert (found[row == ABSENT] < 15).all()


def test_objects_hardly_overlap(digits):
    scenes = make_scenes(80, digits, seed=5)
    ink = (scenes.images.max(-1) > 60).sum((1, 2))
    number = (scenes.labels != ABSENT).sum(1)
    alone, crowded = ink[number == 1].mean(), ink[number == 4].mean() / 4
    assert crowded > 0.85 * alone  # as much ink per object in company as alone


def test_same_seed_same_scenes_whatever_the_workers(digits):
    one, two = make_scenes(700, digits, seed=9), make_scenes(700, digits, seed=9, workers=2)
    assert np.array_equal(one.images, two.images)
    assert np.array_equal(one.labels, two.labels)
    assert not np.array_equal(one.images, make_scenes(700, digits, seed=10).images)


def test_no_scenes_at_all(digits):
    assert make_scenes(0, digits).images.shape == (0, 64, 64, 3)


def test_labels_and_captions_go_round():
    rng = np.random.default_rng(0)
    for _ in range(200):
        objects = draw_objects(rng, int(rng.integers(1, 5)), held_out=None)
        row = label(objects)
        assert frozenset(objects_of(row)) == frozenset(objects)
        assert parse_caption(draw_caption(rng, row)) == frozenset(objects)


@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_every_phrasing_reads_back(phrasing):
    objects = (ColouredDigit("red", 3), ColouredDigit("blue", 7), ColouredDigit("green", 1))
    for count in (1, 2, 3):
        assert parse_caption(caption(objects[:count], phrasing)) == frozenset(objects[:count])


def test_a_caption_reads_as_english():
    objects = [ColouredDigit("red", 3), ColouredDigit("blue", 7), ColouredDigit("green", 1)]
    assert caption(objects) == "a red three, a blue seven and a green one"
    assert caption(objects[:2], "picture") == "a picture of a red three and a blue seven"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no object"),
        ("a red", "no digit after red"),
        ("a mauve three", "cannot read 'mauve'"),
        ("three", "cannot read 'three'"),
        ("a red three and a red four", "no colour twice"),
        (", ".join(f"{c} one" for c in COLOUR_NAMES[:5]), "at most 4 objects"),
    ],
)
def test_captions_that_cannot_be_read_say_why(text, message):
    with pytest.raises(ValueError, match=message):
        parse_caption(text)


def test_held_out_pairs_are_five_percent_and_even():
    pairs = held_out_pairs()
    assert len(pairs) == 75
    colours = [frozenset(item.colour for item in pair) for pair in pairs]
    assert all(colours.count(frozenset(two)) == 5 for two in combinations(COLOUR_NAMES, 2))


def test_prompts_are_balanced_seeded_and_flagged():
    prompts = make_prompts(400, seed=2, held_out=None)
    assert prompts[:50] == make_prompts(50, seed=2, held_out=None)
    assert prompts != make_prompts(400, seed=3, held_out=None)
    assert np.bincount([len(p.objects) for p in prompts]).tolist() == [0, 100, 100, 100, 100]
    assert all(parse_caption(p.text) == p.objects and p.held_out == has_held_out_pair(p.objects) for p in prompts)
    assert any(p.held_out for p in prompts)
    assert not any(p.held_out for p in make_prompts(200, seed=2))
    assert all(p.held_out for p in make_prompts(60, seed=2, objects=(2, 3, 4), held_out=True))


def test_prompts_that_cannot_be_made():
    with pytest.raises(ValueError, match="one object holds no pair"):
        make_prompts(1, objects=(1,), held_out=True)
    with pytest.raises(ValueError, match="count must be 1 to 4, got 5"):
        make_prompts(1, objects=(5,))


def _write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_mnist_is_found_by_folder_variable_and_cache(tmp_path, monkeypatch):
    images, labels = np.arange(2 * 784, dtype=np.uint8).reshape(2, 28, 28), np.array([3, 7], np.uint8)
    place = tmp_path / "symskew" / "ensemble" / "mnist"
    place.mkdir(parents=True)
    _write_idx(place / "t10k-images-idx3-ubyte.gz", images)
    _write_idx(place / "t10k-labels-idx1-ubyte.gz", labels)
    monkeypatch.delenv("SYMSKEW_MNIST", raising=False)
    assert np.array_equal(load_mnist("test", place).images, images)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert np.array_equal(load_mnist("test").labels, labels)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("SYMSKEW_MNIST", str(place))
    assert np.array_equal(load_mnist("test").labels, labels)


def test_mnist_missing_is_one_clear_error(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"of the given folder; put MNIST's four \.gz files"):
        load_mnist("train", tmp_path)

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.delenv("SYMSKEW_MNIST", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(FileNotFoundError, match=r"could not be fetched \(no network\).*SYMSKEW_MNIST"):
        load_mnist("train")
    with pytest.raises(ValueError, match="must be 'train' or 'test', got 'dev'"):
        load_mnist("dev")


def test_a_damaged_download_is_not_kept(tmp_path, monkeypatch):
    class Answer:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self):
            return gzip.compress(b"not MNIST")

    monkeypatch.delenv("SYMSKEW_MNIST", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: Answer())
    with pytest.raises(FileNotFoundError, match="arrived damaged"):
        load_mnist("train")
    assert not list(tmp_path.rglob("*.gz"))
