"""Trackers get what a run tells, in their own formats read back by their own libraries."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from symskew.study import Ledger, run_study
from symskew.study.frames import Results
from symskew.study.trackers import TRACKERS, Reports, means, open_tracker
from tinystudy import ONE, tiny_model, tiny_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    where = tmp_path_factory.mktemp("trackers")
    changes = {"prompts": {"tuning": ["a red three"]}, "runs": None, "metrics": ["ensemble/all-right"]}
    study = tiny_study(tiny_model(where / "model"), **changes)
    run_study(study, where / "run", ONE)
    return study, where / "run"


class Listener:
    def __init__(self, fails=False):
        self.heard, self.fails, self.closed = [], fails, False

    def log(self, values, step):
        if self.fails:
            raise ConnectionError("no route to host")
        self.heard.append((step, dict(values)))

    def close(self):
        self.closed = True


def tell(reports, *done):
    for each in done:
        reports.tell(Ledger(planned=12, there=2, left=10, done=each, stage="generating"))
    reports.tell(Ledger(planned=12, there=2, left=10, done=10, scored=12, stage="done"))
    reports.close()


def test_points_keep_their_distance_and_the_last_has_the_means(study):
    listener, times = Listener(), iter([0.0, 1.0, 2.0, 8.0, 8.5])
    tell(Reports([listener], study[1], lambda: next(times)), 1, 4, 6)
    assert [step for step, _ in listener.heard] == [3, 8, 12]
    assert listener.heard[1][1]["run/samples a second"] == 6 / 8
    assert listener.heard[-1][1]["run/scored"] == 12
    frame = Results.of(study[1]).frame
    expected = frame[frame["role"] == "eval"].groupby("setting")["ensemble/all-right"].mean()
    for setting, value in expected.items():
        assert listener.heard[-1][1][f"ensemble/all-right/{setting}"] == pytest.approx(value)
    assert listener.closed


def test_one_that_fails_is_let_go_of_and_the_others_go_on(study):
    bad, good = Listener(fails=True), Listener()
    with pytest.warns(UserWarning, match="Listener is let go of, the run goes on: no route to host"):
        tell(Reports([bad, good], study[1]), 1)
    assert len(good.heard) == 2
    assert not bad.closed


def test_tensorboard(study, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    opened, clock = open_tracker("tensorboard", study[0], tmp_path / "run"), iter(np.arange(9) * 9.0)
    tell(Reports([opened], study[1], lambda: next(clock)), 1, 4)
    found = EventAccumulator(str(tmp_path / "run-tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("run/generated")] == [(3, 3), (6, 6), (12, 12)]
    for name, value in means(Results.of(study[1])).items():
        assert found.Scalars(name)[-1].value == pytest.approx(value)


def test_mlflow(study, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    tell(Reports([open_tracker("mlflow", study[0], study[1])], study[1]), 1)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("symskew")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["model"] == study[0].model
    assert run.data.metrics["run/generated"] == 12
    expected = means(Results.of(study[1]))["ensemble/all-right/static alpha=1.5"]
    assert run.data.metrics["ensemble/all-right/static alpha-1.5"] == expected


def test_mlflow_without_a_place_to_go_is_refused(study, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at.all")
    with pytest.raises(ValueError, match=r"mlflow does not begin: .*nowhere"):
        open_tracker("mlflow", study[0], study[1])


def test_wandb_offline(study, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    reports = Reports([open_tracker("wandb", study[0], study[1])], study[1])
    tell(reports, 1)
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))


def test_trackio_is_spoken_to_as_wandb_is(study, monkeypatch):
    said = []
    fake = types.ModuleType("trackio")
    fake.__dict__.update(
        {
            "init": lambda **given: said.append(("init", given["project"], given["name"])),
            "log": lambda values, step: said.append(("log", step, json.dumps(values))),
            "finish": lambda: said.append(("finish",)),
        }
    )
    monkeypatch.setitem(sys.modules, "trackio", fake)
    tell(Reports([open_tracker("trackio", study[0], study[1])], study[1]), 1)
    assert [each[0] for each in said] == ["init", "log", "log", "finish"]


def test_what_is_not_known_or_not_there_is_said_before_work_starts(study, monkeypatch):
    with pytest.raises(ValueError, match="a tracker must be one of tensorboard, wandb, trackio, mlflow, got 'excel'"):
        open_tracker("excel", study[0], Path("run"))
    for name in TRACKERS:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=rf'this needs {name}: pip install "symskew\[{name}\]"'):
            open_tracker(name, study[0], study[1])
