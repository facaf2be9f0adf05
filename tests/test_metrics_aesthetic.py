"""The aesthetic predictor, against the image-reward package, and as the linear function that it is."""

import numpy as np
import pytest
import torch

import scorers
from symskew import metrics


@pytest.fixture(scope="module")
def metric(tiny_scorers):
    return scorers.found("aesthetic", metrics.Site.of(tiny_scorers))[0]


def test_it_is_that_of_the_image_reward_package(metric, tiny_scorers):
    features = metrics.extractor(metric.extractor, metrics.Site.of(tiny_scorers)).extract(scorers.images())
    found = metric.score(features, [""] * len(scorers.images()))
    assert found == pytest.approx(scorers.upstream("aesthetic"), abs=1e-6)
    assert np.ptp(found) > 0.01


def test_it_is_linear_and_does_not_look_at_the_prompt(metric):
    a, b = np.random.RandomState(0).standard_normal((2, 768)).astype(np.float32)
    found = metric.score({"embedding": np.stack([a, b, (a + b) / 2])}, ["x", "y", "z"])
    assert found[2] == pytest.approx(found[:2].mean(), abs=1e-5)
    assert metric.score({"embedding": np.stack([b, a])}, ["p", "q"]).tolist() == found[[1, 0]].tolist()


def test_wrong_weights_are_one_sentence(tmp_path, tiny_scorers):
    torch.save({"model": torch.zeros(3)}, tmp_path / "mine.pth")
    site = metrics.Site.of(tiny_scorers | {"aesthetic": tmp_path / "mine.pth"})
    with pytest.raises(ValueError, match=r"aesthetic: .*mine.pth holds other weights .* there is no layers.0.weight"):
        scorers.found("aesthetic", site)[0].score({"embedding": np.ones((1, 768))}, ["x"])
