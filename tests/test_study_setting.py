"""Settings that change along the way, in a study: how they are written, named, and hashed."""

import math

import pytest
import yaml

from folders import ensemble_folder
from symskew import Ramp
from symskew.generation import describe_request, request_of, settings_id
from symskew.models import load_model
from symskew.study.setting import Setting, expand


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(str(ensemble_folder(tmp_path_factory.mktemp("models") / "tiny")))


def only(written):
    (setting,) = expand("ramp", yaml.safe_load(written))
    return setting.request("a red one", 0, {}).circulation


def test_every_way_to_write_a_ramp_is_the_same_setting(model):
    ways = [
        "{alpha: 2..1:cosine, beta: {down: 1, mid: 3, up: 5..2}, branch: conditional}",
        "{alpha: {start: 2, stop: 1.0, shape: cosine}, beta: 'down=1,mid=3,up=5..2', branch: conditional}",
        "{branch: conditional, beta: {up: {stop: 2, start: 5}, mid: 3.0, down: 1}, alpha: [2..1:cosine]}",
    ]
    assert {only(way) for way in ways} == {only(ways[0])}
    ids = set()
    for way in ways:
        (setting,) = expand("ramp", yaml.safe_load(way))
        description = describe_request(model, setting.request("a red one", 0, {}))
        ids.add(settings_id(description))
        assert request_of(description).circulation == only(ways[0])
    assert len(ids) == 1
    assert only(ways[0]).alpha == Ramp(2, 1, "cosine")


def test_what_differs_has_another_id(model):
    ways = ["2..1", "1..2", "2..1:cosine", "2..1:depth", "2", "{down: 2, mid: 2, up: 1}", "{down: 2, up: 1}"]
    ids = set()
    for way in ways:
        (setting,) = expand("ramp", yaml.safe_load(f"{{alpha: {way}}}"))
        ids.add(settings_id(describe_request(model, setting.request("a red one", 0, {}))))
    assert len(ids) == len(ways)


def test_names_are_readable():
    settings = expand("ramp", {"alpha": [1.5, "2..1", {"down": 1, "up": {"start": 3, "stop": 1}}], "beta": 3})
    assert [setting.name for setting in settings] == ["ramp alpha=1.5", "ramp alpha=2..1", "ramp alpha=down=1,up=3..1"]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"alpha": "2:1"}, "settings: ramp: Circulation: alpha: expected a number, a ramp such as 2..1, .* got '2:1'"),
        (
            {"alpha": [{"start": 1}, {"start": 2}]},
            r"settings: ramp alpha=start=1: Circulation: alpha: Ramp: takes start and stop",
        ),
        ({"alpha": {"top": 1}}, "settings: ramp: Circulation: alpha takes a value for each of the stages .* got top"),
        ({"alpha": {1: 1}}, "settings: ramp: Circulation: alpha takes a value for each of the stages .* got 1"),
        ({"alpha": {"up": {"up": {"up": 1}}}}, "settings: ramp: Circulation: alpha: Ramp: takes start and stop"),
        (
            {"alpha": {"start": [1], "stop": 2}},
            r"settings: ramp: Circulation: alpha: Ramp: start must be a finite number, got \[1\]",
        ),
        ({"alpha": math.inf}, "settings: ramp: Circulation: alpha must be finite numbers"),
    ],
)
def test_what_makes_no_sense_is_refused(written, message):
    with pytest.raises(ValueError, match=message):
        list(expand("ramp", written))


def test_functions_are_refused_where_images_are_written(model):
    setting = Setting("function", "function", {"alpha": lambda at: 1 + at.depth})
    with pytest.raises(ValueError, match="alpha is a function, which cannot be written into an image or a study"):
        describe_request(model, setting.request("a red one", 0, {}))
