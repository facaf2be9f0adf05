"""Metrics by name: found, listed with what they are computed with, and refused when unknown."""

from pathlib import Path

import pytest

from symskew import ensemble, metrics
from symskew.metrics import PairMetric, SampleMetric, SetMetric
from symskew.metrics.judging import ID, EnsembleJudge

ROOT = Path(__file__).parent.parent


def test_found_in_order_and_each_once():
    found = metrics.find(["ensemble/recall", "ensemble/all-right", "ensemble/precision"])
    assert [metric.kind for metric in found] == ["set", "sample"]
    assert [quantity.id for quantity in found[0].quantities] == [
        f"ensemble/{name}" for name in ("precision", "recall", "density", "coverage")
    ]


def test_kinds_are_classes():
    classes = {"sample": SampleMetric, "pair": PairMetric, "set": SetMetric}
    for metric in metrics.find([row["metric"] for row in metrics.describe()]):
        assert isinstance(metric, classes[metric.kind])
        if isinstance(metric, (SampleMetric, PairMetric)):
            quantity = metric.quantities[0]
            assert (metric.id, metric.title, metric.unit) == (quantity.id, quantity.title, quantity.unit)
            assert metric.higher_is_better is quantity.higher_is_better


def test_shipped_models_are_judged_by_all_that_needs_no_further_weights():
    for model in ensemble.MODELS:
        names = metrics.defaults(model)
        assert {"ensemble/all-right", "ensemble/realism", "ensemble/vendi", "ensemble/kd"} <= set(names)
        assert all(row["weights"] for row in metrics.describe(names))
        assert "lpips/alex" not in names
    assert metrics.defaults("stabilityai/stable-diffusion-xl-base-1.0") == []


def test_rows_say_what_a_number_was_computed_with(monkeypatch, tmp_path):
    row = next(row for row in metrics.describe() if row["metric"] == "ensemble/missing")
    assert row == {
        "metric": "ensemble/missing",
        "title": "Missing objects",
        "kind": "sample",
        "higher_is_better": False,
        "unit": "per image",
        "extractor": ID,
        "version": "1",
        "dtype": "fp32",
        "weights": EnsembleJudge().weights,
    }
    names = [row["metric"] for row in metrics.describe()]
    assert len(set(names)) == len(names)
    assert [row["metric"] for row in metrics.describe(["ensemble/fd", "ensemble/vendi"])] == [
        "ensemble/fd",
        "ensemble/vendi",
    ]


def test_the_largest_extractor_is_as_large_as_a_cluster_is_told():
    names = {metric.extractor for metric in metrics.find([row["metric"] for row in metrics.describe()])}
    most = max(metrics.extractor(name).memory for name in names if name)
    assert 4.5e9 < most <= 5e9
    assert "four of the largest scorers take 20 GB" in (ROOT / "docs" / "cluster.md").read_text()


def test_published_weights_are_named_and_not_read():
    assert metrics.describe(["lpips/alex"])[0]["weights"] is None
    (source,) = metrics.sources(metrics.find(["lpips/alex"])[0])
    assert (source.name, source.licence) == ("alexnet", "BSD-3-Clause")
    assert metrics.sources(metrics.find(["ensemble/fd"])[0]) == ()


def test_a_site_has_extractors_of_its_own():
    there = metrics.Site.of({"alexnet": "/nowhere"})
    assert metrics.extractor(ID) is metrics.extractor(ID)
    assert metrics.extractor(ID, there) is metrics.extractor(ID, metrics.Site.of({"alexnet": "/nowhere"}))
    assert metrics.extractor(ID, there) is not metrics.extractor(ID)


def test_unknown_names_are_refused():
    with pytest.raises(
        ValueError, match="there is no metric called 'ensemble/allright'; did you mean 'ensemble/all-right'"
    ):
        metrics.find(["ensemble/allright"])
    with pytest.raises(ValueError, match="there is no metric called 'beauty'; there are ensemble/all-right, "):
        metrics.find(["beauty"])
    with pytest.raises(ValueError, match="there is no extractor called 'x'; there are ensemble-judge/fp32@1, lpips"):
        metrics.extractor("x")
