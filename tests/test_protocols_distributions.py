import dataclasses

import numpy as np
import pytest

from evidence import EXTRACTOR, Knob, real_images, simulate
from symskew.metrics import Comparison, Quantity, SetMetric
from symskew.metrics.judging import ID
from symskew.protocols import MissingError, run
from symskew.statistics import jackknife

METRIC = "ensemble/log-likelihood"


class Means:
    """The mean of the real images."""

    def __init__(self, reference):
        self.real = reference["features"]

    def scores(self, generated, subsets=None):
        found = []
        for rows in subsets or [slice(None)]:
            some = generated["features"][rows]
            apart = float(np.linalg.norm(some.mean(0) - self.real.mean(0)))
            sizes = {"generated": float(len(some)), "reference": float(len(self.real))}
            found.append({"toy/apart": apart, "toy/count": float(len(some)), **sizes})
        return found


class MeanDistance(SetMetric):
    """How far the means of two sets are apart; and how many there are."""

    quantities = (Quantity("toy/apart", "Apart", "", False), Quantity("toy/count", "Count", "", True))
    extractor = EXTRACTOR

    def against(self, reference) -> Comparison:
        return Means(reference)


def only(table, **where):
    (row,) = table.records(**where)
    return row


@pytest.fixture(scope="module")
def world():
    return simulate([Knob("near", "static", 1.5, 1, strength=0.01), Knob("far", "static", 3, 3, drop=9)],
                    prompts={"all": 60}, seeds={"eval": 3})  # fmt: skip


def shifted(world, by):
    """The images of the setting `far`, moved."""

    def features(ids, extractor=None):
        rows = world.features(ids, extractor)["features"]
        return {"features": rows + by * np.array([name.startswith("far") for name in ids])[:, None]}

    return dataclasses.replace(world, features=features)


def test_equal_numbers_and_jackknifed_changes(world):
    table = run("table-8", shifted(world, 5.0), set_metrics=[MeanDistance()], metrics=[METRIC], groups=10)[0]
    assert {row["value"].value for row in table.records(metric="Count ↑")} == {171.0}
    assert "171 images of each setting" in table.caption
    told = f"against 400 real images, by {EXTRACTOR}, reference {world.references[EXTRACTOR].digest}. Set metrics"
    assert told in table.caption
    near, far = (only(table, metric="Apart ↓", setting=name) for name in ("near", "far"))
    assert near["change"].low < 0.01
    assert abs(near["relative"].value) < 0.05
    assert far["change"].low > 5
    assert far["change"].p < 0.05
    assert far["relative"].low > 1
    vanilla = only(table, metric="Apart ↓", setting="vanilla")
    assert vanilla["change"] is vanilla["relative"] is None
    assert far["value"].value - vanilla["value"].value == pytest.approx(far["change"].value)
    assert only(table, metric="log likelihood ↑", setting="far")["change"] is not None
    assert "Apart ↓ with far" in table.summary


def test_the_interval_is_the_jackknife_of_the_common_samples(world):
    table = run("table-8", world, set_metrics=[MeanDistance()], metrics=[METRIC], groups=7)[0]
    rows, prompts = world.matched("vanilla", "near", "far")
    points, real = world.embedded(rows[1])["features"], world.references[EXTRACTOR].features["features"].mean(0)
    direct = jackknife(lambda kept: float(np.linalg.norm(points[kept].mean(0) - real)), prompts, groups=7)
    assert only(table, metric="Apart ↓", setting="near")["value"] == direct


class Signed(MeanDistance):
    """An unbiased estimate of what is 0 for vanilla: of either sign."""

    quantities = (Quantity("toy/signed", "Signed", "", False),)

    def against(self, reference) -> Comparison:
        return SignedMeans(reference)


class SignedMeans:
    def __init__(self, reference):
        self.real = reference["features"]

    def scores(self, generated, subsets=None):
        every = [generated["features"][rows, 0] for rows in subsets or [slice(None)]]
        return [{"toy/signed": float(some.mean()) + 0.01} for some in every]


def test_no_share_of_what_may_be_nothing(world):
    known = world.features

    (rows, *_), _ = world.matched("vanilla", "near", "far")
    centre = world.embedded(rows)["features"].mean(0)

    def features(ids, extractor=None):  # vanilla's mean is just above 0, and its interval includes it
        far = np.array([name.startswith("far") for name in ids])
        return {"features": known(ids, extractor)["features"] - centre + 3 * far[:, None]}

    table = run("table-8", dataclasses.replace(world, features=features), set_metrics=[Signed()], metrics=[METRIC])[0]
    vanilla = only(table, metric="Signed ↓", setting="vanilla")["value"]
    assert vanilla.low < 0 < vanilla.value
    for name in ("near", "far"):
        assert only(table, metric="Signed ↓", setting=name)["relative"] is None
    assert only(table, metric="Signed ↓", setting="far")["change"].p < 0.05
    assert table.summary == "1 of 2 changes of set metrics differ from 0 after Holm's correction."


def test_the_headline_is_of_changes_that_are_clear(world):
    table = run("table-8", world, set_metrics=[MeanDistance()], metrics=[METRIC], groups=10)[0]
    clear = [row for row in table.records(metric="Apart ↓") if row["change"] and row["change"].p < 0.05]
    assert not clear
    assert "largest" not in table.summary


def test_the_metrics_of_the_room_fit():
    world = simulate([Knob("static", "static", 2, 1)], prompts={"all": 30}, width=768, reference=40)
    shipped = ["ensemble/vendi-set", "ensemble/precision"]

    def features(ids, extractor=ID):
        assert world.features is not None
        assert extractor in (ID, None)
        rows = np.abs(world.features(ids, None)["features"])
        return {
            "features": rows,
            "log_probabilities": np.zeros((len(ids), 6, 13)),
            "layout": np.zeros((len(ids), 6, 3)),
        }

    real = features(world.frame["sample_id"][:40].tolist())
    known = dataclasses.replace(world, features=features, references={ID: real_images(real, ID)})
    table = run("table-8", known, set_metrics=shipped, groups=4)[0]
    assert len({row["metric"] for row in table.records()}) == 2 + 3


def test_what_is_missing_is_said(world):
    with pytest.raises(MissingError, match="table-8: this needs metrics of sets") as raised:
        run("table-8", world)
    assert "\n  - ensemble/fd\n  - ensemble/kd" in str(raised.value)
    remedy = r"real images by toy/fp32@1 to compare with: symskew metrics reference FOLDER --features toy --out FILE"
    with pytest.raises(MissingError, match=remedy):
        run("table-8", dataclasses.replace(world, references={}), set_metrics=[MeanDistance()])
    with pytest.raises(MissingError, match="features of the images, which were not kept"):
        run("table-8", dataclasses.replace(world, features=None), set_metrics=[MeanDistance()])
    with pytest.raises(ValueError, match="table-8: ensemble/all-right is no metric of sets"):
        run("table-8", world, set_metrics=["ensemble/all-right"])
