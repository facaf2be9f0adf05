"""Whole studies on an untrained model: the same bytes however they are run, and nothing twice."""

import dataclasses
from concurrent.futures import Future

import numpy as np
import pytest
from PIL import Image

from symskew.generation import describe_request, generate, settings_id
from symskew.models import load_model
from symskew.study import Options, run_study
from symskew.study.engine import Here
from symskew.study.frames import Results
from symskew.study.verify import verify
from tinystudy import ONE, tiny_model, tiny_study


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def done(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "tiny"
    ledger = run_study(tiny_study(model), folder, ONE)
    assert (ledger.planned, ledger.done, ledger.scored, ledger.given_up) == (36, 36, 36, 0)
    return folder


def open_image(data):
    import io

    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def test_a_finished_study_has_nothing_left_and_loads_no_model(model, done, monkeypatch):
    monkeypatch.setattr("symskew.study.run.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    ledger = run_study(tiny_study(model), done, ONE)
    assert (ledger.planned, ledger.there, ledger.left, ledger.done, ledger.scored) == (36, 36, 0, 0, 0)


def test_samples_are_the_images_that_generate_makes_of_the_same_requests(model, done):
    results = Results.of(done)
    pipe = load_model(str(model))
    row = results.frame[results.frame["setting"] == "static alpha=3"].iloc[0]
    request = tiny_study(model).settings["static alpha=3"].request(row["prompt"], int(row["seed"]), {})
    assert settings_id(describe_request(pipe, request)) == row["sample_id"]
    (alone,) = generate(pipe, [request], batch=1)
    difference = np.abs(open_image(results.images(row["sample_id"])) - np.asarray(alone.image).astype(int))
    assert difference.max() <= 1  # it shared its batch with another there


@pytest.mark.parametrize(
    "options", [Options(workers=2, batch=2), Options(workers=1, batch=2, shard=(1, 3))], ids=["two workers", "shards"]
)
def test_the_same_bytes_whoever_makes_them(model, done, tmp_path, options):
    folder = tmp_path / "again"
    if options.shard == (0, 1):
        run_study(tiny_study(model), folder, options)
    else:
        parts = [
            run_study(tiny_study(model), folder, dataclasses.replace(options, shard=(index, 3))) for index in (1, 0, 2)
        ]
        assert sum(part.done for part in parts) == 36
        assert all(part.done for part in parts)
    assert verify(folder).digest == verify(done).digest


def test_whatever_the_batch_size_images_differ_by_one_level_at_most(model, done, tmp_path):
    run_study(tiny_study(model), tmp_path / "other", Options(workers=1, batch=3))
    first, second = Results.of(done), Results.of(tmp_path / "other")
    for key in first.frame["sample_id"]:
        assert np.abs(open_image(first.images(key)) - open_image(second.images(key))).max() <= 1


def test_frames_are_joined_by_id(done):
    results = Results.of(done)
    frame = results.frame
    assert len(frame) == 36
    assert frame["sample_id"].is_unique
    assert dict(zip(frame["seed"], frame["role"], strict=True)) == {0: "select", 1: "eval", 2: "eval", 3: "placebo"}
    assert (frame.groupby(["prompt_id", "seed"])["noise_sha256"].nunique() == 1).all()
    assert frame["noise_sha256"].nunique() == 5 * 4 / 5  # the noise is of the seed alone
    assert set(frame["ensemble/all-right"]) <= {0.0, 1.0}
    assert (frame["ensemble/log-likelihood"] < 0).all()
    assert len(results.measures) == 12 * 3 * 2
    diagnosed = (frame["prompts"] == "held-out") & (frame["family"] == "static")
    assert set(results.measures["sample_id"]) == set(frame["sample_id"][diagnosed])
    assert results.measures[["alignment", "symmetry"]].abs().max().max() <= 1
    assert len(results.pairs) == 5 + 2 * 3
    assert results.pairs.equals(Results.of(done).pairs)
    assert results.settings["passes"].tolist() == [2.0, 2.0, 2.0]
    maps = results.maps(results.measures["sample_id"].iloc[0])
    assert maps["up"]["conflict"].shape == maps["up"]["agreement"].shape
    assert results.maps("unknown") == {}


def test_scores_are_those_of_the_metrics_on_the_images(done):
    from symskew.ensemble import Judge, compare, parse_caption

    results = Results.of(done)
    row = results.frame.iloc[7]
    reading = Judge.load().read([Image.fromarray(open_image(results.images(row["sample_id"])).astype(np.uint8))])[0]
    verdict = compare(reading, parse_caption(row["prompt"]))
    assert row["ensemble/log-likelihood"] == pytest.approx(verdict.log_likelihood, abs=1e-5)


def test_a_metric_that_is_added_later_is_scored_alone(model, done, tmp_path):
    import shutil

    folder = shutil.copytree(done, tmp_path / "more")
    names = ["ensemble/all-right", "ensemble/log-likelihood", "ensemble/objects-right"]
    ledger = run_study(tiny_study(model, metrics=names), folder, ONE)
    assert (ledger.done, ledger.scored) == (0, 36)
    added = [
        path for path in (folder / "scores").glob("*/metrics.json") if not (done / path.relative_to(folder)).exists()
    ]
    assert [path.read_text() for path in added] == ['["ensemble/objects-right"]\n']
    assert set(names) <= set(Results.of(folder).frame.columns)


def test_a_study_that_grows_makes_only_what_is_new(model, done, tmp_path):
    import shutil

    folder = shutil.copytree(done, tmp_path / "more")
    bigger = tiny_study(model, seeds={"select": "0", "eval": "1-2", "placebo": "3-4"})
    ledger = run_study(bigger, folder, ONE)
    assert (ledger.there, ledger.done) == (36, 5)
    fresh = tmp_path / "fresh"
    run_study(bigger, fresh, ONE)
    assert verify(fresh).digest == verify(folder).digest


def test_what_cannot_be_met_is_refused_before_anything_is_generated(model, tmp_path):
    folder = tmp_path / "run"
    for changes, message in [
        ({"settings": {"other": {"alpha": 2, "layers": "nowhere*"}}, "runs": None}, "settings: other: .*nowhere"),
        ({"settings": {"one": {}, "two": {"alpha": 1}}, "runs": None}, "settings: two and one are the same setting"),
        ({"metrics": ["ensemble/al-right"]}, "did you mean 'ensemble/all-right'"),
        ({"model": "no-such-model"}, "there is no model 'no-such-model'"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            run_study(tiny_study(model, **changes), folder, ONE)
    assert not (folder / "samples").exists()
    with pytest.raises(ValueError, match="a shard must be i/n with 0 ≤ i < n, got 3/3"):
        Options(shard=(3, 3))
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        Options(workers=0)


def test_a_folder_of_another_models_results_is_not_mixed_with_this_ones(model, done, tmp_path):
    import shutil

    other = tiny_model(tmp_path / "model")
    weights = next((other / "unet").glob("*.safetensors"))
    from safetensors.torch import load_file, save_file

    save_file({name: value * 1.01 for name, value in load_file(weights).items()}, weights)
    folder = shutil.copytree(done, tmp_path / "run")
    for path in (folder / "samples").rglob("*.parquet"):
        path.unlink()
    shutil.move(str(model / "unet"), str(tmp_path / "aside"))
    try:
        shutil.copytree(other / "unet", model / "unet")
        with pytest.raises(RuntimeError, match="planned with another revision"):
            run_study(tiny_study(model), folder, ONE)
    finally:
        shutil.rmtree(model / "unet")
        shutil.move(str(tmp_path / "aside"), str(model / "unet"))


class Elsewhere(Here):
    """An executor of somebody else's, which counts."""

    count = 0

    def submit(self, task, *, singly) -> Future:
        Elsewhere.count += 1
        return super().submit(task, singly=singly)


def test_another_executor_may_take_over(model, done, tmp_path):
    run_study(tiny_study(model), tmp_path / "run", Options(batch=2), executor=Elsewhere)
    assert Elsewhere.count > 10
    assert verify(tmp_path / "run").digest == verify(done).digest
