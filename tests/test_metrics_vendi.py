"""The Vendi score against closed forms."""

import math

import numpy as np
import pytest

from scenes import features
from symskew.metrics.vendi import METRICS, vendi_score

GROUP, SET = METRICS


@pytest.mark.parametrize("count", [1, 2, 7])
def test_equal_rows_are_one_and_orthogonal_rows_are_as_many_as_they_are(count):
    assert vendi_score(np.ones((count, 9))) == pytest.approx(1)
    assert vendi_score(5 * np.eye(9)[:count]) == pytest.approx(count)


@pytest.mark.parametrize("cosine", [0.0, 0.3, 0.9])
def test_rows_with_one_cosine_between_all_follow_the_closed_form(cosine):
    # K has the eigenvalue 1 + (n − 1) c once and 1 − c for the others.
    count = 5
    rows = np.linalg.cholesky(np.full((count, count), cosine) + (1 - cosine) * np.eye(count))
    values = np.array([1 + (count - 1) * cosine] + [1 - cosine] * (count - 1)) / count
    assert vendi_score(rows) == pytest.approx(math.exp(-(values * np.log(values)).sum()))


def test_groups_of_equal_rows_count_by_their_sizes():
    rows = np.repeat(np.eye(3), [4, 2, 2], 0)
    shares = np.array([0.5, 0.25, 0.25])
    assert vendi_score(rows) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))


def test_more_rows_than_features_give_what_the_kernel_gives():
    rows = np.abs(np.random.default_rng(0).normal(size=(40, 6)))
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(units @ units.T / 40).clip(1e-300)
    assert vendi_score(rows) == pytest.approx(math.exp(-(values * np.log(values)).sum()))


def test_of_a_group_and_of_a_set():
    found = features(40)
    assert GROUP.score(found, "anything") == pytest.approx(vendi_score(found["features"].astype(float)))
    assert GROUP.pairs(found, "anything") == []
    assert SET.score(found, found) == {"ensemble/vendi-set": GROUP.score(found, ""), "generated": 40, "reference": 40}
    some = np.arange(0, 40, 3)
    part = {name: array[some] for name, array in found.items()}
    of_some, of_one = SET.against(found).scores(found, [some, np.array([3])])
    assert of_some == pytest.approx(SET.score(part, found))
    assert of_one["ensemble/vendi-set"] == pytest.approx(1)


def test_a_single_sample_is_refused():
    with pytest.raises(ValueError, match="ensemble/vendi: expected at least two samples of 'a red three', got 1"):
        GROUP.score(features(1), "a red three")
