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

FD = FrechetDistance((Quantity("fd", "FD", "", False),), "none", view)


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


@pytest.mark.parametrize("width", [8, 200])  # 200: wider than there are points
def test_a_subset_is_as_if_there_were_no_others(width):
    a, b = cloud(60, width=width), cloud(80, seed=1, width=width)
    for rows, found in zip(subsets(60), FD.against(b).scores(a, subsets(60)), strict=True):
        assert found == pytest.approx(FD.score(taken(a, rows), b), rel=1e-9 if width == 8 else 1e-6)


def test_directions_that_are_not_there_do_no_harm():
    # The nuclear norm from factors of the points themselves, whose rounding errors no root makes larger.
    a, b = cloud(200), cloud(200, seed=1)
    mix = np.random.default_rng(2).normal(size=(8, 60))
    x, y = (points["rows"] @ mix for points in (a, b))
    (mx, fx), (my, fy) = ((z.mean(0), np.linalg.qr((z - z.mean(0)) / (len(z) - 1) ** 0.5)[1]) for z in (x, y))
    product = np.linalg.svd(fx @ fy.T, compute_uv=False).sum()
    expected = ((mx - my) ** 2).sum() + (fx**2).sum() + (fy**2).sum() - 2 * product
    assert FD.score({**a, "rows": x}, {**b, "rows": y})["fd"] == pytest.approx(expected, rel=1e-9)


def test_the_smaller_the_set_the_larger_the_estimate():
    a, b = cloud(800), cloud(800, seed=1)
    found = FD.against(b).scores(a, [np.arange(count) for count in (25, 100, 400, 800)])
    values = [each["fd"] for each in found]
    assert values == sorted(values, reverse=True)


def test_of_the_objects_in_images():
    found = metrics.find(["ensemble/fd"])[0]
    assert isinstance(found, FrechetDistance)
    few, many = features(40), features(100, seed=12)
    assert found.score(few, few)["ensemble/fd"] == pytest.approx(0, abs=1e-3)
    assert found.score(few, many)["generated"] == 40
