import dataclasses

import numpy as np
import pandas as pd
import pytest

import evidence as simulated
from evidence import Knob, simulate
from symskew.protocols import Evidence, MissingError
from symskew.protocols.evidence import Reading
from symskew.statistics import reliability


@pytest.fixture(scope="module")
def world():
    return simulate([Knob("a", "static", 2, 1, drop=7), Knob("b", "static", 3, 1, prompts=("tuning",))],
                    prompts={"tuning": 10, "heldout": 12})  # fmt: skip


def changed(world, table, **columns):
    return dataclasses.replace(world, **{table: getattr(world, table).assign(**columns)})


def test_the_simulated_world_is_as_it_was_asked_for():
    world = simulate([Knob("shifted", "static", effect=0.5, kept=0.9)], prompts={"all": 1500}, reliability=0.4, tie=0.3)
    metric = "ensemble/log-likelihood"
    values, prompts = world.scores(metric, "vanilla", None)
    assert reliability(values, prompts, draws=10).value == pytest.approx(0.4, abs=0.03)
    assert values.std() == pytest.approx(3, abs=0.1)
    pair = world.paired(metric, "shifted")
    assert (pair.treated - pair.baseline).mean() == pytest.approx(1.5, abs=0.05)
    assert np.corrcoef(pair.treated, pair.baseline)[0, 1] == pytest.approx(0.4 + 0.6 * 0.9**0.5, abs=0.02)
    alignment, _ = world.scores(Reading("alignment", "mid", "conditional"), "vanilla", None)
    assert np.corrcoef(alignment, values)[0, 1] == pytest.approx(0.3 * 0.7**0.5, abs=0.03)
    rows, _ = world.matched("shifted", "vanilla")
    apart = np.subtract(*(world.embedded(each)["features"] for each in rows))
    assert np.linalg.norm(apart, axis=1) == pytest.approx(0.5)


def test_samples_are_joined_by_prompt_and_seed_whatever_their_order(world):
    shuffled = dataclasses.replace(
        world, frame=world.frame.sample(frac=1, random_state=0), measures=world.measures.sample(frac=1, random_state=1)
    )
    for metric in ("ensemble/realism", Reading("energy")):
        frames = []
        for each in (world, shuffled):
            rows, _ = each.matched("a", "vanilla")
            values = each.values(metric)
            keys, changes = each.frame["sample_id"].to_numpy()[rows[0]], values[rows[0]] - values[rows[1]]
            frames.append(dict(zip(keys, changes, strict=True)))
        assert frames[0] == pytest.approx(frames[1])
        assert len(frames[0]) == 22 * 4 - 7


def test_a_pair_leaves_out_what_has_no_partner_or_no_score(world):
    pair = world.paired("ensemble/realism", "a")
    assert len(pair.treated) == len(pair.baseline) == len(pair.prompts) == 81
    assert pair.dropped == (0, 7)
    scores = world.frame["ensemble/realism"].copy()
    scores[world.frame.index[world.frame["setting"] == "a"][:5]] = np.nan
    assert len(changed(world, "frame", **{"ensemble/realism": scores}).paired("ensemble/realism", "a").treated) == 76


def test_readings_are_means_over_stages_and_branches(world):
    found = world.values(Reading("alignment"))
    means = world.measures.groupby("sample_id")["alignment"].mean()
    assert found == pytest.approx(means.reindex(world.frame["sample_id"]).to_numpy())
    some = world.measures.query("stage == 'up' and branch == 'conditional'").set_index("sample_id")["energy"]
    assert world.values(Reading("energy", "up", "conditional")) == pytest.approx(
        some.reindex(world.frame["sample_id"]).to_numpy()
    )


def test_gaps_are_told_by_arm(world):
    gaps = world.gaps()
    assert any(gap.startswith("a, ") and "samples missing" in gap for gap in gaps)
    assert sum(int(gap.split(": ")[1].split()[0]) for gap in gaps) == 7
    assert world.gaps(["b"]) == []


def test_sets_of_prompts_and_settings_are_taken_apart(world):
    tuning = world.on("tuning")
    assert set(tuning.frame["prompts"]) == {"tuning"}
    assert len(tuning.measures) == 6 * len(tuning.frame)
    assert world.on(None) is world is world.on(["heldout", "tuning"])
    assert world.on("tuning") is tuning
    assert set(world.only(["a"]).frame["setting"]) == {"vanilla", "a"}
    with pytest.raises(ValueError, match="no set of prompts 'held'; there are tuning, heldout"):
        world.on("held")


def test_settings_are_known_by_id_and_by_name():
    world = simulate([Knob("static α=2", "static", 2, 1)], prompts={"all": 3})
    assert world.named("static α=2") == world.named("static-α=2") == "static-α=2"
    assert world.label("static-α=2") == "static α=2"
    with pytest.raises(ValueError, match="no setting is called 'static α=3'; there are vanilla, static α=2"):
        world.named("static α=3")


def test_there_must_be_one_vanilla_setting(world):
    without = changed(world, "settings", family="static")
    with pytest.raises(MissingError, match="exactly one setting of the family vanilla, but there is none"):
        assert without.vanilla


def test_diversity_is_by_prompt(world):
    found = world.diversity("diversity/features", "vanilla")
    assert len(found) == 22
    assert set(world.frame["prompt_id"]) == set(found)
    assert world.diversity("diversity/features", "nothing") == {}


@pytest.mark.parametrize(
    ("table", "columns", "message"),
    [
        ("frame", {"role": "training"}, "frame has the role training, where select, eval, placebo are known"),
        ("measures", {"stage": "top"}, "measures has the stage top, where down, mid, up are known"),
        ("frame", {"sample_id": "same"}, "frame has 340 rows whose sample_id occurred before, first same"),
        ("frame", {"setting_id": "lost"}, "frame has .* rows whose setting_id, prompt_id, seed occurred before"),
        ("pairs", {"metric": "lost"}, "pairs has .* rows whose setting_id, prompt_id, metric"),
        ("frame", {"ensemble/realism": np.inf}, "ensemble/realism is infinite for 341 samples"),
        ("metrics", {"kind": "strange"}, "metrics has the kind strange, where sample, pair, set are known"),
    ],
)  # fmt: skip
def test_frames_that_break_the_contract_are_refused(world, table, columns, message):
    if table == "pairs":
        columns = {"metric": "lost", "prompt_id": "p00000"}
    with pytest.raises(ValueError, match=message):
        changed(world, table, **columns)


def test_unknown_ids_are_refused(world):
    with pytest.raises(ValueError, match="frame has the setting_id b, vanilla, that settings does not have"):
        dataclasses.replace(world, settings=world.settings[world.settings["setting"] == "a"])
    with pytest.raises(ValueError, match=r"measures has the sample_id .* …, that frame does not have"):
        dataclasses.replace(world, frame=world.frame[world.frame["setting"] == "vanilla"])


def test_roles_and_sets_do_not_overlap(world):
    frame = world.frame.copy()
    frame.loc[frame["setting"] == "a", "role"] = "select"
    with pytest.raises(ValueError, match=r"more than one role for prompts tuning, seed \d+; they must not overlap"):
        dataclasses.replace(world, frame=frame)
    frame = world.frame.copy()
    frame.loc[frame["setting"] == "a", "prompts"] = "tuning"
    with pytest.raises(ValueError, match="more than one set of prompts for prompt_id p000"):
        dataclasses.replace(world, frame=frame)


def test_missing_columns_and_empty_frames_are_refused(world):
    with pytest.raises(
        ValueError, match="settings needs the columns alpha, passes; it has setting_id, setting, family, beta"
    ):
        dataclasses.replace(world, settings=world.settings.drop(columns=["alpha", "passes"]))
    with pytest.raises(ValueError, match="frame has no samples; none were generated yet, or all of them failed"):
        dataclasses.replace(world, frame=world.frame[:0], measures=world.measures[:0], pairs=world.pairs[:0])
    with pytest.raises(ValueError, match="measures needs the columns sample_id, stage"):
        dataclasses.replace(world, measures=pd.DataFrame())


def test_features_must_be_there_and_fit(world):
    with pytest.raises(MissingError, match="features of the images, which were not kept"):
        dataclasses.replace(world, features=None).embedded(np.arange(3))
    with pytest.raises(ValueError, match="features gave 1 rows of features for 3 samples"):
        dataclasses.replace(world, features=lambda ids, _: {"features": np.zeros((1, 2))}).embedded(np.arange(3))


def test_a_study_without_measures_is_evidence_too():
    world = simulate(prompts={"all": 3}, diagnosed=[], with_features=False)
    assert isinstance(world, Evidence)
    assert np.isnan(world.values(Reading("alignment"))).all()
    assert simulated.VANILLA.name == "vanilla"
