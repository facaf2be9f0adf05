"""The metrics of single images say what the verdicts of the benchmark say."""

import numpy as np
import pytest

from scenes import features, scenes
from symskew.ensemble import FAILURES, Judge, compare, parse_caption
from symskew.metrics.correctness import METRICS

BY_NAME = {metric.id: metric for metric in METRICS}
ALL_RIGHT = BY_NAME["ensemble/all-right"]


def test_scores_are_those_of_the_verdicts():
    images, prompts = scenes(40)
    prompts = prompts[:30] + prompts[:10]  # the last ten images are held against the wrong prompts
    verdicts = [
        compare(reading, parse_caption(prompt))
        for reading, prompt in zip(Judge.load().read(images), prompts, strict=True)
    ]
    found = {metric.id: metric.score(features(40), prompts) for metric in METRICS}
    assert found["ensemble/all-right"].tolist() == [verdict.all_right for verdict in verdicts]
    assert found["ensemble/objects-right"].tolist() == [verdict.accuracy for verdict in verdicts]
    assert found["ensemble/log-likelihood"] == pytest.approx([v.log_likelihood for v in verdicts], abs=1e-3)
    counts = np.array([[sum(f.kind == kind for f in v.failures) for kind in FAILURES] for v in verdicts])
    assert np.array_equal(np.stack([found[f"ensemble/{kind}"] for kind in FAILURES], 1), counts)
    assert counts[30:].sum() >= 10


def test_every_score_is_a_double_and_the_directions_are_right():
    for metric in METRICS:
        assert metric.score(features(40), scenes(40)[1]).dtype == np.float64
        assert metric.higher_is_better == (metric.id.split("/")[1] not in FAILURES)


def test_no_images_give_no_scores():
    empty = {name: array[:0] for name, array in features(40).items()}
    assert ALL_RIGHT.score(empty, []).shape == (0,)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["a red three"], "all-right: expected a prompt for each image, got 1 for 2 images"),
        (["a red three", "a photo of a cat"], r"all-right: only prompts for Ensemble can be scored; .*'photo'"),
        (["a red three", "a red three and a red four"], "no colour twice"),
    ],
)
def test_prompts_that_cannot_be_scored_are_refused(prompts, message):
    two = {name: array[:2] for name, array in features(40).items()}
    with pytest.raises(ValueError, match=message):
        ALL_RIGHT.score(two, prompts)
