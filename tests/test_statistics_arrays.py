"""What comes in: bad input is refused by every function, and samples find their prompts whatever their order."""

import numpy as np
import pytest

from symskew import statistics
from symskew.statistics.arrays import Groups

CALLS = {
    "grouped_mean": lambda values, prompts: statistics.grouped_mean(values, prompts),
    "paired_change": lambda values, prompts: statistics.paired_change(values, np.zeros(4), prompts),
    "equivalence": lambda values, prompts: statistics.equivalence(values, np.zeros(4), 1.0, prompts),
    "rank_correlation": lambda values, prompts: statistics.rank_correlation(values, np.arange(4), prompts),
    "reliability": lambda values, prompts: statistics.reliability(values, prompts),
}


@pytest.mark.parametrize("name", CALLS)
def test_bad_input_is_refused(name):
    call = CALLS[name]
    with pytest.raises(ValueError, match=rf"{name}: \w+ must be finite, got 1 of 4 that are not; leave failed"):
        call([1, 2, np.nan, 4], list("aabb"))
    with pytest.raises(ValueError, match=rf"{name}: \w+ must be a list of numbers, .* got shape \(0,\)"):
        call([], [])
    with pytest.raises(ValueError, match=rf"{name}: \w+ must be a list of numbers, .* got shape \(2, 2\)"):
        call(np.ones((2, 2)), list("ab"))
    with pytest.raises(
        ValueError, match=f"{name}: expected one entry for each sample in all arguments, got .*prompts 3"
    ):
        call([1, 2, 3, 4], list("aab"))
    with pytest.raises(ValueError, match=f"{name}: prompts are the units, and an interval needs at least 2"):
        call([1, 2, 3, 4], list("aaaa"))
    with pytest.raises(ValueError, match=f"{name}: prompts must be labels of one kind"):
        call([1, 2, 3, 4], np.array(["a", None, "b", "b"], dtype=object))


@pytest.mark.parametrize("name", ["paired_change", "equivalence", "rank_correlation"])
def test_arrays_that_are_not_aligned_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name}: expected one entry for each sample .* 3, \w+ 4, prompts 4"):
        CALLS[name]([1, 2, 3], list("aabb"))


def test_samples_are_grouped_by_label():
    groups = Groups.of("here", ["b", "a", "b", "c"])
    assert groups.sizes.tolist() == [1, 2, 1]
    assert groups.means(np.array([1.0, 5, 3, 7])).tolist() == [5, 2, 7]


@pytest.mark.parametrize("name", CALLS)
def test_neither_the_order_of_samples_nor_the_kind_of_label_matters(name):
    if name in ("paired_change", "equivalence", "rank_correlation"):
        call = getattr(statistics, name)
        extra = (1.0,) if name == "equivalence" else ()
        rng = np.random.default_rng(0)
        sides = rng.normal(size=(2, 24))

        def run(order, labels):
            return call(*sides[:, order], *extra, labels[order])
    else:
        values = np.random.default_rng(0).normal(size=24)

        def run(order, labels):
            return getattr(statistics, name)(values[order], labels[order])

    numbers = np.repeat(np.arange(8), 3)
    words = np.array([f"prompt {n}" for n in numbers], dtype=object)
    straight, shuffled = np.arange(24), np.random.default_rng(1).permutation(24)
    one, other = run(straight, numbers), run(shuffled, words)
    one, other = (getattr(each, "estimate", each) for each in (one, other))
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-12)
    assert one.p == pytest.approx(other.p) if one.p is not None else other.p is None
