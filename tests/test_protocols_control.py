"""Tables 3a, 6 and 7, figures 3 and 9: what settings do to all prompts."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import ttest_rel

from evidence import Knob, Metric, scheduled, simulate, sweep
from symskew.protocols import MissingError, run
from symskew.protocols.adaptive import EXCESSIVE, MODERATE
from symskew.protocols.components import DISTANCE

METRIC = "ensemble/log-likelihood"
TITLE = "log likelihood ↑"


def only(table, **where):
    (row,) = table.records(**where)
    return row


@pytest.fixture(scope="module")
def world():
    return simulate(
        [
            *sweep([1.5, 3], [1, 3], effect=lambda s: 0.4 if s < 2 else -0.1 * s, stability=lambda s: -0.3 * s,
                   strength=lambda s: 0.3 * s),
            *sweep([1.5, 3], [1, 3], "adaptive", effect=0.4),
            *(Knob(f"τ={tau:g}", "temperature", effect=-0.5, strength=abs(tau - 1) * 2) for tau in (0.5, 1.2)),
            Knob("sym", "sym-only", effect=-0.2, strength=0.5),
            Knob("skew", "skew-only", effect=-2.0, strength=5.0),
        ],
        prompts={"all": 80},
    )  # fmt: skip


def test_table_3a_has_means_and_changes(world):
    table = run("table-3a", world, metrics=[METRIC])[0]
    row = only(table, metric=TITLE, setting="static α=1.5 β=1")
    pair = world.paired(METRIC, world.named("static α=1.5 β=1"))
    per_prompt = [np.array([v.mean() for v in world.grouped(side, pair.prompts).values()]) for side in pair[:2]]
    assert row["mean"].value == pytest.approx(per_prompt[0].mean())
    assert row["change"].value == pytest.approx((per_prompt[0] - per_prompt[1]).mean())
    assert row["d_z"] == pytest.approx(ttest_rel(per_prompt[0], per_prompt[1]).statistic / np.sqrt(80))
    assert (row["α"], row["β"], row["prompts"]) == (1.5, 1, 80)
    assert row["change"].low > 0.6
    assert row["p"] == row["change"].p < 0.05
    assert row["better"].low > 0.5
    vanilla = only(table, metric=TITLE, setting="vanilla")
    assert vanilla["mean"].value == pytest.approx(per_prompt[1].mean())
    assert vanilla["change"] is None
    assert only(table, metric=TITLE, setting="static α=3 β=3")["change"].high < 0


def test_table_3a_has_the_measures_under_control(world):
    table = run("table-3a", world, metrics=[METRIC])[0]
    for name, sign in (("−energy", -1), ("instability", 1), ("alignment", -1), ("symmetry η", -1)):
        row = only(table, metric=name, setting="static α=3 β=3")
        assert sign * row["change"].value > 0
        assert row["change"].p < 0.05
        assert np.sign(row["d_z"]) == sign
        assert row["better"] is None
    assert only(table, metric="−energy", setting="vanilla")["mean"].value == pytest.approx(3000, abs=10)
    names = {row["metric"] for row in run("table-3a", world, metrics=[METRIC], measures=False)[0].records()}
    assert names == {TITLE}


def test_a_share_that_falls_is_better_where_lower_is():
    world = simulate([Knob("static", "static", 2, 1, effect=1.0)], metrics=[Metric("errors", higher_is_better=False)])
    row = only(run("table-3a", world)[0], metric="errors ↓", setting="static")
    assert row["change"].high < 0
    assert row["better"].low > 0.7


def test_settings_are_held_together_on_the_prompts_that_all_have():
    knobs = [Knob("a", "static", 2, 1, prompts=("tuning",)), Knob("b", "static", 3, 1)]
    world = simulate(knobs, prompts={"tuning": 20, "heldout": 30})
    table = run("table-3a", world)[0]
    assert {row["prompts"] for row in table.records()} == {20}
    assert any(note == "Prompts: tuning (20)." for note in table.notes)
    assert {row["prompts"] for row in run("table-3a", world, prompts="tuning")[0].records()} == {20}
    with pytest.raises(MissingError, match="settings of the family static"):
        run("table-3a", world.only([]), prompts="heldout")


def test_table_6_compares_the_same_alpha_and_beta(world):
    table = run("table-6", world, metrics=[METRIC])[0]
    assert [row["regime"] for row in table.records()] == [MODERATE, "", "", EXCESSIVE]
    strong, mild = only(table, regime=EXCESSIVE), only(table, regime=MODERATE)
    assert (strong["α"], strong["β"]) == (3, 3)
    assert strong["static − vanilla"].high < 0 < strong["adaptive − vanilla"].low
    assert strong["adaptive − static"].low > 0
    assert strong["adaptive − static"].p < 0.05
    assert mild["adaptive − static"].low < 0 < mild["adaptive − static"].high
    named = run("table-6", world, metrics=[METRIC], moderate=(1.5, 3), excessive=(3, 1))[0]
    assert [row["regime"] for row in named.records()] == ["", MODERATE, EXCESSIVE, ""]
    with pytest.raises(MissingError, match=r"the excessive setting α=9 β=9 static and adaptive; there are \(1.5, 1\)"):
        run("table-6", world, excessive=(9, 9))


def test_table_6_needs_pairs():
    with pytest.raises(MissingError, match="a static and an adaptive setting with the same α and β") as raised:
        run("table-6", simulate([Knob("s", "static", 2, 1), Knob("a", "adaptive", 3, 1)]))
    assert "\n" not in str(raised.value)  # it has both families: nothing to add that is not there
    with pytest.raises(MissingError) as raised:
        run("table-6", simulate([Knob("s", "static", 2, 1)]))
    assert "settings:\n  adaptive: {alpha: [1.5, 2, 3], beta: [1, 3], adaptive: call}" in str(raised.value)
    assert "static:" not in str(raised.value)


def test_table_7_goes_from_below_one_to_above():
    world = simulate(sweep([2, 0.8, 0.5], [1], effect=lambda s: -s), prompts={"all": 60})
    full, worst = run("table-7", world, metrics=[METRIC])
    alphas = [row["α"] for row in full.records() if row["α"] is not None]
    assert alphas == [0.5, 0.8, 2]
    assert (
        only(full, setting="static α=0.5 β=1")["change"].low > 0 > only(full, setting="static α=2 β=1")["change"].high
    )
    assert [row["setting"] for row in worst.records()] == ["static α=0.5 β=1", "static α=0.8 β=1", "static α=2 β=1"]
    assert full.title == "α below and above 1, all prompts"
    assert len(run("table-7", simulate(sweep([2, 0.5], [1]), seeds={"eval": 2}))) == 1
    with pytest.raises(MissingError, match="table-7: this needs a setting with α below 1"):
        run("table-7", simulate(sweep([2], [1])))


def test_settings_that_change_along_the_way_are_shown_as_written_or_named_where_they_are_left_out():
    world = simulate([
        *sweep([0.5, 2], [1]), *sweep([0.5], [1], "adaptive"), Knob("falling", "static"), Knob("alone", "static", 3, 1),
    ], prompts={"all": 60})  # fmt: skip
    world = scheduled(world, "falling", {"start": 2.0, "stop": 1.0}, {"down": 1.0, "up": 3.0})
    row = only(run("table-3a", world, metrics=[METRIC], measures=False)[0], setting="falling")
    assert (row["α"], row["β"]) == ("2..1", "down=1,up=3")
    why = "since α or β changes along the way and is no single number: falling (α 2..1, β down=1,up=3)."
    full, *_ = run("table-7", world, metrics=[METRIC])
    assert "falling" not in {row["setting"] for row in full.records()}
    assert f"Left out, {why}" in full.notes
    pairs = run("table-6", world, metrics=[METRIC])[0]
    assert {row["α"] for row in pairs.records()} == {0.5}
    assert f"Left out, {why}" in pairs.notes
    assert "Left out, without a partner of the same α and β: static α=2 β=1, alone." in pairs.notes
    assert f"Left out of claims that go by strength, {why}" in run("claims", world)[0].notes
    plain = run("table-7", simulate(sweep([2, 0.5], [1])), metrics=[METRIC])
    assert not any("Left out" in note for table in plain for note in table.notes)


def test_table_7_as_the_paper_has_it():
    """Four settings, all below 1; on the worst by one metric, what changes in it and in the others."""
    alphas = [(0.9, 3), (0.95, 3), (0.97, 4), (0.97, 2)]
    knobs = [Knob(f"α={a:g} β={b:g}", "static", a, b, effects={METRIC: 0.5}) for a, b in alphas]
    full, worst = run("table-7", simulate(knobs, prompts={"coco": 100}))
    assert full.title == "α below 1, all prompts"
    shown = [row["setting"] for row in full.records(metric=TITLE)]
    assert shown == ["vanilla", *(knob.name for knob in knobs)]
    rows = list(worst.records(**{"chosen by": TITLE, "setting": "α=0.9 β=3"}))
    assert len(rows) == len({row["change in"] for row in rows}) == 3
    target, *others = (row["fair"] for row in rows)
    assert target.low > 0.5  # half a standard deviation of 3
    assert all(other.low < 0.2 for other in others)
    chosen = {row["chosen by"] for row in worst.records()}
    assert len(chosen) == 3


def test_figure_3_tells_how_far_the_parts_are(world):
    table = run("figure-3", world, metrics=[METRIC])[0]
    assert only(table, metric=DISTANCE, setting="sym")["mean"].value == pytest.approx(0.5)
    assert only(table, metric=DISTANCE, setting="skew")["mean"].value == pytest.approx(5)
    chance = only(table, metric=DISTANCE, setting="vanilla")["mean"]
    assert chance.value == pytest.approx(np.sqrt(2) * 2.35, abs=0.2)  # √2 times the mean length of 6 normal numbers
    assert only(table, metric=TITLE, setting="skew")["change"].high < -3
    assert DISTANCE not in {row[0] for row in run("figure-3", dataclasses.replace(world, features=None))[0].rows}
    with pytest.raises(MissingError, match="figure-3: this needs settings of the family skew-only"):
        run("figure-3", world.only(["sym"]))


def test_figure_9_matches_by_distance(world):
    table, taus = run("figure-9", world, metrics=[METRIC])
    row = only(table, circulation="static α=3 β=1")  # 0.6 away from vanilla; the temperatures are 0.4 and 1
    assert (row["temperature"], row["matched"]) == ("τ=1.2", "no")
    assert row["its strength"].value == pytest.approx(0.6)
    row = only(table, circulation="static α=1.5 β=3")  # 0.45
    assert (row["temperature"], row["matched"]) == ("τ=1.2", "yes")
    assert row["circulation − temperature"].low > 0
    assert row["circulation − temperature"].p < 0.05
    difference = row["change by circulation"].value - row["change by temperature"].value
    assert row["circulation − temperature"].value == pytest.approx(difference)
    assert "of 1 matched circulations 1 are better than temperature and 0 worse" in table.summary
    assert any(note.startswith("No temperature comes within 25%") for note in table.notes)
    assert {row["setting"] for row in taus.records()} == {"vanilla", "τ=0.5", "τ=1.2"}


def test_figure_9_says_on_how_many_prompts_each_rests():
    world = simulate([Knob("s", "static", 2, 1), Knob("t", "temperature")], prompts={"all": 30})
    gone = (world.frame["setting"] == "t") & (world.frame["prompt_id"] >= "p00020")
    frame = world.frame[~gone]
    measures = world.measures[world.measures["sample_id"].isin(frame["sample_id"])]
    table = run("figure-9", dataclasses.replace(world, frame=frame, measures=measures))[0]
    assert {(row["prompts"], row["prompts of the temperature"]) for row in table.records()} == {(30, 20)}
    assert {row["circulation − temperature"].n for row in table.records()} == {20}
    assert any(note.startswith("Where the two rest on different prompts") for note in table.notes)


def test_figure_9_without_features_is_the_sweep_alone(world):
    (table,) = run("figure-9", dataclasses.replace(world, features=None))
    assert table.name == "figure-9-sweep"
    assert "No matching by strength: the study kept no features." in table.notes
    with pytest.raises(MissingError, match="figure-9: this needs settings of the family temperature") as raised:
        run("figure-9", simulate())
    assert "temperature: {method: temperature, tau: [" in str(raised.value)
