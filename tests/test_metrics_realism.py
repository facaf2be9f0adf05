"""Realism: of points by the published formula, and of images that are real, spoilt or noise."""

import numpy as np
import pytest
from PIL import Image

from scenes import digits, features, scenes
from symskew.ensemble.train.spoil import spoil
from symskew.metrics import reference
from symskew.metrics.judging import EnsembleJudge
from symskew.metrics.neighbours import radii
from symskew.metrics.realism import CLOSEST, METRICS, realism

REALISM = METRICS[0]


def test_it_is_the_greatest_ratio_of_radius_to_distance():
    rng = np.random.default_rng(0)
    real, points = rng.normal(size=(50, 6)), rng.normal(size=(20, 6))
    reach = radii(real)
    small = [i for i in range(50) if reach[i] <= np.median(reach)]
    expected = [max(reach[i] / np.linalg.norm(point - real[i]) for i in small) for point in points]
    assert realism(points, real, reach) == pytest.approx(expected)


def test_a_copy_of_a_real_point_is_more_real_than_real_and_noise_far_away_is_not():
    real = np.random.default_rng(0).normal(size=(50, 6))
    reach = radii(real)
    typical = real[reach < np.median(reach)]
    assert realism(typical, real, reach) == pytest.approx(1 / CLOSEST)
    assert (realism(typical + 1e-2, real, reach) > 1).all()
    assert (realism(real + 100, real, reach) < 0.1).all()


def test_real_images_are_real_and_noise_and_nothing_are_not():
    real = reference.load().features
    assert np.mean(REALISM.score(real, [""] * 1600) > 1) > 0.15  # by the least realistic of up to four objects
    one = {name: array[::4] for name, array in real.items()}
    assert np.mean(REALISM.score(one, [""] * 400) > 1) > 0.4
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    scores = REALISM.score(EnsembleJudge().extract([Image.fromarray(noise), Image.new("RGB", (64, 64))]), ["", ""])
    assert 0 < scores[0] < 0.5
    assert scores[1] == 0


def test_one_spoilt_object_is_seen():
    images, rng = scenes(40)[0], np.random.default_rng(0)
    there = features(40)["log_probabilities"].argmax(-1)
    spoilt = [
        Image.fromarray(spoil(rng, np.array(image), classes, digits(), "double")[0])
        for image, classes in zip(images, there, strict=True)
    ]
    before = REALISM.score(features(40), [""] * 40)
    after = REALISM.score(EnsembleJudge().extract(spoilt), [""] * 40)
    assert np.mean(after < before) > 0.9
    assert np.mean(before[:, None] > after) > 0.9
