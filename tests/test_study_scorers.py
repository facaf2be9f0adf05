"""A study judged by the paper's metrics, with tiny weights: named in its file, checked first, and always the same."""

import json

import pytest

from folders import ensemble_folder
from symskew.study import Study, run_study
from symskew.study.frames import Results
from tinystudy import ONE

NAMES = ["clip-l", "clip-b32/hessel", "aesthetic", "pickscore", "hps", "imagereward"]
IDS = [
    "aesthetic/v2/fp32@1",
    "clip-b32/hessel/fp32@1",
    "clip-l/cos/fp32@1",
    "hps/v2.1/fp32@1",
    "imagereward/v1.0/fp32@1",
    "pickscore/cos/fp32@1",
]


def written(model, weights, names=NAMES):
    return {
        "model": str(model),
        "steps": 2,
        "prompts": {"mine": ["a red three", "a blue seven and a green one"]},
        "seeds": {"eval": "0-1"},
        "settings": {"vanilla": {}},
        "metrics": names,
        "weights": weights,
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ensemble_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, tiny_scorers):
    there = tmp_path_factory.mktemp("studies") / "scored"
    run_study(Study.of(written(model, tiny_scorers)), there, ONE)
    return there


def test_every_image_has_every_score(folder):
    results = Results.of(folder)
    assert sorted(results.scores["metric_id"].unique()) == IDS
    assert len(results.frame) == 4
    assert results.frame[IDS].notna().to_numpy().all()


def test_features_are_kept_once_for_each_network_and_not_where_they_are_large(folder):
    kept = sorted(path.name for path in (folder / "features").iterdir())
    assert kept == ["clip-b32_fp32@1", "clip-l_fp32@1", "hps_fp32@1", "pickscore_fp32@1"]


def test_it_says_which_weights_it_was_scored_with(folder, tiny_scorers):
    rows = Results.of(folder).metrics.set_index("metric")
    digests = {path.stem: json.loads(path.read_text())["sha256"] for path in (folder / "weights").iterdir()}
    assert digests.keys() == {"clip-l", "clip-b32", "aesthetic", "pickscore", "hps", "imagereward", "bert"}
    clip = digests["clip-l"]
    assert rows.at["clip-l/cos/fp32@1", "weights"] == f"clip-l {clip}"
    assert rows.at["aesthetic/v2/fp32@1", "weights"] == f"clip-l {clip}, aesthetic {digests['aesthetic']}"


def test_a_variant_is_added_from_the_features_and_with_the_same_weights_alone(folder, model, tiny_scorers, tmp_path):
    more = [*NAMES, "clip-l/x100"]
    ledger = run_study(Study.of(written(model, tiny_scorers, more)), folder, ONE)
    assert (ledger.done, ledger.scored) == (0, 4)
    frame = Results.of(folder).frame
    assert frame["clip-l/x100/fp32@1"].to_numpy() == pytest.approx(100 * frame["clip-l/cos/fp32@1"].clip(0).to_numpy())
    other = tiny_scorers | {"clip-l": tiny_scorers["pickscore"], "pickscore": tiny_scorers["clip-l"]}
    config = json.loads((folder / "weights" / "clip-l.json").read_text())
    (folder / "weights" / "clip-l.json").write_text(json.dumps({"sha256": "0" * 64}))
    ledger = run_study(Study.of(written(model, other, [*more, "clip-l/hessel"])), folder, ONE)
    (folder / "weights" / "clip-l.json").write_text(json.dumps(config))
    assert ledger.scored == 0
    assert "are not those that" in ledger.failures[0]


def test_what_is_missing_is_said_before_anything_is_generated(tmp_path, model, tiny_scorers, monkeypatch):
    monkeypatch.delenv("SYMSKEW_WEIGHTS", raising=False)
    weights = tiny_scorers | {"hps": str(tmp_path / "nowhere")}
    with pytest.raises(
        FileNotFoundError, match=r"hps: .*nowhere is not there; get it by: hf download xswu/HPSv2 HPS_v2"
    ):
        run_study(Study.of(written(model, weights)), tmp_path / "study", ONE)
    with pytest.raises(ValueError, match="weights: there is no 'hsp'; there are "):
        run_study(Study.of(written(model, {"hsp": "x"})), tmp_path / "study", ONE)
    asked = []

    def download(repo, name, **_):
        asked.append((repo, name))
        raise OSError("404")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(FileNotFoundError, match="hps: nobody/hps could not be had from the hub: 404; get it by"):
        run_study(Study.of(written(model, tiny_scorers | {"hps": "nobody/hps"})), tmp_path / "study", ONE)
    assert {repo for repo, _ in asked} == {"nobody/hps"}
    assert not (tmp_path / "study" / "samples").exists()


def test_a_place_is_looked_for_from_the_file_on_and_is_kept(tmp_path, model, tiny_scorers):
    (tmp_path / "hps").symlink_to(tiny_scorers["hps"])
    study = Study.of(written(model, {"hps": "hps", "clip-l": "openai/clip-vit-large-patch14"}), tmp_path)
    assert study.weights == {"hps": str(tmp_path / "hps"), "clip-l": "openai/clip-vit-large-patch14"}
    assert f"hps: {tmp_path / 'hps'}" in study.text()
