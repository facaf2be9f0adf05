"""A study that tunes a sweep on some prompts and reports a few settings on others, as the shipped one does."""

import dataclasses

import pytest

from evidence import VANILLA, Knob, simulate, sweep
from symskew.protocols import MissingError, protocols, run
from symskew.protocols.scopes import scopes

EACH = {"tuning": 2}
CHOSEN = ("static α=1.5 β=3", "static α=3 β=3", "adaptive α=1.5 β=3")


@pytest.fixture(scope="module")
def study():
    knobs = [
        dataclasses.replace(knob, each=EACH, prompts=None if knob.name in CHOSEN else ("tuning",))
        for knob in (*sweep([0.5, 1.5, 3], [1, 3]), *sweep([1.5, 3], [3], "adaptive"))
    ]
    tuned = {"prompts": ("tuning",), "each": EACH}
    knobs += [Knob(f"τ={tau}", "temperature", strength=tau, **tuned) for tau in (0.5, 1.5)]
    knobs += [Knob("sym", "sym-only", **tuned), Knob("skew", "skew-only", **tuned)]
    knobs += [Knob("null", "null", 1.5, 3, prompts=("heldout",)), Knob("pag", "pag", each=EACH, passes=3)]
    return simulate(knobs, vanilla=dataclasses.replace(VANILLA, each=EACH), prompts={"tuning": 20, "heldout": 50})


def test_groups_of_prompts_by_what_was_run_on_them(study):
    tuned, held = scopes(study, "static")
    assert (tuned.evidence.prompt_sets, len(tuned.settings)) == (["tuning"], 6)
    assert (held.evidence.prompt_sets, len(held.settings)) == (["heldout"], 2)
    assert [scope.evidence.prompt_sets for scope in scopes(study, "static", largest=True)] == [["heldout"], ["tuning"]]
    (only,) = scopes(study, "static", ("select", "eval", "placebo"))
    assert only.evidence.prompt_sets == ["heldout"]
    (both,) = scopes(study.only([study.named("static α=1.5 β=3")]), "static")
    assert both.evidence.prompt_sets == ["tuning", "heldout"]
    with pytest.raises(MissingError, match="vanilla samples with seeds of the role placebo"):
        scopes(study.on("tuning"), "static", ("eval", "placebo"))
    with pytest.raises(MissingError, match="settings of the family null on the prompts of vanilla, tuning"):
        scopes(dataclasses.replace(study, frame=study.frame.query("family != 'vanilla' or prompts == 'tuning'"),
                                   measures=study.measures[:0]), "null")  # fmt: skip


def test_a_plan_that_differs_between_families_has_no_gaps(study):
    assert study.gaps() == []


@pytest.mark.parametrize(("name", "tables"), [
    ("table-1", ["table-1", "table-1-within", "table-1-tuning", "table-1-within-tuning"]),
    ("table-2", ["table-2", "table-2-tuning"]),
    ("table-3a", ["table-3a", "table-3a-heldout"]),
    ("table-3b", ["table-3b"]),
    ("table-4", ["table-4"]),
    ("quantiles", ["quantiles"]),
    ("table-5", ["table-5", "table-5-tuning"]),
    ("table-6", ["table-6", "table-6-heldout"]),
    ("table-7", ["table-7"]),
    ("figure-3", ["figure-3"]),
    ("figure-9", ["figure-9", "figure-9-sweep"]),
    ("field", ["field", "field-metrics", "field-heldout", "field-metrics-heldout"]),
    ("operating-point", ["operating-point"]),
    ("claims", ["claims"]),
])  # fmt: skip
def test_each_table_is_made_where_it_can_be(study, name, tables):
    made = run(name, study)
    assert [table.name for table in made] == tables
    assert len({table.title for table in made}) == len(made)
    assert name in protocols()


def test_the_prompts_are_told(study):
    tuned, held = run("table-3a", study, metrics=["ensemble/realism"])
    assert tuned.title.endswith(" (prompts: tuning)")
    assert "Prompts: heldout (50)." in held.notes
    assert {row["prompts"] for row in held.records()} == {50}
    assert next(held.records(setting="static α=3 β=3"))["mean"].samples == 200
    assert next(tuned.records(setting="static α=3 β=3"))["mean"].samples == 40


def test_worst_prompts_are_the_held_out_ones_with_their_null(study):
    (table,) = run("table-3b", study, metrics=["ensemble/realism"])
    assert [row["setting"] for row in table.records()] == list(CHOSEN[:2])
    assert [row["null"] is not None for row in table.records()] == [True, False]


def test_the_operating_point_is_of_what_was_run_on_both(study):
    (table,) = run("operating-point", study)
    row = next(table.records(family="static"))
    assert row["tried"] == 6
    assert row["best on tuning prompts"] in CHOSEN
    tuned = {
        r["setting"]: r["change"].value
        for r in run("table-3a", study)[0].records(metric="log likelihood ↑")
        if r["change"]
    }
    best = max(tuned, key=lambda name: tuned[name])
    missed = [note for note in table.notes if note.startswith("Better on the tuning prompts, but not run")]
    assert bool(missed) == (best not in CHOSEN)
    assert {row["family"] for row in table.records()} == {"static", "adaptive", "pag"}


def test_names_of_prompts_are_made_fit_for_files():
    knobs = [Knob("a", "static", 2, 1, prompts=("x",)), Knob("b", "static", 3, 1)]
    world = simulate(knobs, prompts={"x": 12, "../etc/p w": 12})
    assert [table.name for table in run("table-3a", world)] == ["table-3a", "table-3a--etc-p-w"]
