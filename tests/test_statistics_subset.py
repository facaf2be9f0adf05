"""The trap of the worst share: under no effect at all, what is naive finds one and what is fair does not."""

import numpy as np
import pytest

from symskew.statistics import subset_change


def arms(rng, prompts=200, seeds=1, rho=0.5, effect=None, kept=0.0):
    """select, baseline, treated, placebo, null. Treated and null keep a share of the baseline's noise."""
    own = np.sqrt(rho) * rng.normal(size=prompts)

    def draw(count):
        return rng.normal(size=(prompts, count)) * np.sqrt(1 - rho)

    noise = draw(seeds)
    rows = [own[:, None] + draw(2), own[:, None] + noise]
    for _ in range(2):
        rows.append(own[:, None] + kept * noise + np.sqrt(1 - kept**2) * draw(seeds))
    rows[2] += 0 if effect is None else effect(own)[:, None]
    rows.insert(3, own[:, None] + draw(seeds))
    return [{f"prompt {n}": row for n, row in enumerate(arm)} for arm in rows]


@pytest.mark.parametrize("rho", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("worst", [True, False])
def test_no_effect_at_all(rho, worst):
    """In standard deviations +0.98, +0.67 and +0.43 on the worst fifth, with the mirror image on the best."""
    found = subset_change(*arms(np.random.default_rng(0), 10_000, rho=rho)[:4], worst=worst, draws=200)
    rebound = 1.40 * (1 - rho) * (1 if worst else -1)
    assert found.naive.value == pytest.approx(rebound, abs=0.06)
    assert found.naive_placebo.value == pytest.approx(rebound, abs=0.06)
    assert found.rebound == pytest.approx(rebound, abs=0.04)
    assert found.naive.p is not None
    assert found.naive.p < 1e-100  # no defence
    for fair in (found.fair, found.fair_placebo, found.corrected):
        error = (fair.high - fair.low) / 4
        assert abs(fair.value) < 4 * error < 0.15
    assert found.reliability.value == pytest.approx(rho, abs=0.02)
    assert found.reliability_selected == pytest.approx(2 * rho / (1 + rho), abs=0.02)
    assert (found.n, found.fair.n, found.naive.samples) == (10_000, 2000, 2000)
    assert found.null is found.corrected_by_null is None


def test_intervals_and_p_under_no_effect():
    rng = np.random.default_rng(1)
    found = [subset_change(*arms(rng, 75, seeds=3)[:4], draws=500) for _ in range(200)]
    for name in ("fair", "fair_placebo", "corrected"):
        held = [getattr(each, name).low < 0 < getattr(each, name).high for each in found]
        assert 0.90 < np.mean(held) < 0.99
        assert np.mean([getattr(each, name).p < 0.05 for each in found]) < 0.10
    assert np.mean([each.naive.low < 0 < each.naive.high for each in found]) < 0.05


def test_a_real_effect_on_hard_prompts_is_found():
    def effect(own):
        return np.where(own < np.quantile(own, 0.3), 0.5, 0.0)

    made = arms(np.random.default_rng(2), 4000, seeds=2, rho=0.7, effect=effect, kept=0.8)
    found = subset_change(*made[:4], draws=500)
    names = sorted(made[0])
    assert len(found.prompts) == 800
    names.sort(key=lambda name: made[0][name].mean())
    assert set(found.prompts) == set(names[:800])
    assert found.prompts[0] == names[0]
    truth = np.mean([made[2][name].mean() - made[1][name].mean() for name in found.prompts])
    assert found.fair.value == pytest.approx(truth)
    assert 0.3 < found.fair.low < found.fair.high < 0.5
    assert found.naive.value > found.fair.value


def test_kept_noise_makes_the_placebo_strict_and_the_matched_null_fair():
    """Treated on the same seed rebounds less than drawn again: naive errs for it, corrected against it."""
    *made, null = arms(np.random.default_rng(3), 4000, rho=0.5, kept=0.6)
    found = subset_change(*made, null=null, draws=500)
    assert found.naive.value == pytest.approx(1.40 * 0.5 * (1 - 0.6), abs=0.08)
    assert found.corrected.high < 0
    assert found.null is not None
    assert found.corrected_by_null is not None
    assert found.null.value == pytest.approx(found.naive.value, abs=0.08)
    assert found.corrected_by_null.low < 0 < found.corrected_by_null.high


def test_differences_in_differences_by_hand():
    select = {"a": [0, 0], "b": [1, 1], "c": [5], "d": [9]}
    baseline = {"a": [1.0, 4], "b": [2, 3], "c": [9, 9], "d": [9, 9]}
    treated = {"a": [2.0, 5], "b": [5, 3], "c": [9, 9], "d": [9, 9]}
    placebo = {"a": [2.0, 4], "b": [1], "c": [9], "d": [9]}
    found = subset_change(select, baseline, treated, placebo, share=0.5)
    assert found.prompts == ("a", "b")
    assert found.fair.value == pytest.approx(((1 + 1) / 2 + 3 / 2) / 2)
    assert found.fair_placebo.value == pytest.approx((0.5 - 1.5) / 2)
    # Half of the samples: 1 and 4 of a, 2 and 3 of b.
    with pytest.raises(ValueError, match=r"share of 0\.2 of 4 prompts is 1, and at least 2"):
        subset_change(select, baseline, treated, placebo)
    assert found.naive.value == pytest.approx((1 + 1 + 3 + 0) / 4)
    assert found.naive_placebo.value == pytest.approx((3 - 1 + 3 - 4 + 1 - 2 + 1 - 3) / 4)
    assert found.corrected.value == pytest.approx(found.naive.value - found.naive_placebo.value)


def test_neither_the_order_of_prompts_nor_equal_scores_bring_anything_in():
    rng = np.random.default_rng(4)
    made = arms(rng, 60, seeds=4)
    backwards = [dict(reversed(arm.items())) for arm in made]
    assert subset_change(*made[:4], null=made[4]) == subset_change(*backwards[:4], null=backwards[4])
    # Right or wrong: most images tie, and prompts come in the order of an effect that nothing was selected by.
    sided = [{n: rng.integers(2, size=4) / 1 for n in range(100)} for _ in range(4)]
    sided[2] = {n: row + n / 100 for n, row in sided[1].items()}
    found = subset_change(*sided, share=0.3)
    assert found.naive.value == pytest.approx(0.5, abs=0.1)


def test_ties_are_no_matter_of_rounding():
    """A third of three scores is the same in whatever order, and at whatever precision, they come."""
    rng = np.random.default_rng(5)
    scores = {n: rng.integers(4, size=3) / 3 for n in range(60)}
    others = [{n: rng.normal(size=3) for n in range(60)} for _ in range(3)]
    found = subset_change(scores, *others)
    assert len({row.mean() for row in scores.values()}) > len({round(row.mean(), 6) for row in scores.values()})
    for same in (
        {n: row[::-1] for n, row in scores.items()},
        {n: row.astype(np.float32).astype(float) for n, row in scores.items()},
        {n: 1 + row for n, row in scores.items()},
    ):
        assert subset_change(same, *others).prompts == found.prompts
    # What is apart by more is put in order by it.
    apart = {n: row + n * 1e-4 for n, row in scores.items()}
    assert subset_change(apart, *others).prompts == tuple(sorted(apart, key=lambda n: apart[n].mean())[:12])


@pytest.mark.parametrize(("worst", "way"), [(True, -1), (False, 1)])
def test_noise_that_is_kept_makes_corrected_err_against_the_treatment_on_the_worst_and_for_it_on_the_best(worst, way):
    made = arms(np.random.default_rng(6), 2000, seeds=4, rho=0.1, effect=lambda own: -0.3 + 0 * own, kept=0.9)
    found = subset_change(*made[:4], worst=worst, draws=500)
    assert found.fair.value == pytest.approx(-0.3, abs=0.1)
    assert way * (found.corrected.value + 0.3) > 0.5


def test_refusals():
    select, baseline, treated, placebo, null = arms(np.random.default_rng(0), 20, seeds=2)
    fewer = {name: row for name, row in treated.items() if name != "prompt 7"}
    with pytest.raises(ValueError, match=r"all arms must have the same prompts, but treated differs .* 1, 'prompt 7'"):
        subset_change(select, baseline, fewer, placebo)
    with pytest.raises(
        ValueError, match="null must have the seeds of baseline, got 1 scores and 2 for the prompt 'pro"
    ):
        subset_change(select, baseline, treated, placebo, null=null | {"prompt 3": [1.0]})
    with pytest.raises(ValueError, match=r"subset_change: placebo\['prompt 3'\] must be finite, got 1 of 2"):
        subset_change(select, baseline, treated, placebo | {"prompt 3": [1.0, np.inf]})
    with pytest.raises(ValueError, match="share must be between 0 and 1, got 1"):
        subset_change(select, baseline, treated, placebo, share=1)
    with pytest.raises(ValueError, match="at least 2 are needed, got 0"):
        subset_change({}, {}, {}, {})
    lone = [{"a": [0.0] * 9, "b": [9.0]}, {"a": [0.0] * 9, "b": [9.0]}]
    with pytest.raises(ValueError, match="all chosen samples are of one prompt; give more prompts or a larger share"):
        subset_change(lone[0], lone[1], lone[1], lone[0], share=0.8)
