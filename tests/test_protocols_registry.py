import dataclasses
import inspect
import json
from typing import get_args

import pytest
import yaml

from evidence import Knob, simulate
from symskew import metrics
from symskew.protocols import MissingError, ResultTable, protocols, run
from symskew.protocols.needs import OTHERS, SEEDS, SETTINGS, SHIPPED, Scores
from symskew.protocols.registry import ORDER, protocol
from symskew.protocols.world import LOOKS

NAMES = list(ORDER)


def test_all_tables_are_known_and_described():
    known = protocols()
    assert list(known) == NAMES
    for name in NAMES:
        assert known[name].about
        assert all(p.kind is p.KEYWORD_ONLY for p in list(inspect.signature(known[name].make).parameters.values())[1:])


def test_names_and_options_are_checked_before_anything_is_computed():
    world = simulate(prompts={"all": 3})
    with pytest.raises(ValueError, match=r"there is no table 'table-3c'; did you mean table-3\w\?"):
        run("table-3c", world)
    with pytest.raises(ValueError, match="there is no table 'x'; there are table-1, "):
        run("x", world)
    with pytest.raises(
        ValueError, match="table-1: there is no option 'colour'; there are metrics, diversity, branch, draws, prompts"
    ):
        run("table-1", world, colour="red")
    with pytest.raises(ValueError, match="no set of prompts 'other'; there are all"):
        run("table-1", world, prompts="other")


def test_one_table_or_several_come_as_a_list():
    protocols()
    made: list[int] = []

    @protocol("toy", "a toy")
    def toy(evidence, *, size: int = 1):
        """A toy."""
        made.append(size)
        table = ResultTable("toy", "", (), (), "", f"{len(evidence.frame)} {size}")
        return table if size == 1 else [table] * size

    try:
        world = simulate(prompts={"a": 2, "b": 3}, seeds={"eval": 1})
        assert [table.caption for table in run("toy", world)] == ["5 1"]
        assert [table.caption for table in run("toy", world, size=2, prompts="a")] == ["2 2", "2 2"]
        assert toy.__doc__ == "A toy."
        run("toy", world, size=1)  # the same options as without any: made before
        run("toy", world, size=2, prompts=["a"])
        assert made == [1, 2]
    finally:
        from symskew.protocols.registry import _PROTOCOLS

        del _PROTOCOLS["toy"]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "claims"])
def test_a_study_of_vanilla_alone_is_told_what_it_lacks_in_yaml(name):
    world = simulate(diagnosed=[], seeds={"eval": 1}, prompts={"all": 12})
    with pytest.raises(MissingError) as raised:
        run(name, world)
    head, *lines = str(raised.value).splitlines()
    assert head.startswith(f"{name}: this needs ")
    assert head.endswith("In the study's YAML:")
    written = yaml.safe_load("\n".join(lines))
    assert set(written) <= {"prompts", "seeds", "settings", "runs", "metrics"}


def test_the_lines_are_a_study():
    study = pytest.importorskip("symskew.study")
    error = MissingError("much", settings=[*SETTINGS], roles=[*SEEDS], diagnosed=["vanilla"], metrics="sets")
    written = yaml.safe_load("\n".join(error.lines))
    parsed = study.Study.of({"model": "ensemble-sdxl", "prompts": {"mine": ["a red three"]}, **written})
    assert set(parsed.seeds) == set(SEEDS)
    families = {setting.family for setting in parsed.settings.values()}
    assert families == set(SETTINGS)
    assert parsed.runs[0].roles == tuple(SEEDS)


def test_the_lines_fit_the_study_that_they_are_added_to():
    study = pytest.importorskip("symskew.study")
    written = {
        "model": "ensemble-sdxl", "prompts": {"all": ["a red three"]}, "seeds": {"eval": "0-7"},
        "settings": {"vanilla": {}, "static": {"alpha": [1.5, 3]}}, "runs": [{"prompts": "all"}],
    }  # fmt: skip
    world = simulate([Knob("s", "static", 1.5, 1)], diagnosed=[], seeds={"eval": 2}, prompts={"all": 12})
    world = dataclasses.replace(world, seeds=study.Study.of(written).seeds)
    for name, roles in (("table-2", {"select": [8, 9]}), ("table-5", {})):
        with pytest.raises(MissingError) as raised:
            run(name, world)
        added = yaml.safe_load("\n".join(str(raised.value).splitlines()[1:]))
        assert "settings" not in added  # the study has both families
        both = {
            key: {**written[key], **new} if isinstance(new, dict) else [*written.get(key, []), *new]
            for key, new in added.items()
        }
        parsed = study.Study.of({**written, **both})
        assert {role: list(seeds) for role, seeds in parsed.seeds.items()} == {"eval": list(range(8)), **roles}
        assert parsed.runs[-1].diagnose is not None


def test_seeds_that_are_asked_for_are_in_nobodys_way():
    error = MissingError("much", roles=["select", "eval", "placebo"])
    error.seeds = {"eval": (0, 1, 12)}
    assert yaml.safe_load("\n".join(error.lines)) == {"seeds": {"select": "13-14", "placebo": "6-9"}}
    error.seeds = {"eval": (1, 2, 7)}
    assert yaml.safe_load("\n".join(error.lines)) == {"seeds": {"select": "8-9", "placebo": "10-13"}}


@pytest.mark.parametrize(("model", "wanted"), [
    ("ensemble-sdxl", "ensemble/fd"), ("stabilityai/stable-diffusion-xl-base-1.0", "dinov2-l/fd"), ("", "dinov2-l/fd"),
])  # fmt: skip
def test_metrics_are_those_that_fit_the_model(model, wanted):
    world = simulate(diagnosed=[], prompts={"all": 12})
    world = dataclasses.replace(world, settings=world.settings.assign(json=json.dumps({"model": model})))
    with pytest.raises(MissingError, match="table-8: this needs metrics of sets") as raised:
        run("table-8", world)
    written = yaml.safe_load("\n".join(str(raised.value).splitlines()[1:]))
    assert written["metrics"][0] == wanted


@pytest.mark.parametrize("known", [SHIPPED, OTHERS])
def test_what_is_suggested_judges_what_it_should(known):
    kinds = {"samples": "sample", "looks": "sample", "diversity": "pair", "sets": "set"}
    assert set(known) == set(kinds) == set(get_args(Scores))
    for scores, names in known.items():
        assert {metric.kind for metric in metrics.find(names)} == {kinds[scores]}
    assert all(any(part in name for part in LOOKS) for name in known["looks"])


def test_an_error_without_a_remedy_is_one_sentence():
    error = MissingError("luck")
    assert str(error) == "symskew: this needs luck"
    error.table = "table-1"
    assert str(error) == "table-1: this needs luck"


def test_missing_settings_of_another_name_are_asked_for_by_it():
    with pytest.raises(MissingError) as raised:
        run("table-3a", simulate([Knob("s", "static", 2, 1)]), families="gentle")
    assert "settings of the family gentle; the study has vanilla, static" in str(raised.value)
    assert "settings:\n  gentle: {alpha:" in str(raised.value)
