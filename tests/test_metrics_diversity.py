"""Diversity across seeds: made-up places and features with known distances, and real images."""

import math

import numpy as np
import pytest

from scenes import seeds
from symskew.ensemble.judge import ABSENT_CLASS, SEVERAL_CLASS, UNREADABLE_CLASS
from symskew.ensemble.vocabulary import COLOUR_NAMES
from symskew.metrics.diversity import METRICS
from symskew.metrics.judging import EnsembleJudge

LAYOUT, HANDWRITING, FEATURES = METRICS
PROMPT = "a red three and a blue seven"
RED, BLUE = COLOUR_NAMES.index("red"), COLOUR_NAMES.index("blue")


def made(classes, places=None, planes=None) -> dict[str, np.ndarray]:
    """A group in which the judge reads red and blue as `classes`, at `places`, with `planes` for features."""
    count = len(classes)
    log_probabilities = np.full((count, 6, 13), -10.0, np.float32)
    log_probabilities[:, :, ABSENT_CLASS] = -5
    layout, features = np.full((count, 6, 3), 0.5, np.float32), np.ones((count, 6, 128), np.float16)
    for column, colour in enumerate((RED, BLUE)):
        for row in range(count):
            log_probabilities[row, colour, classes[row][column]] = 0
            if places is not None:
                layout[row, colour, :2] = places[row][column]
            if planes is not None:
                features[row, colour] = planes[row][column]
    return {"log_probabilities": log_probabilities, "layout": layout, "features": features.reshape(count, -1)}


def test_layout_is_the_mean_distance_of_the_same_colour():
    places = [[(0, 0), (1, 1)], [(0.3, 0.4), (1, 1)], [(0, 0), (1, 0)]]
    group = made([(3, 7)] * 3, places)
    expected = {(0, 1): 0.25, (0, 2): 0.5, (1, 2): 0.75}
    assert {(a, b): pytest.approx(v, abs=1e-6) for a, b, v in LAYOUT.pairs(group, PROMPT)} == expected
    assert LAYOUT.score(group, PROMPT) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("bad", [ABSENT_CLASS, SEVERAL_CLASS])
def test_layout_leaves_out_colours_that_have_no_one_place(bad):
    places = [[(0, 0), (1, 1)], [(0.3, 0.4), (0, 0)]]
    assert LAYOUT.score(made([(3, 7), (3, bad)], places), PROMPT) == pytest.approx(0.5, abs=1e-6)
    assert LAYOUT.score(made([(3, 7), (3, UNREADABLE_CLASS)], places), PROMPT) == pytest.approx((0.5 + 2**0.5) / 2)


def test_handwriting_compares_only_what_is_right_in_both():
    across, along = np.eye(128)[0], np.eye(128)[1]
    planes = [(across, across), (along, across), (along, along)]
    assert HANDWRITING.score(made([(3, 7)] * 3, planes=planes), PROMPT) == pytest.approx((0.5 + 1 + 0.5) / 3)
    wrong = made([(3, 7), (8, 7), (3, 7)], planes=planes)  # the second image's red is an eight
    assert {(a, b): v for a, b, v in HANDWRITING.pairs(wrong, PROMPT)} == {(0, 1): 0, (0, 2): 1, (1, 2): 1}
    scaled = made([(3, 7)] * 3, planes=[(7 * red, 3 * blue) for red, blue in planes])
    assert HANDWRITING.score(scaled, PROMPT) == pytest.approx(2 / 3, abs=1e-6)


def test_where_nothing_can_be_compared_the_score_is_nan_and_there_are_no_pairs():
    blank = made([(ABSENT_CLASS, ABSENT_CLASS)] * 3)
    for metric in (LAYOUT, HANDWRITING):
        assert math.isnan(metric.score(blank, PROMPT))
        assert metric.pairs(blank, PROMPT) == []
    half = made([(3, 7), (3, 7), (ABSENT_CLASS, ABSENT_CLASS)], [[(0, 0), (0, 0)], [(1, 0), (1, 0)], [(0, 0), (0, 0)]])
    assert LAYOUT.score(half, PROMPT) == 1


def test_features_count_errors_too():
    planes = [(np.eye(128)[0], np.eye(128)[0]), (np.eye(128)[1], np.eye(128)[0])]
    group = made([(3, 7), (ABSENT_CLASS, 7)], planes=planes)
    # Of the squared length 4 × 128 + 2 of each image, all but red's 1 is shared.
    assert FEATURES.score(group, PROMPT) == pytest.approx(1 / (4 * 128 + 2), abs=1e-9)


def test_equal_images_have_no_diversity_and_real_ones_have_some():
    images = seeds(PROMPT, 6)
    same = EnsembleJudge().extract([images[0]] * 4)
    real = EnsembleJudge().extract(images)
    for metric in (LAYOUT, HANDWRITING, FEATURES):
        assert metric.score(same, PROMPT) == pytest.approx(0, abs=1e-6)
        assert metric.score(real, PROMPT) > 0.01
        assert [(a, b) for a, b, _ in metric.pairs(real, PROMPT)][:2] == [(0, 1), (0, 2)]
        assert np.mean([pair.value for pair in metric.pairs(real, PROMPT)]) == metric.score(real, PROMPT)


def test_a_single_sample_and_a_strange_prompt_are_refused():
    one = made([(3, 7)])
    for metric in (LAYOUT, HANDWRITING, FEATURES):
        with pytest.raises(ValueError, match=rf"{metric.id}: expected at least two samples of '{PROMPT}', got 1"):
            metric.score(one, PROMPT)
    with pytest.raises(ValueError, match="diversity-layout: only prompts for Ensemble"):
        LAYOUT.score(made([(3, 7)] * 2), "a cat")
