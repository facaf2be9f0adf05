"""What the judge sees of an image is the image's own, and is where the ink is."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scenes import features, scenes
from symskew import ensemble
from symskew.ensemble.judge import Judge
from symskew.ensemble.vocabulary import COLOUR_NAMES
from symskew.metrics import Extractor, extractor
from symskew.metrics.judging import ID, EnsembleJudge

EYE = EnsembleJudge()


def test_it_is_the_extractor_of_its_name():
    assert isinstance(EYE, Extractor)
    assert isinstance(extractor(ID), EnsembleJudge)
    assert f"ensemble-judge/{EYE.dtype}@{EYE.version}" == ID
    shipped = Path(ensemble.__file__).parent / "models" / "judge.safetensors"
    assert EYE.weights == hashlib.sha256(shipped.read_bytes()).hexdigest()


def test_the_arrays_are_what_the_judge_says():
    images, _ = scenes(40)
    found = features(40)
    assert {name: (array.shape, array.dtype.name) for name, array in found.items()} == {
        "log_probabilities": ((40, 6, 13), "float32"),
        "features": ((40, 768), "float16"),
        "layout": ((40, 6, 3), "float32"),
    }
    judge = Judge.load()
    assert np.abs(found["log_probabilities"] - judge.log_probabilities(images).numpy()).max() < 1e-4
    assert np.abs(found["features"] - judge.features(images).numpy()).max() < 0.01  # half precision


def test_an_image_is_seen_alike_in_any_company():
    images, _ = scenes(40)
    together, order = features(40), np.random.default_rng(0).permutation(40)
    alone = EYE.extract(images[7:8])
    shuffled = EYE.extract([images[i] for i in order])
    for name, array in together.items():
        if torch.get_num_threads() == 1:
            assert np.array_equal(alone[name], array[7:8])
            assert np.array_equal(shuffled[name], array[order])
        else:
            assert np.allclose(alone[name], array[7:8], atol=1e-2)


def test_layout_is_the_place_and_the_amount_of_the_ink():
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[0:8, 16:32] = (255, 50, 50)
    x, y, amount = EYE.extract([Image.fromarray(pixels)])["layout"][0, COLOUR_NAMES.index("red")]
    assert (x, y) == pytest.approx((24 / 64, 4 / 64), abs=1e-3)
    assert amount == pytest.approx(8 * 16 / 64**2, rel=0.05)  # a little of it is lent to the hues beside it


def test_no_image_gives_arrays_without_rows():
    empty = EYE.extract([])
    assert {name: array.shape[1:] for name, array in empty.items()} == {n: a.shape[1:] for n, a in features(40).items()}
    assert all(len(array) == 0 for array in empty.values())


def test_images_of_another_size_and_missing_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected images \(count, 3, 64, 64\), got \(1, 3, 32, 32\)"):
        EYE.extract([Image.new("RGB", (32, 32))])
    with pytest.raises(FileNotFoundError, match="no weights at"):
        EnsembleJudge(tmp_path / "none").extract([Image.new("RGB", (64, 64))])
