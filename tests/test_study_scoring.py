"""What cannot be scored: known before anything is generated, or given up sample by sample, and nothing else with it."""

import json
import shutil
from dataclasses import replace

import pytest
import yaml

from symskew.cli.app import run
from symskew.metrics.correctness import VerdictMetric
from symskew.metrics.judging import EnsembleJudge
from symskew.study import Study, run_study
from symskew.study.engine import Here, WorkerDiedError
from symskew.study.export import export_dataset
from symskew.study.frames import Results
from symskew.study.scoring import Score
from symskew.study.verify import verify
from tinystudy import ONE, tiny_model

PROMPTS = ["a red three", "a blue seven", "a green one", "a yellow two"]
LOST = "a green one"
METRICS = ["ensemble/all-right", "ensemble/log-likelihood"]
AGAIN = replace(ONE, retry=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def images(model, tmp_path_factory):
    """A study's folder with images and no scores."""
    folder = tmp_path_factory.mktemp("run") / "images"
    run_study(study(model, []), folder, ONE)
    return folder


@pytest.fixture
def folder(images, tmp_path):
    return shutil.copytree(images, tmp_path / "run")


@pytest.fixture
def broken(monkeypatch):
    """The metrics of verdicts cannot score one of the prompts, until this is undone."""
    plain = VerdictMetric.score

    def score(self, features, prompts):
        if LOST in prompts:
            raise RuntimeError("cannot score this")
        return plain(self, features, prompts)

    monkeypatch.setattr(VerdictMetric, "score", score)
    return monkeypatch


def study(model, metrics=METRICS, **changes):
    written = {"model": str(model), "chunk": 4, "prompts": {"mine": PROMPTS}, "seeds": {"eval": 0}}
    return Study.of(written | {"settings": {"vanilla": {}}, "metrics": metrics} | changes)


def scored(folder):
    return set(Results.of(folder).frame.dropna()["prompt"])


def test_one_sample_that_cannot_be_scored_costs_no_other_its_scores(model, folder, broken, capfd):
    ledger = run_study(study(model), folder, ONE)
    assert (ledger.there, ledger.scored, ledger.given_up) == (4, 3, 1)
    assert scored(folder) == set(PROMPTS) - {LOST}
    assert run(["study", "status", str(folder), "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    [row] = said["settings"]
    assert (row["generated"], row["scored"], row["given up"]) == (4, 3, 1)
    [(key, reason)] = said["failures"].items()
    assert reason == "not scored by ensemble/all-right and 1 more: RuntimeError: cannot score this"
    assert key not in set(Results.of(folder).frame["sample_id"])
    assert verify(folder).sound
    export_dataset(Results.of(folder), folder.with_name("dataset"))
    assert "1 more could not be made or scored." in folder.with_name("dataset").joinpath("README.md").read_text()


def test_what_was_given_up_is_tried_again_when_that_is_asked_for(model, folder, broken):
    run_study(study(model), folder, ONE)
    broken.setattr(Score, "run", lambda *_, **__: pytest.fail("it is scored again"))
    ledger = run_study(study(model), folder, ONE)
    assert (ledger.scored, ledger.given_up, ledger.failures) == (0, 1, [])
    broken.undo()
    ledger = run_study(study(model), folder, AGAIN)
    assert (ledger.given_up, ledger.failures) == (0, [])
    assert scored(folder) == set(PROMPTS)
    assert len(Results.of(folder).frame) == 4
    assert not Results.of(folder).store.given_up()
    assert run_study(study(model), folder, ONE).scored == 0


def test_a_driver_that_dies_before_it_has_listed_what_is_lost_loses_nothing(model, folder, broken):
    run_study(study(model), folder, ONE)
    shutil.rmtree(folder / "failures")
    broken.undo()
    assert run_study(study(model), folder, ONE).scored == 4
    assert scored(folder) == set(PROMPTS)


def test_a_metric_that_is_added_is_scored_where_another_was_given_up(model, folder, broken):
    run_study(study(model), folder, ONE)
    ledger = run_study(study(model, [*METRICS, "ensemble/realism"]), folder, ONE)
    assert (ledger.scored, ledger.given_up) == (4, 1)
    frame = Results.of(folder).frame.set_index("prompt")
    assert frame["ensemble/realism"].notna().all()
    assert list(frame.index[frame["ensemble/all-right"].isna()]) == [LOST]


def test_an_image_that_cannot_be_looked_at_costs_no_other_its_features(model, folder, monkeypatch):
    plain, looks = EnsembleJudge.extract, []

    def extract(self, images):
        looks.append(len(images))
        if len(images) > 1 or len(looks) == 5:
            raise MemoryError("too large")
        return plain(self, images)

    monkeypatch.setattr(EnsembleJudge, "extract", extract)
    ledger = run_study(study(model), folder, ONE)
    assert looks == [4, 4, 1, 1, 1, 1]
    assert (ledger.scored, ledger.given_up) == (3, 1)
    results = Results.of(folder)
    assert len(results.features(list(results.frame["sample_id"]))["features"]) == 3
    monkeypatch.undo()
    run_study(study(model), folder, AGAIN)
    assert scored(folder) == set(PROMPTS)


class Deadly(Here):
    """An executor whose workers die of scoring."""

    def submit(self, task, *, singly):
        future = super().submit(task, singly=singly)
        if isinstance(task, Score):
            future = type(future)()
            future.set_exception(WorkerDiedError("killed"))
        return future


def test_a_worker_that_dies_of_a_unit_gives_up_its_samples_by_name(model, tmp_path):
    folder = tmp_path / "run"
    ledger = run_study(study(model, chunk=2, seeds={"eval": "0"}, prompts={"mine": PROMPTS[:2]}), folder, ONE,
                       executor=Deadly)  # fmt: skip
    assert (ledger.done, ledger.scored, ledger.given_up) == (2, 0, 2)
    given_up = Results.of(folder).store.given_up()
    assert given_up.keys() == Results.of(folder).ids("samples")
    assert all("the worker died 3 times" in reason for reason in given_up.values())


def test_a_unit_that_cannot_be_read_is_given_up_as_a_unit_and_the_next_run_says_how_to_repair_it(model, folder):
    [path] = Results.of(folder).store.files("samples")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    data[-20:] = bytes(20)
    path.write_bytes(data)
    ledger = run_study(study(model), folder, ONE)
    assert (ledger.scored, ledger.given_up) == (0, 1)
    assert ledger.failures[0].startswith(f"{path.stem}: ValueError: {path} is damaged")
    assert not verify(folder, repair=True).sound
    ledger = run_study(study(model), folder, ONE)
    assert (ledger.done, ledger.scored) == (4, 4)


def test_a_prompt_that_a_metric_cannot_score_is_refused_before_anything_is_generated(model, tmp_path, capfd):
    mine = {"prompts": {"mine": ["a red three", "a photo of a cat"]}}
    reason = "prompts: mine: ensemble/all-right: only prompts for Ensemble can be scored; .*cannot read 'photo'.*"
    for names, others in [(METRICS, "or name other metrics$"),
                          ([*METRICS, "ensemble/realism"], "take any prompt: ensemble/realism")]:  # fmt: skip
        with pytest.raises(ValueError, match=reason + others):
            run_study(study(model, names, **mine), tmp_path / "run", ONE)
    for name in ("ensemble/diversity-layout", "ensemble/diversity-handwriting"):
        with pytest.raises(ValueError, match=f"{name}: only prompts for Ensemble"):
            run_study(study(model, [name], **mine), tmp_path / "run", ONE)
    assert not (tmp_path / "run").exists()
    file = tmp_path / "cat.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(study(model, **mine).text()) | mine))
    assert run(["study", "run", str(file), "--dry-run"]) == 2
    assert "only prompts for Ensemble" in " ".join(capfd.readouterr().err.split())
    first = study(model, METRICS, runs=[{"prompts": "mine", "limit": 1}], **mine)
    assert run_study(first, tmp_path / "first", ONE).scored == 1
    assert run_study(study(model, ["ensemble/realism"], **mine), tmp_path / "any", ONE).scored == 2
