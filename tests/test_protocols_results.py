import csv

import pytest

from evidence import Knob, simulate
from symskew.protocols import results, write_results

METRIC = "ensemble/log-likelihood"


@pytest.fixture(scope="module")
def world():
    return simulate([Knob("static <b>", "static", 2, 1)], prompts={"all": 30})


def page(tmp_path, *names):
    path = tmp_path / "page.md"
    path.write_text(
        "# Results\n\n" + "\n".join(f"<!-- {n}: begin -->\nold\n<!-- {n}: end -->\n" for n in names) + "tail\n"
    )
    return path


def test_tables_go_where_the_page_has_a_place(world, tmp_path):
    path, folder = page(tmp_path, "table-3a", "table-6"), tmp_path / "csv" / "deep"
    made = write_results(world, path, folder=folder, options={"table-3a": {"metrics": [METRIC]}})
    text = path.read_text()
    assert [table.name for table in made] == ["table-3a"]
    assert "old" not in text
    assert text.startswith("# Results")
    assert text.endswith("tail\n")
    assert "**All prompts, setting by setting.** " in text
    assert "static &lt;b&gt;" in text
    assert "Not measured: this needs settings of the family adaptive" in text
    assert [file.name for file in folder.iterdir()] == ["table-3a.csv"]
    with (folder / "table-3a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["setting"] == "static <b>"
    assert float(rows[1]["mean low"]) < float(rows[1]["mean"]) < float(rows[1]["mean high"])


def test_every_table_of_a_protocol_is_written(world, tmp_path):
    path = page(tmp_path, "table-1")
    write_results(world, path, folder=tmp_path / "csv")
    assert {file.name for file in (tmp_path / "csv").iterdir()} == {"table-1.csv", "table-1-within.csv"}
    assert path.read_text().count("**Stability against fidelity") == 2


def test_a_page_without_a_place_is_refused_and_left_as_it_is(world, tmp_path):
    path = page(tmp_path)
    before = path.read_text()
    with pytest.raises(ValueError, match="has no place for any table: put the lines <!-- NAME: begin -->"):
        write_results(world, path)
    with pytest.raises(ValueError, match="has no place for table-1: put its two markers where it belongs"):
        write_results(world, path, names=["table-1"])
    with pytest.raises(ValueError, match="there is no table 'table-0'"):
        write_results(world, path, names=["table-0"])
    with pytest.raises(ValueError, match="there is no table 'table-0'"):
        write_results(world, page(tmp_path, "table-3a"), options={"table-0": {}})
    assert page(tmp_path).read_text() == before


def test_files_that_are_too_large_are_refused_before_anything_is_written(world, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "MOST_BYTES", 300)
    path = page(tmp_path, "table-3a")
    with pytest.raises(ValueError, match="bytes as CSV, more than 300; the largest is table-3a: give it fewer metrics"):
        write_results(world, path, folder=tmp_path / "csv")
    assert "old" in path.read_text()
    assert not (tmp_path / "csv").exists()


def test_without_a_folder_the_page_alone_is_written(world, tmp_path):
    path = page(tmp_path, "table-3a")
    write_results(world, path, names=["table-3a"])
    assert [file.name for file in tmp_path.iterdir()] == ["page.md"]
