import dataclasses

import numpy as np
import pytest

from evidence import Knob, Metric, simulate
from symskew.protocols import MissingError, run

METRIC = "ensemble/log-likelihood"
SETS = {"tuning": 25, "heldout": 100}


def only(table, **where):
    (row,) = table.records(**where)
    return row


def test_pure_noise_is_flattered_on_tuning_prompts_and_nothing_held_out():
    tuned, held = [], []
    for seed in range(4):
        knobs = [Knob(f"s{i}", "static", 1.5 + i / 10, 1, kept=0) for i in range(12)]
        world = simulate(knobs, prompts=SETS, seeds={"eval": 2}, diagnosed=[], with_features=False, seed=seed)
        row = only(run("operating-point", world)[0])
        assert row["tried"] == 12
        tuned.append(row["change there, flattered"].value)
        held.append(row["change held out"])
    assert min(tuned) > 0
    assert np.mean(tuned) > 0.4
    assert sum(each.low <= 0 <= each.high for each in held) >= 3
    assert abs(np.mean([each.value for each in held])) < 0.25


def test_a_planted_gain_is_chosen_and_found():
    knobs = [Knob(f"s{i}", "static", 1.5 + i, 1, effect=0.4 * (i == 2)) for i in range(4)]
    knobs += [Knob(f"t{i}", "temperature", effect=-0.3) for i in range(3)]
    table = run("operating-point", simulate(knobs, prompts=SETS))[0]
    row = only(table, family="static")
    assert row["best on tuning prompts"] == "s2"
    assert row["change held out"].low > 0.7
    assert row["p"] == row["change held out"].p < 0.05
    assert row["change held out"].n == 100
    assert row["change there, flattered"].n == 25
    assert row["better"].low > 0.5
    assert row["placebo held out"].low < 0 < row["placebo held out"].high
    assert only(table, family="temperature")["change held out"].high < 0
    assert "Held out, 1 of 2 families improve log likelihood ↑" in table.summary
    assert "s2 +" in table.summary


def test_lower_is_better_chooses_the_lowest():
    knobs = [Knob("up", "static", 2, 1, effect=0.5), Knob("down", "static", 3, 1, effect=-0.5)]
    world = simulate(knobs, prompts=SETS, metrics=[Metric("errors", higher_is_better=False)])
    table = run("operating-point", world)[0]
    assert only(table)["best on tuning prompts"] == "up"
    assert only(table)["change held out"].high < 0
    assert only(table)["better"].low > 0.5
    assert "1 of 1 families improve errors ↓" in table.summary


def test_constraints_are_kept():
    knobs = [
        Knob("narrow", "static", 2, 1, effect=1.0, diversity=-0.5),
        Knob("wide", "static", 3, 1, effect=0.5, diversity=0.1),
        Knob("dear", "pag", effect=2.0, passes=3),
    ]
    world = simulate(knobs, prompts=SETS)
    assert only(run("operating-point", world)[0], family="static")["best on tuning prompts"] == "narrow"
    table = run("operating-point", world, least_diversity=0.9)[0]
    assert only(table, family="static")["best on tuning prompts"] == "wide"
    assert "diversity of at least 90% of vanilla's" in table.caption
    assert any("did not meet the constraints: static 1" in note for note in table.notes)
    assert [row["family"] for row in run("operating-point", world, most_passes=2)[0].records()] == ["static"]
    with pytest.raises(
        MissingError, match="that were run both on tuning and on heldout prompts and meet the constraints"
    ):
        run("operating-point", world, most_passes=1)


def test_the_placebo_is_of_the_prompts_of_its_row():
    world = simulate([Knob("s", "static", 2, 1, effect=1), Knob("t", "pag", effect=1)], prompts=SETS)
    frame = world.frame[(world.frame["setting"] != "s") | (world.frame["prompt_id"] < "p00085")]
    frame = frame.copy()
    # Between its seeds vanilla differs on the prompts that s was not run on, and only there.
    frame.loc[(frame["role"] == "placebo") & (frame["prompt_id"] >= "p00085"), METRIC] += 9
    measures = world.measures[world.measures["sample_id"].isin(frame["sample_id"])]
    pairs = world.pairs[(world.pairs["setting_id"] != "s") | (world.pairs["prompt_id"] < "p00085")]
    table = run("operating-point", dataclasses.replace(world, frame=frame, measures=measures, pairs=pairs))[0]
    few, all_of_them = only(table, family="static"), only(table, family="pag")
    assert few["prompts held out"] == few["placebo held out"].n == 60
    assert all_of_them["prompts held out"] == all_of_them["placebo held out"].n == 100
    assert abs(few["placebo held out"].value) < 1.5 < 3 < all_of_them["placebo held out"].value


def test_families_without_a_row_are_named():
    knobs = [Knob("s", "static", 2, 1), Knob("p", "pag", prompts=("tuning",)), Knob("k", "skew", prompts=("heldout",))]
    (note,) = [n for n in run("operating-point", simulate(knobs, prompts=SETS))[0].notes if n.startswith("Without")]
    assert note == (
        "Without a row: pag (1 tried on tuning, not run on heldout), skew (0 tried on tuning, so nothing to choose by)."
    )


def test_without_placebo_seeds_it_says_so():
    table = run("operating-point", simulate([Knob("s", "static", 2, 1)], prompts=SETS, seeds={"eval": 2}))[0]
    assert only(table)["placebo held out"] is None
    assert any(note.startswith("No placebo: ") for note in table.notes)


def test_two_sets_of_prompts_are_needed():
    with pytest.raises(
        MissingError, match=r"operating-point: this needs prompts to tune on .*; not there: tuning"
    ) as raised:
        run("operating-point", simulate([Knob("s", "static", 2, 1)]))
    assert "prompts:\n  tuning: {file: tuning.txt}" in str(raised.value)
    world = simulate([Knob("s", "static", 2, 1, prompts=("tuning",))], prompts=SETS)
    with pytest.raises(MissingError, match="settings that were run both on tuning and on heldout prompts"):
        run("operating-point", world)
