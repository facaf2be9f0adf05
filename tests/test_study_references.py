"""A study's sets are compared with real images, in the features of published networks, here with tiny weights."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from folders import ensemble_folder
from scenes import scenes
from symskew import metrics
from symskew.cli.app import run as command
from symskew.metrics import real
from symskew.metrics.dinov2 import dinov2
from symskew.protocols import MissingError, run
from symskew.protocols.kept import evidence_of
from symskew.study import Study, run_study
from symskew.study.frames import Results
from symskew.study.references import keep_reference
from tinystudy import ONE

EXTRACTOR = "dinov2-l/fp32@1"
NAMES = [
    "clip-l",
    "dinov2-l/fd",
    "dinov2-l/kd",
    "dinov2-l/recall",
    "dinov2-l/vendi",
    "dinov2-l/vendi-set",
    "lpips/alex",
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory, tiny_scorers):
    path = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    torch.manual_seed(0)
    torch.save(torchvision.models.alexnet(weights=None).features.state_dict(prefix="features."), path)
    return tiny_scorers | {"alexnet": str(path)}


@pytest.fixture(scope="module")
def study(tmp_path_factory, weights):
    return Study.of({
        "model": str(ensemble_folder(tmp_path_factory.mktemp("models") / "tiny")), "steps": 2, "seeds": {"eval": "0-2"},
        "prompts": {"mine": ["a red three", "a blue seven", "a green one"]}, "metrics": NAMES, "weights": weights,
        "settings": {"vanilla": {}, "static": {"alpha": 2.0, "beta": 3.0}},
    })  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory, study):
    folder = tmp_path_factory.mktemp("studies") / "done"
    run_study(study, folder, ONE)
    return folder


@pytest.fixture(scope="module")
def eye(weights):
    return dinov2(metrics.Site.of(weights))


@pytest.fixture(scope="module")
def file(tmp_path_factory, eye):
    folder = tmp_path_factory.mktemp("real")
    for number, image in enumerate(scenes(12)[0]):
        image.save(folder / f"{number}.png")
    real.save(real.look(folder, eye), folder / "real.safetensors")
    return folder / "real.safetensors"


@pytest.fixture
def fresh(done, tmp_path):
    """The study's folder without any reference."""
    (tmp_path / "run").mkdir()
    for each in done.iterdir():
        if each.name != "references":
            (tmp_path / "run" / each.name).symlink_to(each)
    return tmp_path / "run"


def of(folder, setting):
    results = Results.of(folder)
    ids = results.frame.loc[results.frame["setting"] == setting, "sample_id"].tolist()
    return results.features(ids, EXTRACTOR)


def test_networks_that_only_sets_need_have_looked_too_and_do_so_once(done, study):
    results = Results.of(done)
    assert results.scores["metric_id"].unique().tolist() == ["clip-l/cos/fp32@1"]
    assert of(done, "vanilla")["features"].shape == (9, 48)
    assert "dinov2-l" in {path.stem for path in (done / "weights").iterdir()}
    assert run_study(study, done, ONE).scored == 0


def test_pairs_are_of_images_where_features_are_not_kept(done, weights):
    results = Results.of(done)
    rows = results.pairs[results.pairs["metric"] == "lpips/alex/fp32@1"]
    assert len(rows) == 6
    row = rows.iloc[0]
    own = results.frame[
        (results.frame["setting_id"] == row["setting_id"]) & (results.frame["prompt_id"] == row["prompt_id"])
    ]
    (metric,) = metrics.find(["lpips/alex"])
    images = [Image.open(io.BytesIO(results.images(key))) for key in own["sample_id"]]
    features = metrics.extractor("lpips-alex/fp32@1", metrics.Site.of(weights)).extract(images)
    assert isinstance(metric, metrics.PairMetric)
    assert row["value"] == pytest.approx(metric.score(features, "any"))
    assert row["value"] > 0
    assert (results.pairs["metric"] == "dinov2-l/vendi/fp32@1").sum() == 6
    assert not list((done / "features").glob("lpips*"))


def test_table_8_compares_with_the_reference_and_says_what_it_is(fresh, file):
    with pytest.raises(MissingError, match=r"real images by dinov2-l/fp32@1 .* --features dinov2-l --out FILE, then"):
        run("table-8", evidence_of(Results.of(fresh)))
    told = keep_reference(Results.of(fresh), file).told
    (table,) = run("table-8", evidence_of(Results.of(fresh)), groups=3)
    assert f"against {told}." in table.caption
    assert told.startswith("12 real images, by dinov2-l/fp32@1, images resized to 224×224")
    known = real.read(file).features
    for name, title in (("dinov2-l/fd", "FD-DINOv2 ↓"), ("dinov2-l/recall", "Recall of images, DINOv2 ↑")):
        for setting, label in (("vanilla", "vanilla"), ("static", "static")):
            (metric,) = metrics.find([name])
            assert isinstance(metric, metrics.SetMetric)
            (row,) = table.records(metric=title, setting=label)
            expected = metric.score(of(fresh, setting), known)[f"{name}/fp32@1"]
            assert row["value"].value == pytest.approx(expected, rel=1e-6)
    assert len({row["metric"] for row in table.records()}) == 7 + 1  # with the other three shares, and clip-l


def test_the_command_copies_it_and_another_is_refused(fresh, file, eye, tmp_path, capsys):
    assert command(["study", "reference", str(fresh), str(file)]) == 0
    assert "compared with 12 real images, by dinov2-l/fp32@1" in capsys.readouterr().out
    assert [path.name for path in (fresh / "references").iterdir()] == ["dinov2-l_fp32@1.safetensors"]
    assert command(["study", "reference", str(fresh), str(file)]) == 0  # the same again
    capsys.readouterr()
    less = real.look(file.parent, eye, limit=8)
    real.save(less, tmp_path / "less.safetensors")
    assert command(["study", "reference", str(fresh), str(tmp_path / "less.safetensors")]) == 2
    assert f"is compared with other real images already (reference {real.read(file).digest}," in capsys.readouterr().err


def test_what_does_not_fit_the_study_is_refused(fresh, file, tmp_path):
    known = real.read(file)
    for change, said in (
        (
            {"extractor": "inception-tf1/fp32@1"},
            r"inception-tf1/fp32@1, which no metric .* these are of dinov2-l/fp32@1",
        ),
        ({"weights": "0" * 64}, r"was made with other weights of dinov2-l \(SHA-256 000000000000…\)"),
    ):
        real.save(replace(known, metadata=known.metadata | change), tmp_path / "other.safetensors")
        with pytest.raises(ValueError, match=said):
            keep_reference(Results.of(fresh), tmp_path / "other.safetensors")
    keep_reference(Results.of(fresh), file)
    (fresh / "weights").unlink()
    (fresh / "weights").mkdir()
    (fresh / "weights" / "dinov2-l.json").write_text(json.dumps({"sha256": "1" * 64}))
    with pytest.raises(ValueError, match="so that distances would mean nothing"):
        evidence_of(Results.of(fresh))
    assert np.isfinite(known.features["features"]).all()
