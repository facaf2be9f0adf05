"""Studies as they are written down: grids, sets of prompts, roles of seeds, and every mistake named."""

import pytest
import yaml

from symskew import Circulation
from symskew.baselines import PAG, NullPerturbation
from symskew.ensemble.prompts import make_prompts
from symskew.study import Study
from tinystudy import tiny_study

BASE = {"model": "ensemble-sdxl", "prompts": {"mine": ["a red three"]}, "settings": {"vanilla": {}}}


def settings(**written):
    return Study.of({**BASE, "settings": written}).settings


def test_grids_are_products_in_order_and_names_tell_what_varies():
    found = settings(vanilla={}, static={"alpha": [1.5, 2], "beta": [1, 3], "layers": ["up", "mid"]})
    assert list(found) == [
        "vanilla", "static alpha=1.5 beta=1", "static alpha=1.5 beta=3",
        "static alpha=2 beta=1", "static alpha=2 beta=3",
    ]  # fmt: skip
    request = found["static alpha=2 beta=3"].request("a red three", 4, {"steps": 5})
    assert (request.circulation, request.layers, request.steps) == (Circulation(2, 3), ("up", "mid"), 5)
    assert {each.family for each in found.values()} == {"vanilla", "static"}


@pytest.mark.parametrize(
    ("knobs", "circulation"),
    [
        ({"method": "sym-only"}, Circulation.sym_only()),
        ({"method": "skew-only"}, Circulation.skew_only()),
        ({"method": "temperature", "tau": 0.7}, Circulation.temperature(0.7)),
        ({"alpha": 2, "adaptive": "sample"}, Circulation(2, adaptive="sample")),
    ],
)
def test_circulations_by_name(knobs, circulation):
    assert settings(one=knobs)["one"].request("p", 0, {}).circulation == circulation


def test_other_methods_take_the_layers_for_themselves():
    pag = settings(pag={"method": "pag", "scale": 2, "layers": "up"})["pag"].request("p", 0, {})
    assert pag.baseline == PAG(2, layers="up")
    assert pag.layers is None
    null = settings(null={"method": "null", "alpha": 2, "beta": 3, "start": 0.2})["null"].request("p", 0, {})
    assert null.baseline == NullPerturbation(2, 3, start=0.2)


def test_a_null_that_yaml_reads_as_nothing_is_a_null():
    written = {**BASE, "settings": {None: {"method": None, "alpha": 2}}, "runs": [{"settings": [None]}]}
    study = Study.of(yaml.safe_load(yaml.safe_dump(written)))
    assert study.settings["null"].request("p", 0, {}).baseline == NullPerturbation(2)
    assert study.settings["null"].family == "null"


def test_a_setting_overrides_what_is_common():
    study = Study.of({**BASE, "steps": 7, "guidance": 3, "settings": {"vanilla": {}, "strong": {"guidance": 9}}})
    assert [s.request("p", 0, study.common).guidance for s in study.settings.values()] == [3, 9]


def test_prompts_come_from_lists_files_and_ensemble(tmp_path):
    (tmp_path / "some.txt").write_text("# a comment\na red three\n\na blue one\na blue one\n")
    written = {"a": {"file": "some.txt"}, "b": {"ensemble": {"count": 4, "seed": 3, "objects": [2]}}, "c": [" x ", "y"]}
    study = Study.of({**BASE, "prompts": written}, tmp_path)
    assert study.prompts["a"].texts == ("a red three", "a blue one")
    assert study.prompts["b"].texts == tuple(p.text for p in make_prompts(4, seed=3, objects=(2,)))
    assert study.prompts["c"].texts == ("x", "y")


def test_ensembles_prompts_are_as_many_as_asked_for_though_some_are_drawn_twice():
    texts = Study.of({**BASE, "prompts": {"one": {"ensemble": {"count": 40, "objects": [1]}}}}).prompts["one"].texts
    assert len(set(texts)) == 40


def test_what_is_written_stands_for_itself(tmp_path):
    (tmp_path / "some.txt").write_text("a red three\n")
    study = Study.of({**BASE, "prompts": {"a": {"file": "some.txt"}}}, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "study.yaml"
    copy.write_text(study.text())
    again = Study.read(copy)
    assert again.prompts == study.prompts
    assert again.settings == study.settings
    assert again.runs == study.runs


def test_runs_default_to_everything_and_families_name_their_settings():
    study = Study.of(BASE)
    assert [(run.prompts, run.roles, run.settings) for run in study.runs] == [("mine", ("eval",), ("vanilla",))]
    assert tiny_study("m").runs[-1].settings == ("static alpha=1.5", "static alpha=3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle": "x"}, "a study: there is no 'modle'; did you mean model?"),
        ({"model": None}, "a study needs model"),
        ({"prompts": {"mine": []}}, "prompts: mine: there is no prompt"),
        ({"prompts": {"mine": {"file": "../x"}}}, "prompts: mine: the file ../x lies outside of the study's folder"),
        ({"prompts": {"mine": {"file": "none.txt"}}}, "prompts: mine: none.txt cannot be read: No such file"),
        ({"prompts": {"mine": {"ensemble": {"cuont": 3}}}}, "prompts: mine: .*cuont"),
        ({"prompts": {"mine": {"ensemble": {"count": 400, "objects": [1]}}}}, r"only \d+ different prompts"),
        (
            {"prompts": {"a": ["x"], "b": ["x"]}},
            "'x' is both in a and in b; what is tuned on one set must be tested on",
        ),
        ({"seeds": {"eval": "0-3", "select": "3"}}, "seeds: 3 is both for eval and for select"),
        ({"seeds": {"evil": "0"}}, "seeds: there is no 'evil'; did you mean eval?"),
        ({"seeds": {"eval": "x"}}, "seeds: eval: expected numbers and ranges such as 0-7 or 1,5,9, got 'x'"),
        ({"settings": {"one": {"alpha": "much"}}}, "settings: one: Circulation: alpha: expected a number"),
        ({"settings": {"one": {"alhpa": 2}}}, "settings: one: Circulation: unknown settings \\['alhpa'\\]"),
        ({"settings": {"one": {"alpha": []}}}, "settings: one: alpha has no value"),
        ({"settings": {"one": {"method": "magic"}}}, "settings: one: there is no method 'magic'; there are: sym-only"),
        ({"settings": {"one": {"method": "temperature"}}}, "settings: one: .*tau"),
        ({"settings": {"one": {"method": "pag"}}}, "settings: one: the baseline pag takes .* needs scale"),
        ({"settings": {"one": 3}}, "settings: one: expected knobs with values, got 3"),
        ({"runs": [{"settings": "vanila"}]}, "settings of a run: there is no 'vanila'; did you mean vanilla?"),
        ({"runs": [{"prompts": "yours"}]}, "prompts of a run: there is no 'yours'; there are: mine"),
        ({"runs": [{"seeds": "placebo"}]}, "seeds of a run: there is no 'placebo'"),
        ({"runs": [{"limit": 0}]}, "limit of a run must be a whole number of at least 1, got 0"),
        ({"chunk": 0}, "chunk must be a whole number of at least 1, got 0"),
        ({"metrics": "fid"}, "metrics must be a list of names, got 'fid'"),
    ],
)
def test_mistakes_are_named(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Study.of({**BASE, **changes}, tmp_path)


def test_a_file_that_is_no_study(tmp_path):
    file = tmp_path / "study.yaml"
    with pytest.raises(ValueError, match=r"study.yaml cannot be read: No such file"):
        Study.read(file)
    file.write_text("a: [")
    with pytest.raises(ValueError, match=r"study.yaml: it is no YAML: while parsing"):
        Study.read(file)
    file.write_text(yaml.safe_dump({**BASE, "settings": {"x": {"alpha": -math_nan()}}}))
    with pytest.raises(ValueError, match=r"study.yaml: settings: x: Circulation: alpha must be finite"):
        Study.read(file)
    file.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ValueError, match=r"could not determine a constructor"):
        Study.read(file)


def math_nan() -> float:
    return float("nan")
