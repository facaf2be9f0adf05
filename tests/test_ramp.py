"""Values that change along the way: closed forms, what they become at a point, how they are written and read."""

import json
import math
import re
from typing import Any

import pytest
import torch
import yaml

from symskew import Circulation, Gate, Point, Ramp, circulate
from symskew.circulate import circulated
from symskew.ramp import parse, spell

WRONG: Any = Circulation  # out of sight of a type checker
WRONG_RAMP: Any = Ramp
STAGES = {"down": 1, "mid": Ramp(3, 1, "cosine"), "up": Ramp(2, 5, over="depth")}


@pytest.mark.parametrize("over", ["steps", "depth"])
def test_closed_forms(over):
    for t in (0.0, 0.1, 0.5, 0.9, 1.0):
        point = Point(progress=t) if over == "steps" else Point(depth=t)
        assert Ramp(2, -1, over=over)(point) == pytest.approx(2 - 3 * t, abs=1e-15)
        assert Ramp(2, -1, "cosine", over)(point) == pytest.approx(0.5 + 1.5 * math.cos(math.pi * t), abs=1e-15)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_the_ends_are_exact_and_the_middle_is_the_mean(shape):
    for start, stop in ((2.0, 1.0), (0.1, 0.3), (-1e8, 1 / 3)):
        ramp = Ramp(start, stop, shape)
        assert (ramp(Point(0)), ramp(Point(1))) == (start, stop)
        assert ramp(Point(0.5)) == pytest.approx((start + stop) / 2)
        values = [ramp(Point(step / 40)) for step in range(41)]
        assert values == sorted(values, reverse=start > stop)


def test_settings_at_a_point():
    circulation = Circulation(Ramp(2, 1), STAGES, adaptive="sample", branch="conditional", tokens="image")
    rest: Any = {"adaptive": "sample", "tokens": "image"}
    at = circulation.at(progress=0.25, stage="up", depth=0.5, branch="conditional")
    assert at == Circulation(1.75, 3.5, **rest)
    assert circulation.at(progress=0.5, stage="mid", branch="conditional") == Circulation(1.5, 2.0, **rest)
    assert circulation.at(progress=1, stage="down", branch="conditional").is_identity
    assert circulation.at(branch="unconditional") == Circulation()
    assert Circulation(lambda at: 1 + at.depth * at.progress, 3).at(progress=0.5, depth=0.5) == Circulation(1.25, 3)
    alpha = torch.tensor([[1.5], [0.5]])
    assert Circulation(alpha, Ramp(1, 3)).at(progress=0.5).alpha is alpha


def test_a_value_for_each_stage_that_is_always_one_is_the_identity():
    assert Circulation({"down": 1, "mid": 1, "up": 1}).is_identity
    assert not Circulation({"down": 1, "mid": 1, "up": 2}).is_identity
    assert not Circulation(Ramp(1, 2)).is_identity


def test_what_is_resolved_is_what_circulates():
    q, k, v = torch.randn(3, 2, 4, 16, 8)
    settings = Circulation(Ramp(2, 1), {"up": Ramp(1, 5)}, gate=Gate("energy", -1.0))
    found = circulated(q, k, v, settings.at(progress=0.25, stage="up"))
    want = circulated(q, k, v, Circulation(1.75, 2.0, gate=Gate("energy", -1.0)))
    assert torch.equal(found.out, want.out)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Circulation(Ramp(2, 1)), r"circulate: alpha is Ramp\(2.0, 1.0\), which changes along the way; take the "),
        (Circulation(2, {"up": 3}), r"circulate: beta is {'up': 3.0}, which changes .* circulation.at\(progress=0.5"),
        (Circulation(2, branch="conditional"), r"circulate: branch is 'conditional'; take the settings of one call"),
    ],
)
def test_the_maths_refuse_what_is_not_resolved(settings, message):
    q, k, v = torch.randn(3, 2, 4, 16, 8)
    with pytest.raises(ValueError, match=message):
        circulate(q, k, v, settings)
    with pytest.raises(ValueError, match=message):
        settings.effective(q, k)


@pytest.mark.parametrize(
    ("settings", "given", "message"),
    [
        ({"alpha": Ramp(2, 1)}, {}, r"depends on the progress, which is not known here; give it, as in circulation.at"),
        ({"alpha": Ramp(2, 1, over="depth")}, {"progress": 0}, "depends on the depth"),
        ({"alpha": {"up": 2}}, {}, "depends on the stage"),
        ({"alpha": {"up": 2}}, {"stage": "mid"}, "alpha has a value for up, but none for the stage mid; give one, or"),
        ({"alpha": lambda at: at.depth}, {}, "depends on the depth"),
        ({"alpha": lambda at: math.nan}, {}, r"alpha at Point\(.*\) must be a finite number, got nan"),
        ({"beta": lambda at: -1.0}, {}, "beta must be at least 0, got -1.0"),
        ({"alpha": Ramp(2, 1)}, {"progress": 1.2}, "progress is between 0 and 1, got 1.2"),
        ({"alpha": Ramp(2, 1)}, {"progress": math.nan}, "progress is between 0 and 1, got nan"),
        (
            {"alpha": Ramp(2, 1)},
            {"progress": 0, "stage": "top"},
            "stage must be 'down', 'mid', 'up' or None, got 'top'",
        ),
        ({"alpha": 2, "branch": "conditional"}, {}, "acts on the conditional branch; give branch=, got None"),
    ],
)
def test_what_is_not_known_at_a_point_is_named(settings, given, message):
    with pytest.raises(ValueError, match=message):
        Circulation(**settings).at(**given)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Ramp(1, math.inf), "Ramp: stop must be a finite number, got inf"),
        (lambda: WRONG_RAMP("1", 2), "Ramp: start must be a finite number, got '1'"),
        (lambda: Ramp(2, 2), "Ramp: start and stop are both 2; give the number itself"),
        (lambda: WRONG_RAMP(1, 2, "round"), "Ramp: shape must be 'linear' or 'cosine', got 'round'"),
        (lambda: WRONG_RAMP(1, 2, over="time"), "Ramp: over must be 'steps' or 'depth', got 'time'"),
        (lambda: WRONG(2, Ramp(1, -1)), "beta must be at least 0, got Ramp"),
        (lambda: WRONG(2, {"up": -1}), "beta must be at least 0"),
        (lambda: WRONG({"top": 1}), "alpha takes a value for each of the stages down, mid, up, got top"),
        (lambda: WRONG({}), "stages down, mid, up, got none"),
        (lambda: WRONG({"up": "much"}), "alpha of up must be a finite number, got 'much'"),
        (lambda: WRONG({"up": {"up": 1}}), "alpha takes a number or a ramp for each stage"),
        (lambda: WRONG(1, sym=Ramp(1, 2)), "sym must be finite numbers"),
        (lambda: WRONG(2, branch="both"), "branch must be 'conditional', 'unconditional' or None, got 'both'"),
    ],
)
def test_what_makes_no_sense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    "settings",
    [
        Circulation(Ramp(2, 1), 3),
        Circulation(STAGES, Ramp(1, 5, "cosine", "depth"), branch="unconditional", tokens="image"),
        Circulation(2, {"up": 1, "down": 0}, adaptive="call", gate=Gate("alignment", 0.2)),
        Circulation(torch.tensor([[2.0], [1.0]]), Ramp(3, 1)),
    ],
    ids=str,
)
def test_written_down_and_read_again(settings):
    for write, read in ((json.dumps, json.loads), (yaml.safe_dump, yaml.safe_load)):
        again = Circulation.from_dict(read(write(settings.to_dict())))
        assert again == settings
        assert hash(again) == hash(settings)
        assert repr(again) == repr(settings)


def test_stages_in_any_order_are_the_same_settings():
    one, other = Circulation({"up": 2, "down": 1}), Circulation({"down": 1.0, "up": 2.0})
    assert one == other
    assert json.dumps(one.to_dict()) == json.dumps(other.to_dict())


def test_functions_compare_but_cannot_be_written_down():
    def rule(at):
        return 1 + at.depth

    for settings in (Circulation(rule), Circulation(2, {"up": rule})):
        with pytest.raises(ValueError, match=r"is a function, which cannot be written .* give a Ramp or a value for "):
            settings.to_dict()
        assert "rule" in repr(settings)
    assert Circulation(rule) == Circulation(rule) != Circulation(lambda at: 1 + at.depth)
    assert len({Circulation(rule), Circulation(rule)}) == 1


WRITTEN = {
    "2": 2.0,
    "-0.5": -0.5,
    "2..1": Ramp(2, 1),
    "-1..1.5:cosine": Ramp(-1, 1.5, "cosine"),
    ".5..1e0:depth": Ramp(0.5, 1, over="depth"),
    "2..1:cosine:depth": Ramp(2, 1, "cosine", "depth"),
    "down=1,mid=3,up=5..1:cosine": {"down": 1.0, "mid": 3.0, "up": Ramp(5, 1, "cosine")},
}


@pytest.mark.parametrize(("text", "value"), WRITTEN.items(), ids=WRITTEN)
def test_text(text, value):
    assert parse(text) == value
    assert parse(spell(value)) == value
    assert spell(Circulation(value, 2).to_dict()["alpha"]) == spell(value)
    # As YAML reads it without quotes: `2:1` would be 121, in sixties.
    assert Circulation.from_dict(yaml.safe_load(f"{{alpha: [{text.split(',')[0]}]}}") | {"alpha": text}).alpha == value
    if "=" not in text:
        (read,) = yaml.safe_load(f"[{text}]")
        assert Circulation.from_dict({"alpha": read}).alpha == value


@pytest.mark.parametrize("text", ["", "much", "2..", "..1", "1..2..3", "2..1:round", "up=", "up=1,up=2", "2:1", "mid"])
def test_text_that_means_nothing(text):
    with pytest.raises(ValueError, match=re.escape(f"got {text!r}")):
        parse(text)


def test_mappings_that_are_no_ramp():
    with pytest.raises(ValueError, match="takes start and stop, and perhaps shape and over, got start, end"):
        Circulation.from_dict({"alpha": {"start": 1, "end": 2}})
    assert Circulation.from_dict({"alpha": {"down": "2..1", "up": 3}}).alpha == {"down": Ramp(2, 1), "up": 3.0}
