"""`symskew study …` as it is typed, on an untrained model: everything from the file to the report."""

import json

import pytest
import yaml

from symskew.cli.app import run
from tinystudy import tiny_model

PAGE = "before\n<!-- claims: begin -->\n<!-- claims: end -->\n<!-- table-3a: begin -->\n<!-- table-3a: end -->\nafter\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study's file, and the folder it was run into."""
    folder = tmp_path_factory.mktemp("study")
    written = {
        "model": str(tiny_model(folder / "model")),
        "chunk": 4,
        "prompts": {"tuning": {"ensemble": {"count": 4}}, "heldout": {"ensemble": {"count": 4, "seed": 1}}},
        "seeds": {"select": 0, "eval": "1-2", "placebo": 3},
        "settings": {"vanilla": {}, "static": {"alpha": [2, 3]}},
        "runs": [
            {"prompts": "tuning", "seeds": "eval", "diagnose": {"states": "value", "features": "all"}},
            {"prompts": "heldout", "seeds": ["select", "eval", "placebo"], "settings": "vanilla"},
            {"prompts": "heldout", "seeds": "eval", "settings": "static"},
        ],
        "metrics": ["ensemble/all-right", "ensemble/log-likelihood", "ensemble/diversity-features"],
    }
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(written, sort_keys=False))
    assert run(["study", "run", str(file), "--out", str(folder / "run"), "--workers", "1", "--batch-size", "4"]) == 0
    return file, folder / "run"


def test_running_again_says_that_nothing_is_left(study, capfd):
    file, folder = study
    assert run(["study", "run", str(file), "--out", str(folder)]) == 0
    assert capfd.readouterr().out.replace("\n", " ") == f"56 of 56 samples are in {folder} "


def test_status_counts_each_setting(study, capfd):
    assert run(["study", "status", str(study[1]), "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["failures"] == {}
    assert [(row["setting"], row["planned"], row["generated"], row["diagnosed"], row["scored"])
            for row in said["settings"]] == [("vanilla", 24, 24, 8, 24), ("static alpha=2", 16, 16, 8, 16),
                                             ("static alpha=3", 16, 16, 8, 16)]  # fmt: skip
    assert run(["study", "status", str(study[1])]) == 0
    assert "static alpha=2 " in capfd.readouterr().out


def test_verify_finds_nothing_wrong(study, capfd):
    assert run(["study", "verify", str(study[1])]) == 0
    assert "56 samples, digest" in capfd.readouterr().out


def test_tables_are_listed_and_made_in_every_format(study, capfd):
    folder = str(study[1])
    assert run(["study", "table", folder]) == 0
    assert {"table-1", "table-3b", "table-8", "field", "claims"} <= set(capfd.readouterr().out.split())
    for form, sign in (("md", "| metric |"), ("tex", "\\toprule"), ("csv", "metric,"), ("json", '"columns"')):
        assert run(["study", "table", folder, "table-3a", "--prompts", "heldout", "--format", form]) == 0
        assert sign in capfd.readouterr().out
    assert run(["study", "table", folder, "table-1", "--set", "branch=unconditional"]) == 0
    capfd.readouterr()


def test_thresholds_of_a_gate_are_lines_for_the_study(study, capfd):
    assert run(["study", "gate", str(study[1]), "--quantile", "0.5"]) == 0
    gate = yaml.safe_load(capfd.readouterr().out)["gate"]
    assert gate["measure"] == "alignment"
    assert all(-1 <= value <= 1 for value in gate["threshold"].values())


def test_the_page_is_written_and_can_be_checked_from_what_is_kept(study, tmp_path, capfd):
    page, again = tmp_path / "page.md", tmp_path / "again.md"
    for each in (page, again):
        each.write_text(PAGE)
    assert run(["study", "results", str(study[1]), "--write", str(page), "--keep", str(tmp_path / "kept")]) == 0
    assert run(["study", "results", str(tmp_path / "kept"), "--write", str(again)]) == 0
    text = page.read_text()
    assert text == again.read_text()
    assert "static alpha=3" in text
    assert sum(file.stat().st_size for file in (tmp_path / "kept").iterdir()) < 100_000
    assert (tmp_path / "kept" / "table-3a.csv").is_file()


def test_a_run_reports_to_trackers(study, capfd):
    assert run(["study", "run", str(study[0]), "--out", str(study[1]), "--quiet", "--report-to", "tensorboard"]) == 0
    assert list(study[1].with_name(f"{study[1].name}-tensorboard").glob("events.*"))
    assert run(["study", "run", str(study[0]), "--out", str(study[1]), "--report-to", "excel"]) == 2
    assert "a tracker must be one of tensorboard, wandb" in " ".join(capfd.readouterr().err.split())


def test_all_leave_as_a_dataset(study, capfd):
    assert run(["study", "export", str(study[1])]) == 0
    folder = study[1].with_name(f"{study[1].name}-dataset")
    assert str(folder) in capfd.readouterr().out.replace("\n", "")
    assert (folder / "data" / "samples-00000-of-00001.parquet").is_file()


def test_the_report_opens_from_disk(study, tmp_path, capfd):
    assert run(["study", "report", str(study[1]), "--out", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "static alpha=2" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert run(["study", "report", str(study[1]), "--out", str(study[1])]) == 2
    assert "has files that are no report" in capfd.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "none.yaml"], "none.yaml cannot be read: No such file"),
        (["run", "RUN", "--shard", "4"], "--shard takes I/N such as 0/4, got '4'"),
        (["status", "nowhere"], "nowhere is no folder of a study; symskew study run STUDY.yaml makes one"),
        (["verify", "nowhere"], "nowhere is no folder of a study"),
        (["table", "RUN", "table-3"], "there is no table 'table-3'; did you mean table-3"),
        (["table", "RUN", "table-6"], "adaptive"),
        (["table", "RUN", "table-3a", "--set", "x"], "--set takes NAME=VALUE, got 'x'"),
        (["table", "RUN", "table-3a", "--set", "x=1"], "table-3a: there is no option 'x'; there are metrics"),
        (["table", "RUN", "table-3a", "--format", "doc"], "--format must be md, tex, csv, json, got 'doc'"),
        (
            ["gate", "RUN", "--prompts", "heldout"],
            "no vanilla sample of the prompts 'heldout' was diagnosed by its values",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(study, tmp_path, monkeypatch, words, message, capfd):
    monkeypatch.chdir(tmp_path)
    file, folder = study
    target = str(file if words[0] == "run" else folder)
    assert run(["study", *(target if word == "RUN" else word for word in words)]) == 2
    assert message in capfd.readouterr().err.replace("\n", " ")
