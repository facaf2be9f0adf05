"""Sets and subsets that cannot be compared are refused, whatever the metric."""

import numpy as np
import pytest

from points import cloud, taken, view
from symskew.metrics import Quantity
from symskew.metrics.comparison import blocks
from symskew.metrics.kernel import KernelDistance
from symskew.metrics.neighbours import Neighbourhoods, shares

KD = KernelDistance((Quantity("kd", "KD", "", False),), "none", view)
PRDC = Neighbourhoods(shares("x", "points"), "none", view)


@pytest.mark.parametrize(
    ("metric", "rows", "message"),
    [
        (KD, [3, 5], "kd: expected at least 2 points, got 1 from 2"),
        (PRDC, [0, 1], "x/precision: expected at least 6 points, got 5 from 2"),
    ],
)
def test_too_few_points_are_refused_on_both_sides_and_in_a_subset(metric, rows, message):
    some = taken(cloud(60), np.array(rows))
    with pytest.raises(ValueError, match=f"{message} generated images"):
        metric.score(some, cloud(60))
    with pytest.raises(ValueError, match=f"{message} real images"):
        metric.against(some)
    with pytest.raises(ValueError, match=f"{message} generated images"):
        metric.against(cloud(60)).scores(cloud(60), [np.arange(60), np.array(rows)])


def test_features_of_two_widths_are_refused():
    with pytest.raises(
        ValueError, match=r"kd: expected features of one width, got .*, 8\) from 60 .*, 5\) from 60 real"
    ):
        KD.score(cloud(60), cloud(60, width=5))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 60], "kd: expected rows of 60 images, got 0 to 60"),
        ([-1, 3], "kd: expected rows of 60 images, got -1 to 3"),
        ([4, 5, 4], "kd: expected every row once, got 3 of which 2 are distinct"),
        ([], "kd: expected at least 2 points, got 0 from 0 generated images"),
    ],
)
def test_rows_that_are_no_subset_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        KD.against(cloud(60)).scores(cloud(60), [np.array(rows, int)])


@pytest.mark.parametrize(("count", "others"), [(0, 5), (7, 0), (3000, 1000), (3, 2**21)])
def test_blocks_are_every_row_once_and_bounded(count, others):
    parts = [np.arange(count)[place] for place in blocks(count, others)]
    assert np.concatenate([*parts, np.zeros(0, int)]).tolist() == list(range(count))
    assert all(len(part) == 1 or len(part) * others <= 2**20 for part in parts)
