"""The folder of a report: what is in it, that it is there whole or not at all, and what is refused."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import reports
from symskew.protocols.render import csv_text
from symskew.protocols.table import Column, ResultTable
from symskew.report import Claim, write_report

TABLE = ResultTable("table-1", "A table", (Column("Setting"),), (("<i>",),), "Nothing came out.", "Of nothing.", ("&",))


@pytest.fixture(scope="module")
def study():
    return reports.small()


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "deep" / "report"
    maps = {name: reports.conflict(name) for name in study.frame["sample_id"][70:72]}
    failures = reports.failed(study, 2, "out of\nmemory")
    page = reports.write(folder, study, tables=[TABLE], failures=failures, maps=lambda name: maps.get(name, {}))
    assert page == folder / "index.html"
    return folder


def data(folder, name):
    text = (folder / "data" / f"{name}.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix(f"symskew.data.{name} = ").removesuffix(";\n"))


def unpacked(text, kind="i4"):
    return np.frombuffer(base64.b64decode(text), f"<{kind}")


def test_images_are_the_bytes_that_were_given(folder, study):
    for place in (0, 57, len(study.frame) - 1):
        name = study.frame["sample_id"].iloc[place]
        assert (folder / "images" / f"{name}.png").read_bytes() == reports.png(place)
    assert len(list((folder / "images").iterdir())) == len(study.frame)
    assert not (folder / "thumbs").exists()
    assert [path.name for path in (folder / "maps").iterdir()] == ["1.js"]


def test_columns_are_those_of_the_frames(folder, study):
    samples, frame = data(folder, "samples"), study.frame
    count = len(frame) + 2
    assert samples["ids"] == [*frame["sample_id"], "failed0", "failed1"]
    assert samples["errors"] == {str(len(frame)): "out of memory", str(len(frame) + 1): "out of memory"}
    whole = {name: unpacked(samples[name]) for name in ("prompt", "setting", "seed", "role", "width", "has", "partner")}
    assert all(len(column) == count for column in whole.values())
    assert [samples["prompts"][i]["id"] for i in whole["prompt"][:-2]] == frame["prompt_id"].tolist()
    assert [samples["seeds"][i] for i in whole["seed"][:-2]] == frame["seed"].astype(str).tolist()
    assert [samples["roles"][i] for i in whole["role"][:-2]] == frame["role"].tolist()
    assert study.settings["setting_id"].iloc[whole["setting"][:-2]].tolist() == frame["setting_id"].tolist()
    assert whole["has"].tolist() == [1 + 4 * (place in (70, 71)) for place in range(len(frame))] + [0, 0]
    for row in range(count):
        other = whole["partner"][row]
        if row >= len(frame) or frame["family"].iloc[row] == "vanilla":
            assert other == -1
        else:
            same = frame.iloc[[row, other]]
            assert same["family"].iloc[1] == "vanilla"
            assert same[["prompt_id", "seed"]].nunique().tolist() == [1, 1]
    score = unpacked(samples["columns"]["metric:ensemble/log-likelihood"], "f4")
    assert np.allclose(score[:-2], frame["ensemble/log-likelihood"])
    assert np.isnan(score[-2:]).all()
    up = study.measures[(study.measures["stage"] == "up") & (study.measures["branch"] == "conditional")]
    energy = unpacked(samples["columns"]["measure:energy/up/conditional"], "f4")[:-2]
    assert np.allclose(energy, up.set_index("sample_id").loc[frame["sample_id"], "energy"])


def test_tables_settings_and_metrics_are_those_given(folder, study):
    found = data(folder, "study")
    assert found["tables"][0]["texts"]["csv"] == csv_text(TABLE)
    assert [setting["name"] for setting in found["settings"]] == study.settings["setting"].tolist()
    assert found["settings"][0] | {"alpha": None} == found["settings"][0]
    assert found["families"] == ["vanilla", "static", "adaptive"]
    assert [metric["kind"] for metric in found["metrics"]] == ["sample"] * 3 + ["pair"]
    page = (folder / "index.html").read_text(encoding="utf-8")
    for text in ("&lt;i&gt;", "Nothing came out.", "Of nothing.", '<li dir="auto">&amp;</li>', "0123456789abcdef"):
        assert text in page
    assert "select 1 · eval 2 · placebo 1" in page
    assert "tuning 6 · heldout 14" in page


def test_large_images_get_thumbnails(study, tmp_path):
    few = replace(study, frame=study.frame.head(3), measures=study.measures.head(0), pairs=study.pairs.head(0))
    page = reports.write(tmp_path / "large", few, size=(800, 400))
    assert "thumbs" in page.read_text(encoding="utf-8") or len(few.settings) > 1
    for name in few.frame["sample_id"]:
        with (
            Image.open(page.parent / "thumbs" / f"{name}.jpg") as small,
            Image.open(page.parent / "images" / f"{name}.png") as whole,
        ):
            assert (small.size, whole.size) == ((320, 160), (800, 400))


def test_a_report_is_replaced_and_other_files_are_not(study, tmp_path):
    few = replace(study, frame=study.frame.head(8), measures=study.measures.head(0), pairs=study.pairs.head(0))
    folder = tmp_path / "report"
    folder.mkdir()
    reports.write(folder, few, title="first")
    reports.write(folder, few, title="second")
    assert '<h1 id="overview-title" dir="auto">second</h1>' in (folder / "index.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "index.html").write_text("mine")
    with pytest.raises(FileExistsError, match="thesis has files that are no report; give another folder, or empty it"):
        reports.write(other, few)
    with pytest.raises(ValueError, match=f"the image of {few.frame['sample_id'].iloc[0]} must be PNG, got b'GIF89a'"):
        write_report(folder, few, [], lambda name: b"GIF89a", title="", provenance={})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["report", "thesis"]
    assert "second" in (folder / "index.html").read_text(encoding="utf-8")


def test_what_cannot_be_shown_is_refused_before_work_starts(study, tmp_path):
    def never(name):
        raise AssertionError("work had started")

    def write(found=study, **more):
        write_report(tmp_path / "no", found, [], never, title="", provenance={}, **more)

    strange = study.frame.assign(sample_id=["../x", *study.frame["sample_id"][1:]])
    empty = study.measures.head(0)
    with pytest.raises(ValueError, match=r"must be of letters, digits, _ and -, got '\.\./x'"):
        write(replace(study, frame=strange, measures=empty))
    with pytest.raises(ValueError, match=r"failures need the columns .* error; error is not there"):
        write(failures=study.frame.head(1))
    with pytest.raises(ValueError, match="a failure is of the setting 'other', which the evidence does not know"):
        write(failures=reports.failed(study, 1).assign(setting_id="other"))
    with pytest.raises(ValueError, match="a sample of failures is also among those that were made"):
        write(failures=reports.failed(study, 1).assign(sample_id=study.frame["sample_id"].iloc[0]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("map", "why"),
    [(np.zeros(3), r"\(3,\)"), (np.full((2, 2), 1.5), "with values from 1.5 to 1.5"), (np.zeros((0, 2)), "")],
)
def test_a_map_is_of_shares(study, tmp_path, map, why):
    with pytest.raises(ValueError, match=r"must be \(height, width\), of shares from 0 to 1, got shape .*" + why):
        reports.write(tmp_path / "no", study, maps=lambda name: {"up": map})


def test_the_least_there_can_be_makes_a_page(study, tmp_path):
    bare = replace(study, frame=study.frame.tail(1), measures=study.measures.head(0), pairs=study.pairs.head(0))
    page = reports.write(tmp_path / "bare", bare, provenance={}).read_text(encoding="utf-8")
    assert "No tables were made for this report." in page
    assert "Nothing is recorded." in page
    assert "A random draw" not in page


def test_the_draw_is_of_prompts_and_seeds_that_all_have(folder, study):
    page = (folder / "index.html").read_text(encoding="utf-8")
    rows = [row.split("</tr>")[0] for row in page.split('<table class="draw">')[1].split("<tr>")[1:]]
    ids = [[link.split('"')[0] for link in row.split("#gallery?open=")[1:]] for row in rows[:3]]
    frame = study.frame.set_index("sample_id")
    assert [len(row) for row in ids] == [8, 8, 8]
    assert [frame.loc[row, "setting"].unique().tolist() for row in ids] == [
        ["vanilla"],
        ["static α=1.5 β=1"],
        ["adaptive α=2 β=1"],
    ]
    for column in zip(*ids, strict=True):
        assert frame.loc[list(column), ["prompt_id", "seed"]].nunique().tolist() == [1, 1]
    assert frame.loc[ids[0], "prompt_id"].nunique() == 8


def test_claims_are_shown_as_given(study, tmp_path):
    few = replace(study, frame=study.frame.head(8), measures=study.measures.head(0), pairs=study.pairs.head(0))
    page = reports.write(tmp_path / "claims", few, claims=[Claim("<b> helps", "Holds", "-0.1")])
    text = page.read_text(encoding="utf-8")
    assert 'data-verdict="holds" dir="auto">Holds</span><p dir="auto">&lt;b&gt; helps</p>' in text
    assert "−0.1</p>" in text
