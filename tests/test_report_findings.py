"""What the charts show is what the tables and the statistics say, of the samples that it should be of."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import evidence as simulated
import reports
from symskew.protocols import compare
from symskew.report.findings import correlations, quantiles, settings_by_metric

SCORE, SPREAD = "ensemble/log-likelihood", "diversity/features"


@pytest.fixture(scope="module")
def study():
    return reports.small()


def test_means_and_changes_are_those_of_the_tables(study):
    found = settings_by_metric(study)
    assert list(found) == ["heldout", "tuning"]  # all settings were run on the first
    some = study.on("heldout")
    for setting in study.settings["setting_id"]:
        cell = found["heldout"][setting][SCORE]
        mean = compare.mean(some, SCORE, setting)
        assert mean
        assert cell["value"] == [*(pytest.approx(v, rel=1e-5) for v in (mean.value, mean.low, mean.high)), 14]
        if setting != "vanilla":
            change, spread = (
                f(some, m, setting) for f, m in ((compare.change, SCORE), (compare.spread_change, SPREAD))
            )
            assert change
            assert spread
            assert cell["change"][0] == pytest.approx(change.estimate.value, rel=1e-5)
            assert found["heldout"][setting][SPREAD]["change"][2] == pytest.approx(spread.estimate.high, rel=1e-5)
    assert "change" not in found["heldout"]["vanilla"][SCORE]
    assert set(found["tuning"]) == {"vanilla", "adaptive-α=2-β=1"}


def spearman(x, y):
    return np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1]


def test_correlations_are_spearmans_over_vanilla_samples(study):
    found = correlations(study)
    frame = study.frame[study.frame["family"] == "vanilla"].set_index("sample_id")
    part = study.measures.set_index("sample_id").loc[frame.index]
    part = part[(part["stage"] == "mid") & (part["branch"] == "unconditional")]
    wanted = spearman(part["alignment"], frame.loc[part.index, SCORE])
    value, low, high, prompts = found["unconditional"]["mid"]["alignment"][SCORE]
    assert value == pytest.approx(wanted, abs=1e-5)
    assert low < value < high
    assert prompts == 20
    some = frame[frame["role"] == "eval"]
    means = part.loc[some.index].groupby(some["prompt_id"])["alignment"].mean()
    spread = study.diversity(SPREAD, "vanilla")
    wanted = spearman(means, [spread[prompt] for prompt in means.index])
    assert found["unconditional"]["mid"]["alignment"][SPREAD][0] == pytest.approx(wanted, abs=1e-5)


def test_a_placebo_rebounds_where_the_images_themselves_were_chosen_and_not_where_seeds_were_split():
    found = quantiles(simulated.simulate([simulated.Knob("static", "static", 2, 1)], prompts={"heldout": 400}, seed=1))
    bins = found["heldout"][SCORE]["static"]
    assert [one["number"] for one in bins] == list(range(5))
    assert all(one["high"] <= other["low"] for one, other in itertools.pairwise(bins))
    assert bins[0]["naive_placebo"][1] > 1
    assert bins[-1]["naive_placebo"][2] < -1
    assert all(abs(one["fair_placebo"][0]) < 0.7 for one in bins)


def test_what_there_is_too_little_of_is_left_out(study):
    assert quantiles(simulated.simulate([simulated.Knob("a", "static")], seeds={"eval": 2})) == {}
    assert quantiles(study.on("tuning")) == {}  # six prompts are too few for five bins
    bare = replace(study, measures=study.measures.head(0))
    assert correlations(bare) == {}
    level = study.measures.assign(energy=1.0)
    lines = correlations(replace(study, measures=level))["conditional"]["up"]
    assert set(lines) == {"instability", "alignment", "symmetry"}
    others = study.frame[study.frame["family"] != "vanilla"]
    nothing = replace(
        study, frame=others, measures=study.measures[study.measures["sample_id"].isin(others["sample_id"])]
    )
    assert correlations(nothing) == quantiles(nothing) == {}
    assert all(
        "change" not in cell for cells in settings_by_metric(nothing)["heldout"].values() for cell in cells.values()
    )
    alone = study.frame.assign(**{SCORE: np.nan})
    assert SCORE not in settings_by_metric(replace(study, frame=alone))["heldout"]["vanilla"]
