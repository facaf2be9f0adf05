import contextlib
import dataclasses
import json

import numpy as np
import pytest

from evidence import Knob, Metric, scheduled, simulate
from symskew.protocols import MissingError, protocols, run
from symskew.protocols.choices import heading
from symskew.protocols.selected import NAIVE, null_of

METRIC = "ensemble/log-likelihood"
TITLE = "log likelihood ↑"
STATIC = {"family": "static", "alpha": 2.0, "beta": 1.0}


def only(table, **where):
    (row,) = table.records(**where)
    return row


@pytest.fixture(scope="module")
def nothing():
    """No effect at all; the treated image keeps none of the noise of its seed, as a new draw."""
    return simulate([Knob("static", **STATIC, kept=0), Knob("null", "null", 2.0, 1.0, kept=0)], prompts={"all": 400})


def test_without_an_effect_fair_finds_none_and_naive_a_large_one(nothing):
    row = only(run("table-3b", nothing, metrics=[METRIC])[0], setting="static")
    assert row["fair"].low < 0 < row["fair"].high
    assert row["fair"].p > 0.05
    assert row["fair placebo"].low < 0 < row["fair placebo"].high
    # 1.40 (1 − ρ) σ with ρ = ½ and σ = 3.
    assert row["predicted rebound"] == pytest.approx(2.1, abs=0.3)
    assert row[NAIVE].value == pytest.approx(2.1, abs=0.4)
    assert row[NAIVE].low > 1
    assert row["naive placebo"].value == pytest.approx(row[NAIVE].value, abs=0.4)
    assert row["corrected"].low < 0 < row["corrected"].high
    assert row["corrected by null"].low < 0 < row["corrected by null"].high
    assert row["ρ"].low < 0.5 < row["ρ"].high
    assert row["prompts"] == 80


def test_the_best_are_the_mirror(nothing):
    row = only(run("table-4", nothing, metrics=[METRIC])[0], setting="static")
    assert row[NAIVE].high < -1
    assert row["predicted rebound"] == pytest.approx(-2.1, abs=0.3)
    assert row["fair"].low < 0 < row["fair"].high


def test_a_planted_rescue_is_found_where_it_is():
    rescue = Knob("rescue", **STATIC, effect=lambda ease: 0.5 * (ease < -0.84))
    world = simulate([rescue, Knob("harm", "static", 3.0, 1.0, effect=lambda ease: -0.5 * (ease > 0.84))],
                     prompts={"all": 300}, reliability=0.8)  # fmt: skip
    worst, best = (run(name, world, metrics=[METRIC])[0] for name in ("table-3b", "table-4"))
    assert only(worst, setting="rescue")["fair"].p < 0.05
    assert only(worst, setting="rescue")["fair"].low > 0.3
    assert only(best, setting="rescue")["fair"].p > 0.05
    assert only(best, setting="harm")["fair"].high < -0.3
    assert only(worst, setting="harm")["fair"].p > 0.05
    curve = list(run("quantiles", world, metrics=[METRIC])[0].records(setting="rescue"))
    assert [row["quantile"] for row in curve] == [1, 2, 3, 4, 5]
    assert curve[0]["fair"].p < 0.05
    assert all(row["fair"].p > 0.05 for row in curve[3:])
    # The naive curve of vanilla drawn again falls from one end to the other.
    assert curve[0]["naive placebo"].low > 0 > curve[4]["naive placebo"].high


def test_where_lower_is_better_the_worst_are_the_highest():
    errors = Metric("errors", 2.0, 1.0, higher_is_better=False)
    effect = {"errors": lambda ease: 0.5 * (ease < -0.84)}  # quality up, errors down
    world = simulate(
        [Knob("rescue", **STATIC, effects=effect)], prompts={"all": 300}, reliability=0.8, metrics=[errors]
    )
    row = only(run("table-3b", world)[0])
    assert row["chosen by"] == "errors ↓"
    assert row["fair"].high < -0.1
    assert row[NAIVE].value < row["fair"].value < 0
    assert row["predicted rebound"] < 0
    first, *_, last = run("quantiles", world)[0].records()
    assert first["fair"].high < 0 < first["naive placebo"].value * -1
    assert last["naive placebo"].low > 0


def test_side_effects_are_of_the_same_prompts():
    effects = {METRIC: 0.0, "ensemble/realism": 0.5}
    world = simulate([Knob("looks", **STATIC, effects=effects)], prompts={"all": 120})
    table = run("table-3b", world)[0]
    assert len(table.rows) == 9
    row = only(table, chosen_by=TITLE, change_in="realism ↑")
    assert row["fair"].value == pytest.approx(0.05, abs=0.02)
    assert row["fair"].p < 0.05
    assert row[NAIVE] is None
    assert row["fair placebo"].low < 0 < row["fair placebo"].high
    own = run("table-3b", world, side_effects=False)[0]
    assert {r["chosen by"] == r["change in"] for r in own.records()} == {True}


def test_only_fair_changes_are_tested(nothing):
    table = run("table-3b", nothing, metrics=[METRIC])[0]
    marked = [column.name for column in table.columns if column.mark]
    assert marked == ["fair"]
    assert any(NAIVE in note for note in table.notes)
    assert NAIVE in table.caption


def test_p_is_adjusted_over_the_table():
    knobs = [Knob(f"s{i}", "static", 1.5 + i, 1.0, effect=0.08) for i in range(4)]
    world = simulate(knobs, prompts={"all": 200})
    together = [row["fair"].p for row in run("table-3b", world, metrics=[METRIC])[0].records()]
    alone = [
        only(run("table-3b", world.only([knob.name]), metrics=[METRIC])[0], setting=knob.name)["fair"].p
        for knob in knobs
    ]
    assert min(together) == pytest.approx(min(4 * min(alone), 1))


@pytest.mark.parametrize(("seeds", "lacking"), [
    ({"eval": 3}, "select and placebo"), ({"eval": 3, "select": 1}, "placebo"), ({"eval": 3, "placebo": 1}, "select"),
])  # fmt: skip
def test_roles_that_are_missing_are_named_with_the_lines_to_add(seeds, lacking):
    world = simulate([Knob("static", **STATIC)], seeds=seeds)
    for name in ("table-3b", "table-4", "quantiles"):
        with pytest.raises(MissingError) as raised:
            run(name, world)
        text = str(raised.value)
        assert text.startswith(f"{name}: this needs vanilla samples with seeds of the role")
        assert lacking in text
        assert "seeds:" in text
        for role in lacking.split(" and "):
            assert f"  {role}: " in text


def test_settings_that_are_missing_are_named():
    with pytest.raises(
        MissingError, match="table-3b: this needs settings of the family static; the study has vanilla"
    ) as e:
        run("table-3b", simulate())
    assert "settings:\n  static: {alpha: [" in str(e.value)


def test_few_prompts_are_refused():
    with pytest.raises(
        MissingError, match="at least 10 prompts with scores of log likelihood in every arm of static, got 9"
    ):
        run("table-3b", simulate([Knob("static", **STATIC)], prompts={"all": 9}))


def test_of_few_chosen_prompts_it_is_said_that_nothing_can_come_out():
    few, enough = (simulate([Knob("static", **STATIC, effect=9)], prompts={"all": n}) for n in (25, 30))
    for name in ("table-3b", "table-4", "quantiles"):
        said = [note for note in run(name, few)[0].notes if note.startswith("Only 5 prompts are chosen: turning")]
        assert len(said) == 1
        assert all(row["fair"].p > 0.05 for row in run(name, few, metrics=[METRIC])[0].records())
        assert not any("are chosen" in note for note in run(name, enough)[0].notes)
    assert only(run("table-3b", enough, metrics=[METRIC])[0])["fair"].p == pytest.approx(2 / 2**6)


def test_which_way_the_correction_errs_is_said_of_each_end():
    world = simulate([Knob("harm", **STATIC, effect=-0.3, kept=0.9)], prompts={"all": 400}, reliability=0.2)
    worst, best = (run(name, world, metrics=[METRIC])[0] for name in ("table-3b", "table-4"))
    assert "which errs against the treatment" in worst.caption
    assert "which errs for the treatment" in best.caption
    assert "harm looks smaller than it is" in best.caption
    assert only(worst)["corrected"].high < only(worst)["fair"].value
    assert only(best)["corrected"].low > only(best)["fair"].value


def test_the_null_of_a_schedule_is_that_of_the_same_schedule():
    world = simulate([Knob("falling", "static"), Knob("rising", "static"), Knob("null", "null")])
    ramp = {"start": 2.0, "stop": 1.0}
    for name, alpha in (("falling", ramp), ("rising", {"start": 1.0, "stop": 2.0}), ("null", ramp)):
        world = scheduled(world, name, alpha)
    table = run("table-3b", world, metrics=[METRIC])[0]
    assert only(table, setting="falling")["null"] is not None
    assert only(table, setting="rising")["null"] is None


def test_a_null_counts_only_where_it_matches():
    knobs = [Knob("s2", "static", 2.0, 1.0), Knob("s3", "static", 3.0, 1.0), Knob("n2", "null", 2.0, 1.0)]
    table = run("table-3b", simulate(knobs), metrics=[METRIC])[0]
    assert only(table, setting="s2")["null"] is not None
    assert only(table, setting="s3")["null"] is None
    assert any("is there for 1 of 2 settings" in note for note in table.notes)
    half = [knobs[0], dataclasses.replace(knobs[2], drop=200)]
    table = run("table-3b", simulate(half), metrics=[METRIC])[0]
    assert only(table)["null"] is None
    assert any("is there for 0 of 1 settings" in note for note in table.notes)


@pytest.mark.parametrize(("static", "null", "alike"), [
    ({"circulation": {"alpha": 2.0}, "layers": None, "start": 0.0, "stop": 1.0}, {"name": "null", "alpha": 2.0}, True),
    ({"circulation": {"alpha": 2.0}, "layers": "up"}, {"name": "null", "alpha": 2.0, "layers": "up", "seed": 3}, True),
    ({"circulation": {"alpha": 2.0}, "layers": "up"}, {"name": "null", "alpha": 2.0}, False),
    ({"circulation": {"alpha": 2.0}, "stop": 0.5}, {"name": "null", "alpha": 2.0}, False),
    ({"circulation": {"alpha": 2.0, "adaptive": "call"}}, {"name": "null", "alpha": 2.0}, False),
    ({"circulation": {"alpha": 2.0, "norm": None}}, {"name": "null", "alpha": 2.0}, False),
])  # fmt: skip
def test_a_null_is_of_the_same_layers_and_steps(static, null, alike):
    world = simulate([Knob("static", **STATIC), Knob("n", "null", 2.0, 1.0)], prompts={"all": 10})
    texts = ["{}", json.dumps(static), json.dumps({"baseline": null})]
    world = dataclasses.replace(world, settings=world.settings.assign(json=texts))
    assert (null_of(world, "static") == "n") == alike


def test_a_metric_that_never_differs_is_left_out_and_told():
    world = simulate([Knob("static", **STATIC)])
    world = dataclasses.replace(world, frame=world.frame.assign(**{"ensemble/all-right": 1.0}))
    table = run("table-3b", world, metrics=["ensemble/all-right", METRIC])[0]
    assert {row["chosen by"] for row in table.records()} == {TITLE}
    assert "Nothing to choose by, the same for every vanilla sample: all right ↑." in table.notes
    with pytest.raises(MissingError, match="a metric that differs between vanilla samples, unlike ensemble/all-right"):
        run("table-3b", world, metrics=["ensemble/all-right"])
    for name in protocols():
        with contextlib.suppress(MissingError):
            run(name, world)


def test_dropped_samples_are_told():
    table = run("table-3b", simulate([Knob("static", **STATIC, drop=11)]), metrics=[METRIC])[0]
    assert any("left out: static 11 samples" in note for note in table.notes)
    assert any("static, heldout, eval: 11 of 400 samples missing" in note for note in table.notes)


def test_headings_say_which_way_is_better():
    world = simulate(metrics=[Metric("up"), Metric("down", higher_is_better=False)])
    assert [heading(world, metric) for metric in ("up", "down")] == ["up ↑", "down ↓"]
    assert np.sign([world.sign("up"), world.sign("down")]).tolist() == [1, -1]
