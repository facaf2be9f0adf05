"""Plans: the same for the same study, every sample once, and what is left is what is not there."""

import pyarrow
import pytest

from symskew.study.plan import Unit, plan, remaining, sample_id, unit_id
from symskew.study.store import Store
from tinystudy import tiny_study

DESCRIPTIONS = {
    name: (f"id-{name}", {"circulation": name}) for name in ("vanilla", "static alpha=1.5", "static alpha=3")
}


def units(**changes):
    return list(plan(tiny_study("model", **changes), DESCRIPTIONS))


def keys(some):
    return [(unit.setting.name, sample.prompt, sample.seed) for unit in some for sample in unit.samples]


def commit(store, table, unit):
    rows = pyarrow.table({"sample_id": [sample.id for sample in unit.samples]})
    store.commit(rows, table, unit.setting_id, unit.id)


def test_every_sample_is_planned_once():
    found = keys(units())
    assert len(found) == len(set(found)) == 5 * 4 + 3 * 2 * 2 + 2 * 1 * 2
    assert max(len(unit.samples) for unit in units()) == 3


def test_a_plan_is_the_same_each_time_and_ids_are_of_all_that_changes_the_image():
    assert [unit.id for unit in units()] == [unit.id for unit in units()]
    ids = {sample.id for unit in units() for sample in unit.samples}
    assert len(ids) == len(keys(units()))
    unit = units()[0]
    assert unit.samples[0].id == sample_id({"circulation": "vanilla"}, unit.samples[0].prompt, unit.samples[0].seed)
    assert unit.id == unit_id([sample.id for sample in unit.samples])


def test_overlapping_runs_do_not_make_samples_twice_and_diagnose_what_any_of_them_asks_for():
    runs = [
        {"prompts": "held-out", "seeds": "eval", "settings": "vanilla", "limit": 2},
        {"prompts": "held-out", "seeds": "eval", "settings": "vanilla", "diagnose": {"features": 4}, "limit": 1},
        {"prompts": "held-out", "settings": "vanilla"},
    ]
    found = units(runs=runs)
    assert len(keys(found)) == len(set(keys(found))) == 12
    measured = [sample.seed for unit in found if unit.diagnose for sample in unit.samples]
    assert measured == [1, 2]


def test_what_is_compared_is_generated_together():
    order = [unit.setting.name for unit in units(runs=[{"prompts": "held-out", "seeds": "eval"}])]
    assert order == [*DESCRIPTIONS, *DESCRIPTIONS]


def test_nothing_is_left_of_what_is_there(tmp_path):
    store, planned = Store(tmp_path), units()
    assert remaining(planned, store) == planned
    for unit in planned[:4]:
        commit(store, "samples", unit)
    assert remaining(planned, store) == planned[4:]


def test_a_study_that_grows_makes_what_is_new(tmp_path):
    store = Store(tmp_path)
    for unit in units():
        commit(store, "samples", unit)
        if unit.diagnose:
            commit(store, "measures", unit)
    more_seeds = remaining(units(seeds={"select": "0", "eval": "1-2", "placebo": "3-4"}), store)
    assert {(setting, seed) for setting, _, seed in keys(more_seeds)} == {("vanilla", 4)}
    prompts = {"tuning": ["a red three", "a blue seven", "a green one"], "held-out": ["a cyan two"]}
    assert {prompt for _, prompt, _ in keys(remaining(units(prompts=prompts), store))} == {"a green one", "a cyan two"}
    assert remaining(units(chunk=2), store) == []


def test_what_is_there_but_not_measured_is_measured_only(tmp_path):
    store, planned = Store(tmp_path), units()
    for unit in planned:
        commit(store, "samples", unit)
    left = remaining(planned, store)
    assert left == [Unit(u.setting_id, u.setting, u.samples, u.diagnose, frozenset(s.id for s in u.samples))
                    for u in planned if u.diagnose]  # fmt: skip


def test_what_was_given_up_is_not_tried_again(tmp_path):
    planned = units()
    lost = planned[0].samples[1].id
    left = remaining(planned, Store(tmp_path), given_up={lost})
    assert len(keys(left)) == len(keys(planned)) - 1
    assert lost not in {sample.id for unit in left for sample in unit.samples}


def test_planning_ten_thousand_finished_samples_reads_no_file(tmp_path, monkeypatch):
    texts = {"many": [f"prompt {number}" for number in range(2500)]}
    runs = [{"settings": "vanilla"}]
    planned = units(prompts=texts, runs=runs, chunk=32)
    assert sum(len(unit.samples) for unit in planned) == 10_000
    store = Store(tmp_path)
    for unit in planned:
        path = store.path("samples", unit.setting_id, unit.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr(Store, "read", lambda *_: pytest.fail("a file was read"))
    assert remaining(planned, store) == []
