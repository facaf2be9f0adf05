import dataclasses
from typing import Any

import numpy as np
import pytest

from evidence import Knob, Metric, simulate
from symskew.protocols import MissingError, run

METRIC = "ensemble/log-likelihood"
TITLE = "log likelihood ↑"


def only(table, **where):
    (row,) = table.records(**where)
    return row


@pytest.fixture(scope="module")
def field():
    world = simulate(
        [
            Knob("good", "static", 2, 1, effect=0.6, diversity=-0.2, passes=2),
            Knob("wide", "static", 3, 1, effect=-0.6, diversity=0.2, passes=2),
            Knob("bad", "pag", effect=-1.5, diversity=-0.4, passes=3),
            Knob("null", "null", 2, 1, effect=5),
        ],
        prompts={"all": 80},
    )
    return run("field", world)


def test_the_front_has_those_that_nobody_beats(field):
    main, _ = field
    assert [row["setting"] for row in main.records(on_the_front="yes")] == ["vanilla", "good", "wide"]
    assert only(main, setting="bad")["passes"] == 3
    assert "On the Pareto front: vanilla, good, wide." in main.summary
    assert not list(main.records(setting="null"))


def test_changes_of_both_sides_are_found(field):
    main, everything = field
    good, wide = only(main, setting="good"), only(main, setting="wide")
    assert good[f"change of {TITLE}"].low > 1
    assert good["change of features ↑"].high < -0.05
    assert good["change of features ↑"].p < 0.05
    assert wide["change of features ↑"].low > 0.05
    assert good["features ↑"].value == pytest.approx(0.32, abs=0.02)
    names = {row["metric"] for row in everything.records()}
    assert names == {TITLE, "all right ↑", "realism ↑", "features ↑"}


@pytest.mark.parametrize(("change", "verdict"), [(0.0, "kept"), (0.5, "changed"), (0.04, "open")])
def test_diversity_is_kept_changed_or_open(change, verdict):
    world = simulate([Knob("static", "static", 2, 1)], prompts={"all": 60})
    pairs = world.pairs.copy()
    vanilla = pairs.loc[pairs["setting_id"] == "vanilla", "value"].to_numpy()
    noise = 0.08 * np.tile([1, -1], 30) if verdict == "open" else 0
    pairs.loc[pairs["setting_id"] == "static", "value"] = vanilla + 0.4 * change + noise
    row = only(run("field", dataclasses.replace(world, pairs=pairs))[0], setting="static")
    assert row["diversity kept"] == verdict


def uneven(each, drop=0):
    """Diversity grows with the number of seeds, and the setting does nothing."""
    world = simulate(
        [Knob("few", "static", 1.001, 1, kept=1, each=each, drop=drop), Knob("full", "static", 2, 1, effect=-1)],
        prompts={"all": 30}, seeds={"eval": 6},
    )  # fmt: skip
    seeds: Any = world.frame.groupby(["setting_id", "prompt_id"])["seed"]
    counts = seeds.nunique().rename("count")
    pairs = world.pairs.join(counts, on=["setting_id", "prompt_id"])
    return dataclasses.replace(world, pairs=pairs.assign(value=0.4 * (pairs["count"] / 6) ** 0.5))


def test_diversity_over_other_seeds_than_vanilla_is_not_compared():
    main, everything = run("field", uneven({"all": 2}))
    few, full = only(main, setting="few"), only(main, setting="full")
    assert few["features ↑"] is few["change of features ↑"] is few["diversity kept"] is None
    assert few["on the front"] == ""
    assert few[f"change of {TITLE}"].value == pytest.approx(0)  # of the seeds that both have
    assert full["change of features ↑"].value == pytest.approx(0)
    assert "On the Pareto front: vanilla." in main.summary
    said = (
        "Other eval seeds than vanilla's: few (30 prompts): diversity is left out there, and only changes, not means, "
        "compare; run them on the same."
    )
    assert said in main.notes
    assert said in everything.notes
    assert "Not placed on the front, for want of changes in both on the same prompts: few." in main.notes
    assert not list(everything.records(setting="few", metric="features ↑"))


def test_a_sample_that_failed_takes_its_prompt_out_of_diversity_alone():
    main, _ = run("field", uneven({}, drop=1))
    few = only(main, setting="few")
    assert few["features ↑"].n == few["change of features ↑"].n == 29
    assert few["change of features ↑"].value == pytest.approx(0)
    assert few["prompts"] == 30
    assert any(note.startswith("Other eval seeds than vanilla's: few (1 prompts): ") for note in main.notes)
    assert "The front is of the 29 prompts on which all who are placed on it have both scores." in main.notes
    assert {row["setting"] for row in main.records(on_the_front="yes")} == {"vanilla", "few"}


def test_the_front_is_of_the_prompts_that_all_have():
    # On the second half of the prompts all images are better: a mean over these alone would beat everybody.
    world = simulate([Knob("late", "static", 2, 1, kept=1, effect=-0.01), Knob("good", "pag", kept=1, effect=0.5)],
                     prompts={"all": 40})  # fmt: skip
    frame = world.frame.copy()
    late = frame["prompt_id"] >= "p00020"
    frame.loc[late, METRIC] += 30
    gone = (frame["setting_id"] == "late") & ~late
    few, pairs = frame[~gone], world.pairs
    pairs = pairs[(pairs["setting_id"] != "late") | (pairs["prompt_id"] >= "p00020")]
    measures = world.measures[world.measures["sample_id"].isin(few["sample_id"])]
    main, _ = run("field", dataclasses.replace(world, frame=few, measures=measures, pairs=pairs))
    row = only(main, setting="late")
    assert row[f"{TITLE}"].value > only(main, setting="good")[f"{TITLE}"].value
    assert row["on the front"] == ""
    assert row["prompts"] == 20
    assert "The front is of the 20 prompts on which all who are placed on it have both scores." in main.notes
    assert any(note.startswith("Rows rest on different numbers of prompts") for note in main.notes)


def test_a_wider_margin_keeps_more():
    world = simulate([Knob("static", "static", 2, 1, diversity=0.1)], prompts={"all": 100})
    found = [only(run("field", world, margin=margin)[0], setting="static")["diversity kept"] for margin in (0.01, 0.3)]
    assert found == ["changed", "kept"]


def test_what_is_missing_is_said():
    with pytest.raises(MissingError, match="field: this needs settings besides vanilla"):
        run("field", simulate())
    world = simulate([Knob("static", "static", 2, 1)])
    with pytest.raises(MissingError, match="field: this needs a metric of diversity") as raised:
        run("field", dataclasses.replace(world, pairs=world.pairs[:0]))
    assert "\n  - ensemble/vendi" in str(raised.value)
    with pytest.raises(ValueError, match="no metric of samples is called 'x'; there are ensemble/log-likelihood"):
        run("field", world, fidelity="x")
    with pytest.raises(ValueError, match="no metric of diversity is called 'x'; there are diversity/features"):
        run("field", world, diversity="x")


def test_other_metrics_work_by_name():
    world = simulate(
        [Knob("s", "static", 2, 1, effect=1)], metrics=[Metric("imagereward/v1", 0.5), Metric("clip", 0.26, 0.01)]
    )
    main, everything = run("field", world)
    assert main.columns[3].name == "v1 ↑"
    assert run("field", world, fidelity="clip")[0].columns[3].name == "clip ↑"
    assert {row["metric"] for row in everything.records()} == {"v1 ↑", "clip ↑", "features ↑"}
