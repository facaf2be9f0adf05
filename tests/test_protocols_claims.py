import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy import stats

from evidence import Knob, Metric, simulate, sweep
from symskew.protocols import run
from symskew.protocols.rulings import (
    FAILS,
    HOLDS,
    OPEN,
    Found,
    any_of,
    consistently,
    difference,
    every,
    not_worse,
    together,
    with_p,
    within,
)
from symskew.statistics import Estimate, grouped_mean

METRIC, LOOKS = "ensemble/log-likelihood", "ensemble/realism"


def verdicts(world, **options):
    return {row["claim"]: row for row in run("claims", world, **options)[0].records()}


def found(low, high, p=0.001, sign=1, slight=0.1, what="it"):
    return Found(Estimate((low + high) / 2, low, high, 50, 100, p), sign, slight, what)


@pytest.mark.parametrize(
    ("low", "high", "p", "sign", "verdict"),
    [
        (0.2, 0.4, 0.001, 1, HOLDS),
        (0.2, 0.4, 0.2, 1, OPEN),  # not after Holm
        (-0.4, -0.2, 0.001, -1, HOLDS),
        (-0.4, -0.2, 0.001, 1, FAILS),
        (-0.05, 0.05, 0.9, 1, FAILS),  # nothing that would matter
        (0.01, 0.05, 0.001, 1, FAILS),  # sure, and slight
        (-0.1, 0.5, 0.3, 1, OPEN),
        (0.05, 0.2, 0.001, 1, HOLDS),
    ],
)
def test_one_effect_is_ruled_by_its_interval(low, high, p, sign, verdict):
    assert found(low, high, p, sign).verdict == verdict
    assert any_of([found(low, high, p, sign)]).verdict == every([found(low, high, p, sign)]).verdict == verdict


def test_several_effects():
    yes, no, unsure = found(0.2, 0.4, what="yes"), found(-0.4, -0.2, what="no"), found(-0.1, 0.5, 0.3, what="unsure")
    none = found(-0.05, 0.05, 0.9, what="none")
    assert any_of([no, yes]) == (HOLDS, yes.estimate, "yes")
    assert any_of([no, none]).verdict == FAILS
    assert any_of([no, unsure]) == (OPEN, unsure.estimate, "unsure")
    assert every([yes, no]) == (FAILS, no.estimate, "no")
    assert every([yes, unsure]) == (OPEN, unsure.estimate, "unsure")
    assert every([yes, yes]).verdict == HOLDS
    assert consistently([yes, no])[:2] == (OPEN, no.estimate)
    assert consistently([yes, unsure]).verdict == HOLDS
    assert consistently([no, unsure]) == (FAILS, no.estimate, "no")
    assert consistently([none]).verdict == FAILS


def test_within_a_margin():
    assert within([found(-0.05, 0.05), found(0.0, 0.09)]).verdict == HOLDS
    assert within([found(-0.05, 0.05), found(0.05, 0.2)]).verdict == OPEN
    assert within([found(-0.05, 0.05), found(-0.4, -0.2)]).verdict == FAILS


def test_not_worse():
    assert not_worse([found(-0.05, 0.05), found(0.3, 0.9)]).verdict == HOLDS
    assert not_worse([found(-0.2, 0.05), found(0.3, 0.9)]).verdict == OPEN
    assert not_worse([found(-0.4, -0.2), found(0.3, 0.9)]).verdict == FAILS
    assert not_worse([found(0.2, 0.4, sign=-1)]).verdict == FAILS


def test_p_is_adjusted_and_implied():
    assert [each.estimate.p for each in together([found(0, 1, 0.01), found(0, 1, 0.04)])] == pytest.approx([0.02, 0.04])
    assert with_p(Estimate(1, 0, 2, 10, 20)).p == pytest.approx(0.05)
    assert with_p(Estimate(1, 0, 2, 10, 20, 0.3)).p == 0.3
    assert with_p(Estimate(0.0, 0.0, 0.0, 10, 20)).p == 1


@pytest.mark.parametrize("sizes", [(2, 2), (3, 5), (6, 20), (40, 30)])
def test_a_difference_is_welchs(sizes):
    rng = np.random.default_rng(0)
    samples = [rng.normal(i, 1 + i, size=n) for i, n in enumerate(sizes)]
    exact = [
        Estimate(
            each.mean(), *stats.t.interval(0.95, len(each) - 1, each.mean(), stats.sem(each)), len(each), len(each)
        )
        for each in samples
    ]
    welch: Any = stats.ttest_ind(*samples, equal_var=False)
    apart, known = difference(*exact), welch.confidence_interval()
    assert (apart.low, apart.high, apart.p) == pytest.approx((known.low, known.high, welch.pvalue))
    assert (apart.n, apart.samples) == (sum(sizes), sum(sizes))
    same = [Estimate(1.0, 1.0, 1.0, 3, 3)] * 2
    assert difference(*same) == Estimate(0.0, 0.0, 0.0, 6, 6, 1.0)


@pytest.mark.parametrize("prompts", [2, 3, 6])
def test_few_prompts_do_not_make_a_claim_hold(prompts):
    """Nothing is there: of differences that a claim wants above 0, 2.5% may come out so. It was 20% of two prompts."""
    rng, held = np.random.default_rng(2), 0
    for n in range(400):
        sides = [grouped_mean(rng.normal(size=prompts), range(prompts), draws=300, seed=2 * n + i) for i in range(2)]
        held += any_of(together([Found(difference(*sides), 1, 0.05, "it")])).verdict == HOLDS
    assert held / 400 < 0.05


@pytest.fixture(scope="module")
def papers_world():
    """A world in which the paper is right: an inverted U for what was asked for, looks that rise, and so on."""

    def asked(strength):
        return lambda ease: np.where(ease < -0.8, 0.9, np.where(ease > 0.8, -0.7, 0.3)) - 0.25 * strength

    def knob(knob):
        return dataclasses.replace(knob, effects={METRIC: knob.effect, LOOKS: 0.2 * knob.beta * abs(knob.alpha - 1)})

    knobs = [knob(k) for k in sweep([1.2, 2, 4], [2], effect=asked, stability=lambda s: -0.4 * s,
                                    diversity=lambda s: 0.1 * s, strength=lambda s: 0.5 * s)]  # fmt: skip
    knobs[0] = dataclasses.replace(knobs[0], stability=0.3)
    knobs += sweep([1.2, 2, 4], [2], "adaptive", effect=0.25)
    knobs[3] = dataclasses.replace(knobs[3], name="adaptive same", effects=knobs[0].effects, kept=1.0)
    knobs[0] = dataclasses.replace(knobs[0], kept=1.0)
    knobs += [Knob(f"τ={far}", "temperature", effect=-1.5, strength=far, stability=0) for far in (0.2, 1.0, 3.0)]
    knobs += [Knob("sym", "sym-only", effect=-0.2, strength=0.5), Knob("skew", "skew-only", effect=-3.0, strength=6.0)]
    return simulate(knobs, prompts={"all": 180}, reliability=0.85, tie=0.5, diversity_tie=0.6)


@pytest.fixture(scope="module")
def right(papers_world):
    return verdicts(papers_world)


@pytest.mark.parametrize("claim", [
    "stable-looks", "stable-uniform", "stable-better", "stable-seeds", "stable-prompts-uniform", "low-symmetry",
    "trade-off", "moderate-gain", "worst-repaired", "best-degraded", "state-dependent", "moderate-diversity",
    "control-lowers-stability", "control-raises-symmetry", "excessive-harm", "adaptive-recovers", "adaptive-gains",
    "adaptive-keeps", "sym-structure", "temperature-worse",
])  # fmt: skip
def test_where_the_paper_is_right_its_claims_hold(right, claim):
    row = right[claim]
    assert row["verdict"] == HOLDS, row
    assert isinstance(row["number"], Estimate)
    assert row["decided by"]


def test_what_was_planted_otherwise_or_not_measured_is_told(right):
    assert right["depth"]["verdict"] == FAILS  # all stages have the same sign
    for claim in ("distribution-kept", "below-one"):
        assert right[claim]["verdict"] == OPEN
        assert right[claim]["decided by"].startswith("not measured: this needs")
    assert "placebo" in right["worst-repaired"]["decided by"]


def test_where_nothing_is_true_hardly_a_claim_holds():
    knobs = sweep([1.5, 3], [1, 3], strength=lambda s: s) + sweep([1.5, 3], [1, 3], "adaptive")
    knobs += [Knob("τ", "temperature", strength=1.0), Knob("sym", "sym-only"), Knob("skew", "skew-only")]
    rows = verdicts(simulate(knobs, prompts={"all": 100}))
    holding = [claim for claim, row in rows.items() if row["verdict"] == HOLDS and claim != "adaptive-keeps"]
    assert len(holding) <= 1, holding  # twenty claims, each wrong in one case of forty
    assert rows["stable-looks"]["verdict"] in (FAILS, OPEN)


def test_where_the_paper_is_wrong_its_claims_do_not_hold():
    knobs = sweep(
        [1.5, 3], [1, 3], effect=lambda s: -0.3 * s, stability=lambda s: 0.4 * s, diversity=lambda s: -0.1 * s
    )
    knobs += sweep([1.5, 3], [1, 3], "adaptive", effect=-2.5)
    world = simulate(knobs, prompts={"all": 100}, tie=-0.5, diversity_tie=-0.6)
    rows = verdicts(world)
    for claim in ("stable-looks", "stable-better", "stable-seeds", "low-symmetry", "moderate-gain", "worst-repaired",
                  "moderate-diversity", "control-lowers-stability", "adaptive-recovers", "adaptive-gains", "trade-off",
                  "adaptive-keeps"):  # fmt: skip
        assert rows[claim]["verdict"] == FAILS, rows[claim]
    assert rows["excessive-harm"]["verdict"] == HOLDS


def test_claims_about_control_are_judged_where_they_were_not_tuned():
    knobs = [Knob(f"s{i}", "static", 1.5 + i, 1, effect=0.5 * (i == 1)) for i in range(3)]
    world = simulate(knobs, prompts={"tuning": 40, "heldout": 60})
    (table,) = run("claims", world)
    assert "What control does is judged on s0, s1, s2 (prompts: heldout);" in table.caption
    row = next(table.records(claim="moderate-gain"))
    assert row["verdict"] == HOLDS
    assert row["number"].n == 60
    (table,) = run("claims", world, heldout="others")
    assert "judged on s0, s1, s2 (prompts: tuning, heldout);" in table.caption
    assert next(table.records(claim="moderate-gain"))["number"].n == 100


def test_a_study_of_nothing_leaves_all_open():
    rows = verdicts(simulate(diagnosed=[], seeds={"eval": 2}, with_features=False))
    assert {row["verdict"] for row in rows.values()} == {OPEN}
    assert all(row["decided by"].startswith("not measured") for row in rows.values())
    assert len(rows) == 23


def test_distributions_and_alpha_below_one():
    world = simulate([Knob("s", "static", 0.8, 1, effect=0.5), Knob("t", "static", 0.5, 1, effect=0.2)])
    assert verdicts(world)["below-one"]["verdict"] == HOLDS


def test_other_metrics_stand_in_by_name():
    metrics = [Metric("imagereward/v1"), Metric("clip/aesthetic@1", 5.6)]
    world = simulate([Knob("s", "static", 2, 1)], metrics=metrics, tie=0.5)
    (table,) = run("claims", world)
    assert "“what was asked for” is v1 ↑, “looks” is aesthetic@1 ↑" in table.caption
    assert next(table.records(claim="stable-looks"))["verdict"] == HOLDS
    assert "“what was asked for” is aesthetic@1 ↑" in run("claims", world, metric="clip/aesthetic@1")[0].caption
