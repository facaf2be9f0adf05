"""A page that is made again from what was kept of a study is the same page."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from evidence import Knob, Metric, simulate
from symskew.protocols import kept as room
from symskew.protocols import protocols, write_results
from symskew.protocols.distances import COLUMN, between_seeds, farther, from_vanilla
from symskew.protocols.kept import evidence_of, keep, kept

FROM_SETS = {"table-8"}
"""What is made from whole sets of features, which are not kept."""


@pytest.fixture(scope="module")
def found():
    """What a study of all families found, with scores that tie: thirds, whose means rounding would tell apart."""
    knobs = [
        Knob("static", "static", 2, 1, effect=-0.3, strength=0.8),
        Knob("below", "static", 0.9, 1, effect=0.1, strength=0.4),
        Knob("adaptive", "adaptive", 2, 1, strength=0.6),
        Knob("null", "null", 2, 1),
        Knob("hot", "temperature", effect=-0.2, strength=0.7),
        Knob("sym", "sym-only", strength=0.5),
        Knob("skew", "skew-only", strength=0.9, drop=7),
    ]
    metrics = [Metric("ensemble/log-likelihood", -6, 3), Metric("ensemble/objects-right")]
    world = simulate(
        knobs, prompts={"tuning": 10, "heldout": 30}, seeds={"select": 3, "eval": 3, "placebo": 1}, metrics=metrics
    )
    thirds = (3 * world.frame["ensemble/objects-right"]).round().clip(0, 3) / 3
    return dataclasses.replace(world, frame=world.frame.assign(**{"ensemble/objects-right": thirds}))


def in_folder(found):
    """The same as the evidence of a study's folder."""
    results = SimpleNamespace(
        study=SimpleNamespace(model="toy", seeds={"eval": range(2, 6)}),
        has_features=found.features is not None,
        **{name: getattr(found, name) for name in (*room.TABLES, "features", "references")},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "references_in", lambda results: dict(results.references))
        return evidence_of(results)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def study(found):
    return in_folder(found)


def page(path, evidence):
    names = [name for name in protocols() if name not in FROM_SETS]
    path.write_text("\n".join(f"<!-- {name}: begin -->\n<!-- {name}: end -->\n" for name in names))
    made = write_results(evidence, path, folder=path.parent / path.stem)
    return {table.name for table in made}, path.read_text().splitlines()


def test_the_page_made_from_what_was_kept_is_the_same(study, tmp_path):
    keep(study, tmp_path / "kept")
    first, second = (
        page(tmp_path / f"{name}.md", each) for name, each in (("a", study), ("b", kept(tmp_path / "kept")))
    )
    assert first[0] == second[0] >= {"figure-3", "figure-9", "figure-9-sweep", "table-3b", "quantiles", "claims"}
    assert any(line.startswith("| distance from vanilla | sym |") for line in second[1])
    assert first[1] == second[1]
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_keeping_what_was_kept_changes_nothing(study, tmp_path):
    size = keep(study, tmp_path / "once")
    assert keep(kept(tmp_path / "once"), tmp_path / "twice") == size
    for name in room.TABLES:
        once, twice = ((tmp_path / each / f"{name}.parquet").read_bytes() for each in ("once", "twice"))
        assert once == twice


def test_distances_are_those_that_were_measured(study, tmp_path):
    keep(study, tmp_path)
    again = kept(tmp_path)
    assert again.features is None
    assert COLUMN not in study.frame
    assert from_vanilla(again, "skew")[0].tolist() == from_vanilla(study, "skew")[0].tolist()
    assert between_seeds(again)[0].tolist() == between_seeds(study)[0].tolist()
    assert farther(again, "sym", "skew") == farther(study, "sym", "skew")
    assert np.isnan(again.frame[COLUMN][again.frame["role"] != "eval"]).all()
    # Also where a part of the prompts is asked for.
    part, same = again.on("tuning"), study.on("tuning")
    assert between_seeds(part)[0].tolist() == between_seeds(same)[0].tolist()


def test_the_knobs_are_kept_as_they_were_written(study, tmp_path):
    keep(study, tmp_path)
    assert kept(tmp_path).settings["alpha"].dropna().tolist() == study.settings["alpha"].dropna().tolist()


def test_a_study_without_features_has_no_distances(tmp_path):
    without = in_folder(simulate([Knob("sym", "sym-only")], prompts={"all": 12}, with_features=False))
    assert without.features is None
    keep(without, tmp_path)
    assert COLUMN not in kept(tmp_path).frame


def test_refusals(study, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="holds no evidence that was kept"):
        kept(tmp_path)
    monkeypatch.setattr(room, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1000, which is too much to keep"):
        keep(study, tmp_path / "none")
    assert not (tmp_path / "none").exists()
