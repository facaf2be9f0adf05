"""A study judged by the paper's metrics, with tiny weights: named in its file, checked first, and always the same."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from folders import ensemble_folder
from symskew.study import Store, Study, run_study
from symskew.study.frames import Results
from symskew.study.scoring import scoring_tasks
from symskew.study.store import read_file
from symskew.study.verify import verify
from symskew.study.work import Outfit, Worker
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


def test_a_variant_is_added_from_the_features(folder, model, tiny_scorers):
    more = [*NAMES, "clip-l/x100"]
    ledger = run_study(Study.of(written(model, tiny_scorers, more)), folder, ONE)
    assert (ledger.done, ledger.scored) == (0, 4)
    frame = Results.of(folder).frame
    assert frame["clip-l/x100/fp32@1"].to_numpy() == pytest.approx(100 * frame["clip-l/cos/fp32@1"].clip(0).to_numpy())


@pytest.fixture(scope="module")
def clip(tmp_path_factory, tiny_scorers):
    """Weights of CLIP, and others of the same form."""
    other = shutil.copytree(tiny_scorers["clip-l"], tmp_path_factory.mktemp("weights") / "other")
    state = load_file(other / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    noise = {name: value + torch.randn(value.shape, generator=generator) * value.std()
             for name, value in state.items() if value.is_floating_point() and value.dim() > 1}  # fmt: skip
    save_file(state | noise, other / "model.safetensors")
    return {"clip-l": tiny_scorers["clip-l"]}, {"clip-l": str(other)}


def by_clip(model, weights, seeds="0", names=("clip-l",)):
    return Study.of(written(model, weights, list(names)) | {"seeds": {"eval": seeds}, "chunk": 1})


def clips(folder):
    return Results.of(folder).frame.set_index("sample_id")["clip-l/cos/fp32@1"].sort_index()


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_other_weights_are_refused_before_anything_is_made_and_leave_nothing_behind(model, clip, tmp_path):
    own, other = clip
    folder = tmp_path / "run"
    run_study(by_clip(model, own), folder, ONE)
    before = files(folder)
    with pytest.raises(ValueError, match=r"clip-l: these weights .* are not those that .* was scored with .*; use the"):
        run_study(by_clip(model, other, "0-1"), folder, ONE)
    assert files(folder) == before
    run_study(by_clip(model, own, "0-1"), folder, ONE)
    clean = tmp_path / "clean"
    run_study(by_clip(model, own, "0-1"), clean, ONE)
    assert clips(folder).equals(clips(clean))


def test_of_two_runs_that_begin_together_with_different_weights_one_looks_at_nothing(model, clip, tmp_path):
    folder = tmp_path / "run"
    run_study(by_clip(model, {}, names=[]), folder, ONE)
    store = Store(folder)
    [first, second] = scoring_tasks(store, ["clip-l"])
    mine, theirs = (Worker(Outfit(folder, "none", "float32", "cpu", 1, None, {}, tuple(w.items()))) for w in clip)
    mine.do(first, singly=False)
    before = files(folder)
    with pytest.raises(ValueError, match="clip-l: these weights"):
        theirs.do(second, singly=False)
    assert files(folder) == before
    store.claim_text("mine too", "weights", "clip-l.json")
    assert files(folder) == before


def test_features_that_other_weights_made_are_never_mixed_with_these(model, clip, tmp_path):
    own, other = clip
    folder = tmp_path / "run"
    run_study(by_clip(model, own), folder, ONE)
    shutil.rmtree(folder / "weights")  # somebody wants it so
    run_study(by_clip(model, other, "0-1"), folder, ONE)
    ids = list(Results.of(folder).frame["sample_id"])
    told = r"was made with other weights of clip-l \(SHA-256 \w{12}…\) than its study is scored with .*; delete it and"
    with pytest.raises(ValueError, match=told):
        Results.of(folder).features(ids, "clip-l/fp32@1")
    wrong = verify(folder).damaged
    assert len(wrong) == 2
    ledger = run_study(by_clip(model, other, "0-1", ["clip-l", "clip-l/x100"]), folder, ONE)
    assert (ledger.scored, ledger.given_up) == (2, 2)
    assert all("was made with other weights" in reason for reason in ledger.failures)
    for path in wrong:
        path.unlink()
        for each in folder.glob(f"scores/*/{path.parent.name}/{path.name}"):
            each.unlink()
    run_study(by_clip(model, other, "0-1"), folder, replace(ONE, retry=True))
    clean = tmp_path / "clean"
    run_study(by_clip(model, other, "0-1"), clean, ONE)
    assert clips(folder).equals(clips(clean))
    assert verify(folder).sound


def test_features_of_folders_from_before_they_said_so_are_read_and_gone_on_with(model, clip, tmp_path):
    folder = tmp_path / "run"
    run_study(by_clip(model, clip[0]), folder, ONE)
    for path in Store(folder).files("features"):
        table, where = read_file(path), (path.parent.parent.name, path.parent.name, path.stem)
        path.unlink()
        shapes = {"shapes": table.schema.metadata[b"shapes"]}
        Store(folder).commit(table.replace_schema_metadata(shapes), "features", *where)
    assert verify(folder).sound
    ledger = run_study(by_clip(model, clip[0], "0-1", ["clip-l", "clip-l/x100"]), folder, ONE)
    assert (ledger.there, ledger.done, ledger.scored, ledger.given_up) == (2, 2, 4, 0)
    results = Results.of(folder)
    found = results.features(list(results.frame["sample_id"]), "clip-l/fp32@1")
    assert {len(values) for values in found.values()} == {4}


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
