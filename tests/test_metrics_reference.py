"""The shipped reference is what its command makes, with the judge that is shipped."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from safetensors.numpy import save_file

from scenes import digits
from symskew.ensemble.data import ABSENT, objects_of
from symskew.ensemble.prompts import caption
from symskew.metrics import reference
from symskew.metrics.judging import EnsembleJudge

SHIPPED = reference.load()


def numbers(labels: np.ndarray) -> Counter[int]:
    return Counter((labels != ABSENT).sum(1).tolist())


def test_the_shipped_one_is_balanced_and_of_the_shipped_judge():
    judge = reference.shipped().with_name("judge.safetensors")
    assert SHIPPED.metadata == {
        "count": 1600,
        "seed": 20,
        "extractor": "ensemble-judge/fp32@1",
        "weights": hashlib.sha256(judge.read_bytes()).hexdigest(),
    }
    assert numbers(SHIPPED.labels) == {1: 400, 2: 400, 3: 400, 4: 400}
    assert SHIPPED.features["features"].shape == (1600, 768)
    assert reference.shipped().stat().st_size < 3_000_000


def test_the_judge_reads_in_it_what_its_labels_say():
    read = SHIPPED.features["log_probabilities"].argmax(-1)
    right = (read == np.where(SHIPPED.labels == ABSENT, 10, SHIPPED.labels)).all(1)
    assert right.mean() > 0.96
    assert np.isfinite(SHIPPED.features["features"]).all()


def test_making_is_seeded_and_an_image_does_not_depend_on_their_number(tmp_path):
    short, long = (reference.make(digits(), EnsembleJudge(), count=count, seed=3) for count in (8, 12))
    assert np.array_equal(short.labels, long.labels[:8])
    assert all(np.array_equal(array, long.features[name][:8]) for name, array in short.features.items())
    reference.save(long, tmp_path / "reference.safetensors")
    read = reference.load(tmp_path / "reference.safetensors")
    assert read.metadata == long.metadata
    assert np.array_equal(read.labels, long.labels)
    assert all(np.array_equal(array, long.features[name]) for name, array in read.features.items())


def test_matching_takes_images_with_as_many_objects_as_the_prompts_have():
    three = next(caption(objects_of(row)) for row in SHIPPED.labels if (row != ABSENT).sum() == 3)
    assert numbers(SHIPPED.matching([three]).labels) == {3: 400}
    mixed = SHIPPED.matching(["a red one", "a red two", three])
    assert numbers(mixed.labels) == {1: 400, 3: 200}
    assert mixed.features["features"].shape == (600, 768)
    assert numbers(SHIPPED.matching(["a red one"] * 7 + [three] * 3).labels) == {1: 400, 3: 171}
    with pytest.raises(ValueError, match="expected prompts whose numbers of objects to match, got none"):
        SHIPPED.matching([])
    with pytest.raises(ValueError, match="cannot read 'photo'"):
        SHIPPED.matching(["a photo"])


def test_features_of_another_judge_are_refused(tmp_path):
    weights = tmp_path / "judge.safetensors"
    weights.write_bytes(b"another")
    with pytest.raises(
        ValueError, match=r"of weights 8d985958\w+, and those in use are of \w+.*metrics.reference --mnist"
    ):
        reference.load(eye=EnsembleJudge(weights))


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"reference: there is no file .*none.safetensors"):
        reference.load(tmp_path / "none.safetensors")
    save_file({"labels": SHIPPED.labels}, tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    for name in ("other", "damaged"):
        with pytest.raises(ValueError, match=f"{name}.safetensors is not a reference"):
            reference.load(tmp_path / f"{name}.safetensors")


def test_the_command_writes_a_reference_and_says_what_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reference, "load_mnist", lambda split, folder: digits() if split == "test" else None)
    reference.main(count=8, seed=3, out=tmp_path / "reference.safetensors")
    assert reference.load(tmp_path / "reference.safetensors").metadata["count"] == 8
    assert capsys.readouterr().out.startswith('reference.safetensors: {"count": 8, "seed": 3, "extractor": "ensemble-j')


def test_the_command_needs_the_digits(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"put MNIST's four \.gz files into a folder"):
        reference.main(mnist=tmp_path, out=tmp_path / "reference.safetensors")
    assert list(tmp_path.iterdir()) == []
