"""Failures are told apart on readings made by hand."""

import numpy as np
import pytest

from symskew.ensemble import FAILURES, ColouredDigit, compare, failure_counts
from symskew.ensemble.evaluate import summarise
from symskew.ensemble.judge import CLASSES, SEVERAL_CLASS, UNREADABLE_CLASS, Reading
from symskew.ensemble.proportion import Proportion

RED3, BLUE7, GREEN1 = ColouredDigit("red", 3), ColouredDigit("blue", 7), ColouredDigit("green", 1)
PROMPT = {RED3, BLUE7, GREEN1}


def reading(*objects, several=(), unreadable=()):
    return Reading(
        frozenset(objects), frozenset(several), frozenset(unreadable), np.log(np.full((6, CLASSES), 1 / CLASSES))
    )


def test_all_right():
    verdict = compare(reading(*PROMPT), PROMPT)
    assert verdict.all_right
    assert verdict.accuracy == 1
    assert verdict.log_likelihood == pytest.approx(-6 * np.log(CLASSES))


@pytest.mark.parametrize(
    ("seen", "failures"),
    [
        (reading(RED3, BLUE7), ["missing: green one → no green"]),
        (reading(*PROMPT, ColouredDigit("cyan", 5)), ["extra: nothing → cyan five"]),
        (reading(*PROMPT, several=["cyan"]), ["extra: nothing → several cyan"]),
        (reading(*PROMPT, unreadable=["cyan"]), ["extra: nothing → unreadable cyan"]),
        (reading(RED3, BLUE7, several=["green"]), ["doubled: green one → several green"]),
        (reading(RED3, BLUE7, unreadable=["green"]), ["unreadable: green one → unreadable green"]),
        # the digit of another object of the prompt in this one's colour
        (reading(RED3, BLUE7, ColouredDigit("green", 7)), ["leaked: green one → green seven"]),
        # two objects that swapped colours
        (
            reading(GREEN1, ColouredDigit("red", 7), ColouredDigit("blue", 3)),
            ["leaked: blue seven → blue three", "leaked: red three → red seven"],
        ),
        # the right digit in a colour nobody asked for is one failure, not a missing object and an extra one
        (reading(RED3, BLUE7, ColouredDigit("cyan", 1)), ["leaked: green one → cyan one"]),
        (reading(RED3, BLUE7, ColouredDigit("green", 9)), ["substituted: green one → green nine"]),
        (
            reading(RED3, BLUE7, ColouredDigit("cyan", 4)),
            ["missing: green one → no green", "extra: nothing → cyan four"],
        ),
        (reading(), [f"missing: {o} → no {o.colour}" for o in (BLUE7, GREEN1, RED3)]),
    ],
)
def test_failures_are_told_apart(seen, failures):
    verdict = compare(seen, PROMPT)
    assert [str(f) for f in verdict.failures] == failures
    assert not verdict.all_right
    assert verdict.right == PROMPT & seen.objects


def test_two_objects_of_one_digit_do_not_share_a_stray_one():
    wanted = {ColouredDigit("red", 1), ColouredDigit("blue", 1)}
    verdict = compare(reading(ColouredDigit("cyan", 1)), wanted)
    assert [f.kind for f in verdict.failures] == ["leaked", "missing"]


def test_counts_name_every_kind():
    verdicts = [compare(reading(RED3), PROMPT), compare(reading(RED3, BLUE7, several=["green"]), PROMPT)]
    assert failure_counts(verdicts) == dict.fromkeys(FAILURES, 0) | {"missing": 2, "doubled": 1}


def test_a_prompt_needs_objects_in_different_colours():
    with pytest.raises(ValueError, match="got none"):
        compare(reading(), set())
    with pytest.raises(ValueError, match="different colours"):
        compare(reading(), {RED3, ColouredDigit("red", 4)})


def test_log_likelihood_sums_the_prompts_classes():
    logits = np.log(np.full((6, CLASSES), 0.1 / (CLASSES - 1)))
    logits[:, 10] = np.log(0.9)
    logits[0, 10], logits[0, 3] = logits[0, 3], np.log(0.9)  # red is the first colour
    seen = Reading(frozenset({RED3}), frozenset(), frozenset(), logits)
    assert seen.log_likelihood([RED3]) == pytest.approx(6 * np.log(0.9))
    assert seen.log_likelihood([]) == pytest.approx(5 * np.log(0.9) + np.log(0.1 / 12))
    assert {SEVERAL_CLASS, UNREADABLE_CLASS} == {11, 12}


def test_readings_read_well():
    assert str(reading(RED3, several=["blue"], unreadable=["cyan"])) == "red three, several blue, unreadable cyan"
    assert str(reading()) == "nothing"


def test_wilson_interval():
    # Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662.
    interval = Proportion.of(81, 263)
    assert (interval.low, interval.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert Proportion.of(0, 20).low == 0
    assert Proportion.of(20, 20).high == pytest.approx(1)
    with pytest.raises(ValueError, match="0 ≤ successes ≤ trials"):
        Proportion.of(3, 2)


def test_summary_counts_images_and_objects():
    verdicts = [compare(reading(*PROMPT), PROMPT), compare(reading(RED3), PROMPT)]
    summary = summarise(verdicts)
    assert (summary.all_right.share, summary.all_right.trials) == (0.5, 2)
    assert (summary.objects_right.share, summary.objects_right.trials) == (4 / 6, 6)
    assert summary.failures["missing"] == 2
