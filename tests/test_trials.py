"""The trials' statistics on made-up samples whose truth is known, and the whole command on a few images."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from symskew.ensemble import path
from symskew.ensemble.prompts import make_prompts
from symskew.trials import collect
from symskew.trials.__main__ import app
from symskew.trials.collect import MEASURES, STATES, Sample, over_prompts
from symskew.trials.gating import change, split, thresholds
from symskew.trials.screening import PAPER, Rule, choose, correlations, outcome, rank_correlation

STAGES = ("down", "mid", "up")
PLANTED = Rule("value", "instability", "up", 6, 9, "conditional", -1)


def samples(count=12, seeds=40, planted=1.0, seed=0):
    """Samples whose planted rule goes with the log-likelihood as strongly as asked; all else is noise."""
    rng = np.random.default_rng(seed)
    made = []
    for prompt in make_prompts(count, seed=seed, objects=(2, 3)):
        likelihood = rng.normal(size=seeds)
        measures = rng.normal(size=(seeds, 2, 30, 3, 2, 4)).astype(np.float32)
        place = (slice(None), STATES.index("value"), slice(6, 9), 2, 1, MEASURES.index("instability"))
        measures[place] = (-planted * likelihood + rng.normal(size=seeds))[:, None]
        right = likelihood > 0
        made.append(Sample(prompt, np.arange(seeds), right, right / 1, likelihood,
                           rng.normal(size=(seeds, 8)), measures, 1.0, STAGES))  # fmt: skip
    return made


def test_rank_correlation():
    a = np.array([0.1, 0.2, 5.0, 7.0])
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, np.ones(4)) == 0
    # By hand: ranks 1 2½ 2½ 4 against 1 2 3 4.
    assert rank_correlation(np.array([0, 1, 1, 2]), np.arange(4)) == pytest.approx(4.5 / np.sqrt(4.5 * 5))


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    found = [over_prompts(rng.normal(size=30)) for _ in range(300)]
    assert 0.88 < np.mean([each.low < 0 < each.high for each in found]) < 0.99
    assert over_prompts(np.array([1.0, 1.0])).text(".1%", sign=True) == "+100.0% (+100.0% to +100.0%)"


def test_the_planted_rule_is_found_and_pays():
    best = choose(samples(seed=1), 9)
    assert (best.measure, best.states, best.sign) == ("instability", "value", -1)
    found = outcome(PLANTED, samples(seed=2), 8)
    assert found.correlation.low > 0.5
    assert found.right_gain.low > 0.2
    assert found.right_random.value == pytest.approx(0.5, abs=0.1)


def test_a_rule_chosen_from_noise_is_flattered_where_it_was_chosen_and_not_elsewhere():
    first, second = samples(planted=0, seed=3), samples(planted=0, seed=4)
    best = choose(first, 9)
    assert over_prompts(correlations(best, first)).low > 0
    for rule in (best, PAPER):
        found = outcome(rule, second, 8)
        assert found.right_gain.low < 0.05
        assert found.right_gain.high > -0.05
        assert found.diversity_ratio.value == pytest.approx(1, abs=0.1)


def test_hard_and_easy_prompts_and_changes_against_vanilla():
    some = [sample._replace(likelihood=sample.likelihood + n) for n, sample in enumerate(samples(9))]
    hard, easy = split(some, 1 / 3)
    assert set(hard) == {0, 1, 2}
    assert set(easy) == {6, 7, 8}
    better = [sample._replace(likelihood=sample.likelihood + 0.5) for sample in some]
    found = change(better, some, hard)
    assert found.likelihood_change.value == pytest.approx(0.5)
    assert found.right_change.value == 0


def test_thresholds_are_quantiles_of_each_layer():
    gate = thresholds(samples(), ["a", "b", "c"], 0.3)
    assert list(gate) == ["a", "b", "c"]
    assert all(value == pytest.approx(-0.524, abs=0.05) for value in gate.values())  # the normal's 30% quantile


def test_the_command_is_resumed_and_writes_its_page(tmp_path, monkeypatch):
    folder = shutil.copytree(path("ensemble-sdxl"), tmp_path / "model")
    (folder / "symskew.json").write_text(json.dumps({"defaults": {"steps": 10, "guidance": 5.0}}))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- trials: begin -->\nold\n<!-- trials: end -->\nafter\n")
    numbers = {"--prompts": 5, "--chosen-on": 2, "--seeds": 3, "--keep": 2, "--gating-seeds": 1, "--batch": 3}
    arguments = ["--model", str(folder), "--out", str(tmp_path / "out"), "--write", str(page)]
    arguments += [str(part) for pair in numbers.items() for part in pair]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "another seed (placebo)" in text
    monkeypatch.setattr(collect, "_generate", None)  # nothing is made again
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert page.read_text() == text
