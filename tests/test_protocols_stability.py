"""Tables 1, 2 and 5: what the measures tell about fidelity and diversity."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

from evidence import Knob, simulate
from symskew.protocols import MissingError, run
from symskew.protocols.choices import MEASURED
from symskew.protocols.evidence import Reading
from symskew.protocols.selected import NAIVE
from symskew.protocols.strata import FAIR, SAME
from symskew.statistics import Estimate

METRIC = "ensemble/log-likelihood"
TITLE = "log likelihood ↑"


def only(table, **where):
    (row,) = table.records(**where)
    return row


@pytest.fixture(scope="module")
def tied():
    return simulate([Knob("static", "static", 2, 1, stability=0.5)], prompts={"all": 120}, tie=0.4, diversity_tie=0.6)


def test_table_1_finds_what_is_tied_with_the_right_signs(tied):
    over, within = run("table-1", tied)
    for table in (over, within):
        for measure, sign in (("energy", 1), ("instability", -1), ("alignment", 1), ("symmetry", 1)):
            row = only(table, metric=TITLE, measure=MEASURED[measure])
            for place in ("down", "mid", "up", "all"):
                assert sign * row[place].value > 0.1
                assert row[place].p < 0.05
    # The prompt's ease is in both sides of one and in neither of the other.
    row = only(over, metric="features ↑", measure="alignment")
    assert row["all"].high < 0
    assert row["all"].n == 120
    assert "features ↑" not in {row[0] for row in within.rows}
    values, prompts = tied.scores(METRIC, "vanilla", None)
    alignment, _ = tied.scores(Reading("alignment", "up"), "vanilla", None)
    found = only(over, metric=TITLE, measure="alignment")["up"]
    assert found.value == pytest.approx(spearmanr(values, alignment)[0])
    assert (found.n, found.samples) == (len(np.unique(prompts)), len(values))


def test_table_1_finds_nothing_where_nothing_is():
    over, within = run("table-1", simulate(prompts={"all": 80}))
    cells = [cell for table in (over, within) for row in table.rows for cell in row if isinstance(cell, Estimate)]
    assert len(cells) == 4 * 4 * (4 + 3)
    assert not any(cell.p is None or cell.p < 0.05 for cell in cells)
    assert "0 of 64 correlations differ from 0" in over.summary


def test_within_prompts_the_difficulty_is_out():
    # Alignment follows the prompt's ease and nothing else.
    world = simulate(prompts={"all": 150}, reliability=0.5)
    ease = world.frame.groupby("prompt_id")[METRIC].transform("mean")
    noise = np.random.default_rng(0).normal(size=len(ease))
    shifted = dict(zip(world.frame["sample_id"], ease + noise, strict=True))
    measures = world.measures.assign(alignment=world.measures["sample_id"].map(shifted))
    over, within = run("table-1", dataclasses.replace(world, measures=measures), metrics=[METRIC])
    assert only(over, metric=TITLE, measure="alignment")["all"].low > 0.4
    assert abs(only(within, metric=TITLE, measure="alignment")["all"].value) < 0.1


def test_table_1_takes_a_branch(tied):
    both, one = (run("table-1", tied, metrics=[METRIC], branch=branch)[0] for branch in ("both", "conditional"))
    # Two noisy looks are better than one.
    assert (
        only(both, metric=TITLE, measure="alignment")["all"].value
        > only(one, metric=TITLE, measure="alignment")["all"].value
    )
    with pytest.raises(ValueError, match="table-1: branch must be conditional, unconditional or both, got 'left'"):
        run("table-1", tied, branch="left")


def test_table_2_by_other_seeds_and_by_themselves(tied):
    table = run("table-2", tied)[0]
    for way in (FAIR, SAME):
        row = only(table, metric=TITLE, chosen=way)
        assert row["highest − lowest"].low > 0
        assert row["highest − lowest"].p < 0.05
        assert row["highest 20%"].value > row["all"].value > row["lowest 20%"].value
        assert row["highest − lowest"].value == pytest.approx(row["highest 20%"].value - row["lowest 20%"].value)
    assert only(table, metric=TITLE, chosen=SAME)["all"].samples == 1200
    assert only(table, metric=TITLE, chosen=FAIR)["all"].samples == 480
    assert only(table, metric=TITLE, chosen=FAIR)["lowest 20%"].n == 24
    assert only(table, metric="features ↑", chosen=FAIR)["highest − lowest"].high < 0
    own = only(table, metric="alignment", chosen=SAME)["highest − lowest"]
    assert own.low > 0


def test_table_2_without_a_tie_finds_nothing():
    table = run("table-2", simulate(prompts={"all": 100}))[0]
    assert all(row["highest − lowest"].p > 0.05 for row in table.records() if row["metric"] != "alignment")
    with pytest.raises(ValueError, match=r"table-2: share must be above 0 and at most 0.5, got 0.7"):
        run("table-2", simulate(prompts={"all": 10}), share=0.7)


def test_table_2_without_selection_seeds_says_so():
    table = run("table-2", simulate(seeds={"eval": 4}, tie=0.4))[0]
    assert {row["chosen"] for row in table.records()} == {SAME}
    assert any("no vanilla sample with a selection seed was diagnosed" in note for note in table.notes)


def test_table_5_finds_low_symmetry_and_its_rise(tied):
    table = run("table-5", tied)[0]
    for way in (FAIR, NAIVE):
        assert only(table, chosen=way, regime="lowest − highest")["η vanilla"].high < 0
        lowest = only(table, chosen=way, regime="lowest")
        assert lowest["change of η"].value == pytest.approx(0.005, abs=0.002)
        assert lowest["change of η"].p < 0.05
        assert lowest["η controlled"].value - lowest["η vanilla"].value == pytest.approx(lowest["change of η"].value)
        means = [only(table, chosen=way, regime=regime)["vanilla"].value for regime in ("lowest", "middle", "highest")]
        assert means == sorted(means)
    fair, naive = (only(table, chosen=way, regime="lowest") for way in (FAIR, NAIVE))
    assert fair["change"].low < 0 < fair["change"].high
    assert naive["change"].low > 0
    assert naive["change"].p is None  # no p makes a biased change a finding
    assert naive["placebo"].low > naive["change"].value
    assert {row["control"] for row in table.records()} == {"static"}


def test_table_5_has_every_control_that_was_diagnosed_or_the_one_that_is_named():
    knobs = [Knob("strong", "static", 3, 3), Knob("mild", "static", 1.5, 1), Knob("other", "adaptive", 1.5, 1)]
    world = simulate(knobs, prompts={"all": 40})
    assert [row["control"] for row in run("table-5", world)[0].records()] == ["strong"] * 8 + ["mild"] * 8
    assert {row["control"] for row in run("table-5", world, setting="other")[0].records()} == {"other"}


@pytest.mark.parametrize("name", ["table-1", "table-2"])
def test_undiagnosed_vanilla_samples_are_named_with_the_lines_to_add(name):
    with pytest.raises(MissingError, match=f"{name}: this needs diagnosed vanilla samples") as raised:
        run(name, simulate(diagnosed=[]))
    assert "runs:\n  - {prompts: all, seeds: [" in str(raised.value)
    assert "settings: [vanilla], diagnose: true}" in str(raised.value)


def test_undiagnosed_control_is_named():
    world = simulate([Knob("static", "static", 2, 1)], diagnosed=["vanilla"])
    with pytest.raises(
        MissingError, match="table-5: this needs vanilla and controlled samples that were diagnosed"
    ) as raised:
        run("table-5", world)
    assert "settings: [vanilla, static], diagnose: true}" in str(raised.value)
