import dataclasses

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
