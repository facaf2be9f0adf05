"""The Fréchet distance against its closed forms and torch-fidelity, and of subsets against computing it anew."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from points import cloud, subsets, taken, view
from scenes import features
from symskew import metrics
from symskew.metrics import Quantity
from symskew.metrics.frechet import FrechetDistance

FD = FrechetDistance(Quantity("fd", "FD", "", False), "none", view)


def test_it_agrees_with_torch_fidelity():
    a, b = cloud(200), cloud(150, seed=1, shift=0.4)
    first, second = (fid_features_to_statistics(torch.from_numpy(points["rows"])) for points in (a, b))
    expected = fid_statistics_to_metric(first, second, verbose=False)["frechet_inception_distance"]
    assert FD.score(a, b) == {"fd": pytest.approx(expected, rel=1e-9), "generated": 200, "reference": 150}


def test_sets_alike_are_at_no_distance_and_a_shift_is_at_its_square():
    a = cloud(200)
    assert FD.score(a, a)["fd"] == pytest.approx(0, abs=1e-6)
    moved = {**a, "rows": a["rows"] + 3}
    assert FD.score(a, moved)["fd"] == pytest.approx(9 * 8, rel=1e-6)
    assert FD.score(a, moved)["fd"] == pytest.approx(FD.score(moved, a)["fd"])


def test_a_stretch_of_every_axis_has_a_closed_form():
    # Covariances c and 4 c of the same shape: tr(c + 4 c − 2·2 c) = tr c.
    a = cloud(200)
    mean = a["rows"].mean(0)
    stretched = {**a, "rows": mean + 2 * (a["rows"] - mean)}
    assert FD.score(a, stretched)["fd"] == pytest.approx(np.trace(np.cov(a["rows"].T)), rel=1e-6)


@pytest.mark.parametrize("rows", subsets(60), ids=len)
def test_a_subset_is_as_if_there_were_no_others(rows):
    a, b = cloud(60), cloud(80, seed=1)
    assert FD.prepare(a, b).score(rows) == pytest.approx(FD.score(taken(a, rows), b), rel=1e-9)


def test_the_smaller_the_set_the_larger_the_estimate():
    a, b = cloud(800), cloud(800, seed=1)
    comparison = FD.prepare(a, b)
    values = [comparison.score(np.arange(count))["fd"] for count in (25, 100, 400, 800)]
    assert values == sorted(values, reverse=True)


def test_of_the_objects_in_images():
    found = metrics.find(["ensemble/fd"])[0]
    assert isinstance(found, FrechetDistance)
    few, many = features(40), features(100, seed=12)
    assert found.score(few, few)["ensemble/fd"] == pytest.approx(0, abs=1e-3)
    assert found.score(few, many)["generated"] == 40


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(
        ValueError, match=r"fd: expected two sets of at least 2 points .* got \(0, 8\) from 1 generated"
    ):
        FD.score({"rows": np.zeros((0, 8)), "image": np.zeros(0, int), "images": np.array(1)}, cloud(60))
    with pytest.raises(ValueError, match=r"features of one width, got .*, 8\) from 60 .*, 5\) from 60 real"):
        FD.score(cloud(60), cloud(60, width=5))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 60], "fd: expected rows of 60 images, got 0 to 60"),
        ([4, 5, 4], "fd: expected every row once, got 3 of which 2 are distinct"),
        ([], "fd: expected at least 2 points, got 0 from 0 images"),
    ],
)
def test_rows_that_are_no_subset_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        FD.prepare(cloud(60), cloud(60)).score(np.array(rows, int))
