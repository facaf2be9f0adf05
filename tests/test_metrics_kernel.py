"""The kernel distance against the plain formula and torch-fidelity, and of subsets against computing it anew."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from points import cloud, subsets, taken, view
from symskew import metrics
from symskew.metrics import Quantity
from symskew.metrics.kernel import KernelDistance

KD = KernelDistance((Quantity("kd", "KD", "", False),), "none", view)


def plain(x: np.ndarray, y: np.ndarray) -> float:
    """The formula, pair by pair."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    within = [np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    return within[0] + within[1] - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_it_is_the_formula_for_sets_of_different_sizes():
    a, b = cloud(30), cloud(20, seed=1, shift=0.3)
    assert KD.score(a, b) == {"kd": pytest.approx(plain(a["rows"], b["rows"])), "generated": 30, "reference": 20}


def test_on_whole_sets_it_agrees_with_torch_fidelity():
    a, b = cloud(900), cloud(900, seed=1, shift=0.1)
    count = min(len(a["rows"]), len(b["rows"]))  # more points than one block has
    assert count > 1024
    a, b = ({"rows": points["rows"][:count], "image": points["image"][:count], "images": 900} for points in (a, b))
    rows = [torch.from_numpy(points["rows"]) for points in (a, b)]
    expected = kid_features_to_metric(*rows, kid_subsets=1, kid_subset_size=count, verbose=False, rng_seed=0)
    assert KD.score(a, b)["kd"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)


def test_its_mean_over_small_subsets_is_the_value_of_the_whole():
    # What is usually reported as KD is the mean over random subsets: an estimate of this number.
    a, b = cloud(120, shift=0.3), cloud(120, seed=1)
    rng = np.random.default_rng(0)
    found = KD.against(b).scores(a, [rng.permutation(120)[:30] for _ in range(400)])
    draws = [each["kd"] for each in found]
    assert np.mean(draws) == pytest.approx(KD.score(a, b)["kd"], abs=3 * np.std(draws) / 20)


def test_it_is_unbiased_for_equal_distributions():
    values = [KD.score(cloud(20, seed=2 * i), cloud(30, seed=2 * i + 1))["kd"] for i in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 200**0.5
    assert 0.2 < np.mean(np.array(values) < 0) < 0.8


@pytest.mark.parametrize("images", [60, 900])  # 900: several blocks of points
def test_a_subset_is_as_if_there_were_no_others(images):
    a, b = cloud(images), cloud(80, seed=1)
    for rows, found in zip(subsets(images), KD.against(b).scores(a, subsets(images)), strict=True):
        assert found == pytest.approx(KD.score(taken(a, rows), b), rel=1e-9)


def test_of_the_objects_in_images():
    assert isinstance(metrics.find(["ensemble/kd"])[0], KernelDistance)
