"""Precision, recall, density and coverage against their definitions and torch-fidelity."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from points import cloud, subsets, taken, view
from symskew import metrics
from symskew.metrics.neighbours import NEIGHBOURS, Neighbourhoods, radii, shares

PRDC = Neighbourhoods(shares("x", "points"), "none", view)


def by_definition(generated: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """The four shares, point by point."""

    def reach(points: np.ndarray) -> list[float]:
        return [sorted(np.linalg.norm(points - point, axis=1))[NEIGHBOURS] for point in points]

    apart = np.array([[np.linalg.norm(x - y) for x in generated] for y in real])
    in_real, in_generated = apart <= np.array(reach(real))[:, None], apart <= np.array(reach(generated))
    return {
        "x/precision": float(np.mean([in_real[:, j].any() for j in range(len(generated))])),
        "x/recall": float(np.mean([in_generated[i].any() for i in range(len(real))])),
        "x/density": float(in_real.sum() / NEIGHBOURS / len(generated)),
        "x/coverage": float(np.mean([in_real[i].any() for i in range(len(real))])),
    }


def test_they_are_as_defined():
    a, b = cloud(40, shift=0.5), cloud(50, seed=1)
    expected = by_definition(a["rows"], b["rows"])
    assert len(set(expected.values())) == 4
    assert PRDC.score(a, b) == pytest.approx(expected | {"generated": 40, "reference": 50})


def test_precision_and_recall_agree_with_torch_fidelity():
    a, b = cloud(500, shift=0.5), cloud(450, seed=1)  # more points than one block has
    found = PRDC.score(a, b)
    expected = prc_features_to_metric(
        torch.from_numpy(a["rows"]), torch.from_numpy(b["rows"]), prc_neighborhood=NEIGHBOURS, verbose=False
    )
    assert (found["x/precision"], found["x/recall"]) == pytest.approx((expected["precision"], expected["recall"]))


def test_sets_alike_cover_each_other_and_far_ones_do_not_meet():
    a = cloud(200)
    found = PRDC.score(a, a)
    assert (found["x/precision"], found["x/recall"], found["x/coverage"]) == (1, 1, 1)
    far = PRDC.score(a, cloud(200, seed=1, shift=100))
    assert {far[f"x/{name}"] for name in ("precision", "recall", "density", "coverage")} == {0}


def test_a_collapsed_set_keeps_its_precision_and_loses_its_recall():
    real = cloud(300)
    rows = real["rows"][:1] + 1e-3 * np.random.default_rng(0).normal(size=(60, 8))
    found = PRDC.score({"rows": rows, "image": np.arange(60), "images": np.array(60)}, real)
    assert found["x/precision"] == 1
    assert found["x/recall"] < 0.02
    assert found["x/coverage"] < 0.05


def test_a_subset_is_as_if_there_were_no_others():
    a, b = cloud(60, shift=0.5), cloud(80, seed=1)
    found = PRDC.against(b).scores(a, subsets(60))
    assert found == [pytest.approx(PRDC.score(taken(a, rows), b)) for rows in subsets(60)]
    assert len({each["x/recall"] for each in found}) == 3


def test_a_far_cluster_that_is_left_out_does_not_hide_the_next_neighbours():
    # Every near neighbour of the last points is left out, so that theirs have to be searched anew.
    near = np.random.default_rng(0).normal(size=(60, 8))
    rows = np.concatenate([near, near + 30])
    a = {"rows": rows, "image": np.arange(120), "images": np.array(120)}
    kept = np.concatenate([np.arange(60), [60, 61]])
    b = cloud(80, shift=10)
    assert PRDC.against(b).scores(a, [kept]) == [pytest.approx(PRDC.score(taken(a, kept), b))]


def test_radii_are_distances_to_the_fifth_nearest():
    assert radii(np.arange(12.0)[:, None]).tolist() == [5, 4, 3, 3, 3, 3, 3, 3, 3, 3, 4, 5]


def test_of_the_objects_in_images():
    assert isinstance(metrics.find(["ensemble/density"])[0], Neighbourhoods)
