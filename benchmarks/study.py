"""What a study costs beside the images: planning, committing, and reading ten thousand samples back.

    python benchmarks/study.py             a few minutes
    python benchmarks/study.py --write     put the table into benchmarks/README.md

The floor of generating is the time spent inside the pipeline: everything else that a worker does is overhead. The other
figures are of a study of 10,000 samples whose images are noise, written through the same store.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from symskew.cli.reporting import make_report
from symskew.files import write_section
from symskew.generation import Result
from symskew.study import Options, Store, Study, run_study
from symskew.study.plan import plan, remaining
from symskew.study.run import describe_settings
from symskew.study.tables import samples_of
from symskew.study.verify import verify

GENERATED = 64
"""Images that are really generated."""
MANY = 10_000
"""Samples of the study that is only written and read."""


def overhead(folder: Path, batch: int) -> tuple[float, float]:
    """The share of a worker's time that is not spent in the pipeline, without and with a diagnosis."""
    found = []
    for diagnose in (False, True):
        study = Study.of({
            "model": "ensemble-sdxl", "seeds": {"eval": 0}, "settings": {"vanilla": {}},
            "prompts": {"some": {"ensemble": {"count": GENERATED}}}, "runs": [{"diagnose": diagnose}],
        })  # fmt: skip
        ledger = run_study(study, folder / f"generated-{diagnose}", Options(workers=1, batch=batch))
        found.append(ledger.busy / ledger.pipeline - 1)
    return found[0], found[1]


def fill(folder: Path) -> Study:
    """A finished study of `MANY` samples under ten settings, its images noise."""
    study = Study.of({
        "model": "ensemble-sdxl", "seeds": {"select": "0", "eval": "1-3", "placebo": "4"},
        "prompts": {"some": {"ensemble": {"count": MANY // 50, "objects": [2, 3]}}},
        "settings": {"vanilla": {}, "static": {"alpha": [1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9]}},
    })  # fmt: skip
    store, rng = Store(folder), np.random.default_rng(0)
    for unit in plan(study, describe_settings(study, store)):
        done: list[Any] = []
        for place, sample in enumerate(unit.samples):
            image = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
            run = {"device": "cpu", "batch": len(unit.samples), "place": place}
            done.append((sample, Result(image, {}, 0.0, run), ""))
        store.commit(samples_of(done, unit.setting_id, unit.id), "samples", unit.setting_id, unit.id)
    run_study(study, folder, Options(workers=1))  # nothing to generate: scores
    return study


def timed(what: Any, *arguments: Any) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    what(*arguments)
    return time.perf_counter() - began


def main() -> None:
    """Measure, print, and on request write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        plain, diagnosed = overhead(folder, options.batch)
        study = fill(folder / "many")
        store = Store(folder / "many")
        began = time.perf_counter()
        assert not remaining(plan(study, describe_settings(study, store)), store)
        planning = time.perf_counter() - began
        again = timed(run_study, study, folder / "many", Options(workers=1))
        checking = timed(verify, folder / "many")
        reporting = timed(make_report, folder / "many", folder / "report")
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, ensemble-sdxl, one worker, "
        f"one thread, batches of {options.batch}.",
        "",
        "| | measured | bar |",
        "|---|---:|---:|",
        f"| overhead of generating {GENERATED} images, of the time in the pipeline | {plain:.2%} | 3% |",
        f"| the same with a diagnosis of all of them | {diagnosed:.2%} | 3% |",
        f"| planning to go on with a finished study of {MANY:,} samples | {planning:.2f} s | 2 s |",
        f"| the whole command on it (nothing to do) | {again:.2f} s | |",
        f"| `verify`, every byte of it | {checking:.1f} s | |",
        f"| `report` of it, with all tables | {reporting:.1f} s | 60 s |",
        "",
    ]
    print("\n".join(lines))
    if options.write:
        write_section(Path(__file__).parent / "README.md", "study", lines)


if __name__ == "__main__":
    main()
