"""The judge on images of MNIST's test digits, which it has never seen, and on scenes spoilt on purpose."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from symskew.ensemble import Judge, compare
from symskew.ensemble.data import ABSENT, make_scenes, objects_of
from symskew.ensemble.judge import ABSENT_CLASS, SEVERAL_CLASS, UNREADABLE_CLASS, JudgeNetwork
from symskew.ensemble.mnist import Digits
from symskew.ensemble.train.judge import augment, judge_accuracy, make_examples
from symskew.ensemble.train.spoil import classes_of, ink_of, spoil


@pytest.fixture(scope="module")
def digits() -> Digits:
    with np.load(Path(__file__).parent / "data" / "mnist-test-300.npz") as file:
        return Digits(file["images"], file["labels"])


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


@pytest.fixture(scope="module")
def scenes(digits):
    return make_scenes(300, digits, seed=11, held_out=None)


def test_reads_images_of_digits_it_has_never_seen(judge, scenes):
    right = judge.log_probabilities(scenes.images).argmax(-1).numpy() == classes_of(scenes.labels)
    # The documented rates are from 4,000 images; on 300 of a small fixture, two standard errors lower.
    assert right.all(1).mean() >= 0.95
    assert right.mean() >= 0.99


def test_readings_and_verdicts_agree_with_the_labels(judge, scenes):
    readings = judge.read(scenes.images[:60])
    verdicts = [compare(r, objects_of(row)) for r, row in zip(readings, scenes.labels, strict=False)]
    assert sum(v.all_right for v in verdicts) >= 55
    right = [v.log_likelihood for v in verdicts if v.all_right]
    wrong = [r.log_likelihood(objects_of(row)) for r, row in zip(readings, scenes.labels[1:], strict=False)]
    assert np.median(right) > -1 > np.median(wrong)


@pytest.mark.parametrize(
    ("how", "wanted", "share"),
    [("double", SEVERAL_CLASS, 0.7), ("fuse", UNREADABLE_CLASS, 0.5), ("recolour", UNREADABLE_CLASS, 0.5)],
)
def test_spoilt_objects_are_not_taken_for_good_ones(judge, digits, scenes, how, wanted, share):
    rng = np.random.default_rng(1)
    spoilt = [
        spoil(rng, i, c, digits, how) for i, c in zip(scenes.images[:80], classes_of(scenes.labels), strict=False)
    ]
    classes = np.stack([c for _, c in spoilt])
    read = judge.log_probabilities(np.stack([i for i, _ in spoilt])).argmax(-1).numpy()
    found = read[classes == wanted]
    assert len(found) >= 60
    assert (found == wanted).mean() >= share
    assert (found >= SEVERAL_CLASS).mean() >= share + 0.1


def test_a_fleck_is_no_object(judge, digits, scenes):
    rng = np.random.default_rng(2)
    spoilt = [
        spoil(rng, i, c, digits, "fleck") for i, c in zip(scenes.images[:80], classes_of(scenes.labels), strict=False)
    ]
    read = judge.log_probabilities(np.stack([i for i, _ in spoilt])).argmax(-1).numpy()
    assert (read == classes_of(scenes.labels[:80])).all(1).mean() >= 0.9


def test_blank_images_show_nothing(judge):
    reading = judge.read(np.zeros((1, 64, 64, 3), np.uint8))[0]
    assert (reading.objects, reading.several, reading.unreadable) == (frozenset(), frozenset(), frozenset())


def test_all_forms_of_images_read_alike(judge, scenes):
    few = scenes.images[:3]
    from_array = judge.log_probabilities(few)
    from_pil = judge.log_probabilities([Image.fromarray(image) for image in few])
    from_tensor = judge.log_probabilities(torch.from_numpy(few).permute(0, 3, 1, 2) / 255)
    assert torch.equal(from_array, from_pil)
    assert torch.allclose(from_array, from_tensor, atol=1e-5)
    assert torch.allclose(from_array, judge.log_probabilities(few, batch=1), atol=1e-4)
    assert torch.allclose(from_array.exp().sum(-1), torch.ones(3, 6), atol=1e-5)


def test_features_are_per_image(judge, scenes):
    features = judge.features(scenes.images[:4])
    assert features.shape == (4, 768)
    assert features.isfinite().all()
    assert judge.features(scenes.images[1:2]).sub(features[1:2]).abs().max() < 1e-3


def test_the_planes_divide_the_ink(scenes):
    images = torch.from_numpy(scenes.images[:4]).permute(0, 3, 1, 2) / 255
    planes = JudgeNetwork().planes(images)
    assert torch.allclose(planes[:, :, 0].sum(1), images.amax(1), atol=1e-5)
    assert torch.allclose(planes.sum(2), images.amax(1).unsqueeze(1).expand(-1, 6, -1, -1), atol=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 64, 64), np.uint8), r"expected 8-bit images \(count, 64, 64, 3\), got uint8 \(2, 64, 64\)"),
        (np.zeros((2, 64, 64, 3), np.float32), "got float32"),
        (torch.zeros(1, 3, 32, 32), r"\(count, 3, 64, 64\), got \(1, 3, 32, 32\)"),
    ],
)
def test_images_of_the_wrong_form_are_refused(judge, images, message):
    with pytest.raises(ValueError, match=message):
        judge.read(images)


def test_weights_missing_or_damaged_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        Judge.load(tmp_path / "judge.safetensors")
    (tmp_path / "judge.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="does not hold a judge's weights"):
        Judge.load(tmp_path / "judge.safetensors")


def test_ink_belongs_to_the_nearest_colour_present(scenes):
    image, row = next((i, r) for i, r in zip(*scenes, strict=True) if (r != ABSENT).sum() == 2)
    present = np.flatnonzero(row != ABSENT)
    masks = [ink_of(image, int(c), present) for c in present]
    assert not (masks[0] & masks[1]).any()
    assert np.array_equal(masks[0] | masks[1], image.max(-1) > 40)


def test_examples_are_seeded_and_partly_spoilt(digits):
    images, classes = make_examples(digits, count=100, seed=3, spoilt=0.5)
    again, _ = make_examples(digits, count=100, seed=3, spoilt=0.5)
    assert np.array_equal(images, again)
    assert 10 < (classes > ABSENT_CLASS).any(1).sum() < 60


def test_augmented_images_stay_images():
    images = augment(torch.rand(8, 3, 64, 64), torch.Generator().manual_seed(0))
    assert images.shape == (8, 3, 64, 64)
    assert images.min() >= 0
    assert images.max() <= 1


def test_accuracy_is_reported_per_image_colour_and_object(judge, digits):
    rates = judge_accuracy(judge, digits, count=40)
    assert [text.rsplit(" ", 1)[1] for text in rates.values()][:2] == ["40", "240"]
    assert all(float(text.split("%")[0]) >= 85 for text in rates.values())
