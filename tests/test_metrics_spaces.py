"""The published set metrics by name, and that each looks at the features it should."""

from typing import Any

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from symskew import metrics

FD, KD = ("fid/tf1", "fid/clean", "dinov2-l/fd"), "dinov2-l/kd"
PRDC = [f"dinov2-l/{name}" for name in ("precision", "recall", "density", "coverage")]


def found(name: str) -> Any:
    (metric,) = metrics.find([name])
    return metric


def cloud(count, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    return {"features": (rng.normal(size=(count, 12)) * np.linspace(0.2, 2, 12) + shift).astype(np.float32)}


@pytest.mark.parametrize(
    ("name", "extractor"),
    [("fid/tf1", "inception-tf1"), ("fid/clean", "inception-clean"), ("dinov2-l/fd", "dinov2-l")],
)
def test_frechet_distances_by_torch_fidelity(name, extractor):
    metric = found(name)
    assert metric.extractor == f"{extractor}/fp32@1"
    a, b = cloud(150, 0, 0.3), cloud(120, 1)
    first, second = (fid_features_to_statistics(torch.from_numpy(some["features"].astype(float))) for some in (a, b))
    expected = fid_statistics_to_metric(first, second, verbose=False)["frechet_inception_distance"]
    assert metric.score(a, b) == {
        f"{name}/fp32@1": pytest.approx(expected, rel=1e-9),
        "generated": 150,
        "reference": 120,
    }


def test_the_kernel_distance_by_torch_fidelity():
    a, b = cloud(100, 0, 0.3), cloud(100, 1)
    rows = [torch.from_numpy(some["features"].astype(float)) for some in (a, b)]
    expected = kid_features_to_metric(*rows, kid_subsets=1, kid_subset_size=100, verbose=False, rng_seed=0)
    assert found(KD).score(a, b)[f"{KD}/fp32@1"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)


def test_four_shares_and_vendi_are_of_images():
    assert metrics.find(PRDC) == [found(PRDC[0])]
    values = found(PRDC[0]).score(cloud(80, 0, 0.5), cloud(90, 1))
    assert set(values) == {*(f"{name}/fp32@1" for name in PRDC), "generated", "reference"}
    assert all(0 < values[f"{name}/fp32@1"] < 1 for name in PRDC)
    group, several = found("dinov2-l/vendi"), found("dinov2-l/vendi-set")
    assert (group.kind, several.kind) == ("pair", "set")
    rows = {"features": np.eye(12, dtype=np.float32)[:7]}
    assert group.score(rows, "anything") == pytest.approx(7)
    assert several.score(rows, rows)["dinov2-l/vendi-set/fp32@1"] == pytest.approx(7)


def test_titles_units_and_directions_are_told():
    rows = {row["metric"]: row for row in metrics.describe([*FD, KD, *PRDC, "dinov2-l/vendi-set"])}
    assert len({row["title"] for row in rows.values()}) == len(rows) == 9
    better = {name.removesuffix("/fp32@1") for name, row in rows.items() if row["higher_is_better"]}
    assert better == {*PRDC, "dinov2-l/vendi-set"}
    assert {row["dtype"] for row in rows.values()} == {"fp32"}
