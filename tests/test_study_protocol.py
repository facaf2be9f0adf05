"""The paper's protocol from its own files to the report, on untrained models: only names and sizes are others."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import scorers
import tiny
from captions import captions
from symskew.cli.app import run
from symskew.ensemble.build import make_pipeline
from symskew.ensemble.build_sd3 import make_sd3_pipeline
from symskew.protocols import Evidence, MissingError, protocols
from symskew.protocols import run as tables
from symskew.protocols.kept import evidence_of
from symskew.study import Study
from symskew.study.frames import Results

STUDIES = Path(__file__).parent.parent / "studies"
SMALL = {"steps": 2, "size": 64, "dtype": "float32"}
"""A CPU sums half precision slowly; nothing else is as on an accelerator because of it."""
SIZES = {"sdxl-coco": [(3, 0), (10, 10), (10, 20)], "sd3-coco": [(10, 10), (10, 20)]}
"""Of the sets of prompts: how many, and how many are left out before."""


def sdxl(folder: Path) -> Path:
    make_pipeline("tiny").save_pretrained(folder)
    return folder


def sd3(folder: Path) -> Path:
    pipe: Any = make_sd3_pipeline("tiny")
    config = dict(pipe.transformer.config)
    pipe.transformer = tiny.seeded(lambda: type(pipe.transformer).from_config(config))
    pipe.save_pretrained(folder)
    return folder


def small(name: str, folder: Path, model: Path, weights: dict[str, str]) -> Path:
    """A study of the repository with another model and other weights, and with less of everything."""
    written = yaml.safe_load((STUDIES / f"{name}.yaml").read_text(encoding="utf-8"))
    written |= {"model": str(model), "weights": weights, **SMALL}
    for choice, (count, skip) in zip(written["prompts"].values(), SIZES[name], strict=True):
        choice["coco"] |= {"count": count, "skip": skip}
    if name == "sdxl-coco":  # a thousand
        written["seeds"] = {"select": 0, "eval": "1-2", "placebo": 3}
    written["metrics"] = [each for each in written["metrics"] if each != "fid/tf1"]  # Inception has but one size
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(written, sort_keys=False))
    return file


def is_made(name: str, evidence: Evidence) -> bool:
    try:
        return bool(tables(name, evidence))
    except MissingError:
        return False


def compare_with_real_images(folder: Path, where: Path, weights: dict[str, str]) -> None:
    """Make features of a few pictures, which stand for COCO's, and tell the study of them."""
    (where / "real").mkdir()
    for number, image in enumerate(scorers.images() * 3):
        image.convert("RGB").resize((64, 64)).rotate(90 * (number // 6)).save(where / "real" / f"{number}.png")
    file = str(where / "dinov2.safetensors")
    place = f"dinov2-l={weights['dinov2-l']}"
    made = ["metrics", "reference", str(where / "real"), "--features", "dinov2-l", "--weights", place, "--out", file]
    assert run(made) == 0
    assert run(["study", "reference", str(folder), file]) == 0


@pytest.mark.parametrize(("name", "build"), [("sdxl-coco", sdxl), ("sd3-coco", sd3)])
def test_from_the_file_to_the_report(name, build, tmp_path, tiny_scorers, capfd):
    file, folder = small(name, tmp_path, build(tmp_path / "model"), tiny_scorers), tmp_path / "run"
    known = ["--captions", str(captions(tmp_path / "captions_val2014.json", 60)), "--out", str(folder)]
    assert run(["study", "run", str(file), *known, "--dry-run"]) == 0
    said = capfd.readouterr().out
    assert "nothing is missing" in said
    allowed = next(line for line in said.splitlines() if "tables that it allows" in line).partition(": ")[2].split(", ")
    assert not folder.exists()

    assert run(["study", "run", str(file), *known, "--workers", "1", "--batch-size", "10", "--quiet"]) == 0
    results = Results.of(folder)
    planned = int(said.partition(f"{name}: ")[2].split()[0].replace(",", ""))
    assert len(results.frame) == planned
    states = {"sdxl-coco": "input", "sd3-coco": "value"}[name]
    assert set(results.measures["states"]) == {states}
    evidence = evidence_of(results)
    assert len(evidence.sample_metrics) == 5
    assert not evidence.frame[evidence.sample_metrics].isna().to_numpy().any()
    made = [each for each in protocols() if is_made(each, evidence)]
    assert made == allowed
    [first, *_] = tables("table-2", evidence)
    assert any("retrieved " + {"input": "input features", "value": "values"}[states] in note for note in first.notes)
    compare_with_real_images(folder, tmp_path, tiny_scorers)
    assert run(["study", "table", str(folder), "table-8", "--prompts", "coco-10k"]) == 0
    assert {"FD-DINOv2", "KD-DINOv2"} <= set(re.findall(r"\| ([\w() -]+) ↓", capfd.readouterr().out))
    assert run(["study", "table", str(folder), "table-3b", "--prompts", "coco-1k"]) == 0
    assert "ImageReward" in capfd.readouterr().out
    assert run(["study", "verify", str(folder)]) == 0
    if name == "sd3-coco":  # once will do: it makes all tables again
        assert run(["study", "report", str(folder), "--out", str(tmp_path / "report")]) == 0
        assert "coco-1k" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    kept = yaml.safe_load((folder / "study.yaml").read_text())
    assert set(kept["sources"]) == set(kept["prompts"])


def test_the_studies_are_those_of_the_paper(tmp_path):
    file = captions(tmp_path / "captions.json", 11_100, 1)
    large = Study.read(STUDIES / "sdxl-coco.yaml", file)
    assert {name: len(some.texts) for name, some in large.prompts.items()} == {
        "ten": 10,
        "coco-1k": 1000,
        "coco-10k": 10_000,
    }
    assert large.dtype == "float16"
    assert large.common == {"steps": 30, "guidance": 5, "size": 1024}
    # Tables 3 and 8, and 6.
    swept = {
        (1.05, 5),
        (1.05, 6),
        (1.05, 7.5),
        (1.1, 4),
        (1.1, 5),
        (1.1, 6),
        (1.15, 3),
        (1.15, 4),
        (1.03, 3),
        (1.03, 5),
    }
    points = {(s.knobs["alpha"], s.knobs["beta"]) for s in large.settings.values() if s.family == "static"}
    assert points == swept | {(1.05, 3), (1.2, 5)}
    assert {(s.knobs["alpha"], s.knobs["beta"]) for s in large.settings.values() if s.family == "adaptive"} == {
        (1.05, 3), (1.2, 5),
    }  # fmt: skip
    other = Study.read(STUDIES / "sd3-coco.yaml", file)
    points = {(s.knobs["alpha"], s.knobs["beta"]) for s in other.settings.values() if s.family == "static"}
    assert points >= {(0.9, 3), (0.95, 3), (0.97, 2), (0.97, 4)}
    for name in ("coco-1k", "coco-10k"):
        assert other.prompts[name] == large.prompts[name]
    assert {run.settings for run in other.runs if run.prompts == "coco-10k"} == {
        ("vanilla", "static alpha=0.95 beta=3", "static alpha=0.97 beta=4")
    }
    assert json.dumps(other.common["arguments"]) == '{"max_sequence_length": 256}'
