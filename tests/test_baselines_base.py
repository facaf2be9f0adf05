"""Baselines as settings: written down, read back, compared, refused."""

import json
import math

import pytest

from symskew import Circulation
from symskew.baselines import PAG, SEG, Baseline, CirculatedGuidance, FreeU, NullPerturbation

ALL = [
    PAG(3.0),
    PAG(2, layers=["mid", (0.2, 0.6)]),
    FreeU(1.3, 1.4, 0.9, 0.2),
    SEG(3.0),
    SEG(2.5, 1.5, layers="up"),
    CirculatedGuidance(2.0, Circulation(0.0, norm=None)),
    CirculatedGuidance(1.0, Circulation(1.2, 5, adaptive="call"), layers=("up_blocks.0.*", "mid")),
    NullPerturbation(2.0),
    NullPerturbation(
        1.05, 5, adaptive="sample", norm="baseline", strength=0.5, layers="up", start=0.2, stop=0.8, seed=7
    ),
]


@pytest.mark.parametrize("baseline", ALL, ids=lambda baseline: baseline.name)
def test_settings_survive_being_written(baseline):
    written = json.loads(json.dumps(baseline.to_dict(), allow_nan=False))
    again = Baseline.from_dict(written)
    assert again == baseline
    assert hash(again) == hash(baseline)
    assert again.to_dict() == written
    assert Baseline.kinds[written["name"]] is type(baseline)


def test_whole_numbers_are_the_same_settings():
    for one, other in ((PAG(3), PAG(3.0)), (SEG(3, 2), SEG(3.0, 2.0)), (FreeU(1, 1, 1, 2), FreeU(1.0, 1.0, 1.0, 2.0))):
        assert json.dumps(one.to_dict()) == json.dumps(other.to_dict())
    assert NullPerturbation(2, 3, seed=1.0).to_dict() == NullPerturbation(2.0, 3.0, seed=1).to_dict()  # pyright: ignore[reportArgumentType]
    assert SEG(3.0, math.inf).to_dict() == {"name": "seg", "scale": 3.0}


def test_passes_and_batches():
    assert {kind.name: kind.passes for kind in Baseline.kinds.values()} == {
        "pag": 3, "seg": 3, "circulated": 3, "freeu": 2, "null": 2,
    }  # fmt: skip
    assert [baseline.alone for baseline in ALL] == [False] * 6 + [True, False, False]
    assert NullPerturbation(2.0, adaptive="call").alone
    assert [baseline.window for baseline in ALL[-2:]] == [(0.0, 1.0), (0.2, 0.8)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "magic"}, "there is no baseline 'magic'; there are circulated, freeu, null, pag, seg"),
        ({"scale": 3}, "there is no baseline None"),
        ({"name": "seg", "scale": 3, "blur": 1}, "the baseline seg takes scale, sigma, layers and needs scale, got"),
        ({"name": "freeu", "b1": 1.1}, "the baseline freeu takes b1, b2, s1, s2 and needs b1, b2, s1, s2, got b1"),
        ({"name": "pag", "scale": 0}, "PAG: scale must be a number above 0, got 0"),
        ({"name": "pag", "scale": True}, "PAG: scale must be a number above 0, got True"),
        ({"name": "seg", "scale": -1}, "SEG: scale must be a number above 0, got -1"),
        ({"name": "seg", "scale": 1, "sigma": 0}, "SEG: sigma must be a number above 0, got 0"),
        ({"name": "freeu", "b1": 1, "b2": 1, "s1": 0, "s2": 1}, "FreeU: s1 must be a number above 0, got 0"),
        ({"name": "freeu", "b1": 1, "b2": 1, "s1": 1, "s2": 1}, "are all 1, which would do nothing"),
        ({"name": "circulated", "scale": 1, "circulation": {}}, "this circulation changes nothing"),
        ({"name": "circulated", "scale": 1, "circulation": {"alpha": 2, "beta": 0}}, "changes nothing"),
        ({"name": "circulated", "scale": 1, "circulation": {"alpha": [[1.0], [2.0]]}}, "must be numbers, the same for"),
        ({"name": "circulated", "scale": 1, "circulation": 2}, "expected a Circulation, got int"),
        (
            {"name": "circulated", "scale": 1, "circulation": {"alpha": 2, "gate": {"threshold": 0.3}}},
            "a gate would leave some images without",
        ),
        ({"name": "null", "alpha": 1}, "alpha = 1 or beta = 0 circulates nothing"),
        ({"name": "null", "alpha": 2, "beta": 0}, "alpha = 1 or beta = 0 circulates nothing"),
        ({"name": "null", "alpha": "two"}, "alpha: expected a number, a ramp such as 2..1.*got 'two'"),
        ({"name": "null", "alpha": 2, "strength": 0}, "NullPerturbation: strength must be a number above 0, got 0"),
        ({"name": "null", "alpha": 2, "seed": 0.5}, "seed must be a whole number, got 0.5"),
        ({"name": "null", "alpha": 2, "beta": -1}, "beta must be at least 0"),
        ({"name": "null", "alpha": 2, "adaptive": "token"}, "adaptive must be 'call', 'sample', 'head' or None"),
        ({"name": "null", "alpha": 2, "start": 0.5, "stop": 0.2}, "start must come before stop"),
    ],
)
def test_settings_that_are_none_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Baseline.from_dict(settings)
