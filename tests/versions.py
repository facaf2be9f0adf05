"""`python tests/versions.py oldest`: the maths and the attachment on the oldest versions that pyproject.toml promises.

Makes a virtual environment of its own in .versions/, installs there what pyproject.toml names at its lowest version
(or the newest there is, with `newest`), runs the tests of `SUITE`, and writes into docs/versions.md what it ran on.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

tomllib: Any = importlib.import_module("tomllib")  # of Python 3.11, which development has
ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "versions.md"
PYTHONS = {"oldest": "3.10", "newest": "3.13"}
SHOWN = ("torch", "diffusers", "transformers", "accelerate", "peft", "numpy")
TOOLS = ("pytest", "beartype", "hypothesis")
SUITE = (
    *("algebra", "annotations", "circulate*", "gate", "ramp", "stability", "goldens", "weights", "layers", "seam"),
    *("refusal", "grid", "attach_*", "diagnose*", "record", "language_control", "language_diagnosis"),
    *("screening", "weak", "support"),
)
"""Tests of the maths, of the attachment, and of every model class of the diffusers that is there. What is left out is
made for the newest versions alone: the combinations with what came later, and everything that only calls what is tested
here."""
NOT_THERE: dict[str, dict[str, list[str]]] = {
    "oldest": {
        "torch 2.6 makes one graph more when a number changes for the first time": [
            "test_attach_compile.py::test_one_full_graph_for_all_numbers",
            "test_attach_compile.py::test_tensors_of_new_numbers_are_no_new_graph",
        ],
        "torch 2.6 makes no full graph of diffusers' FLUX, controlled or not": [
            "test_attach_compile.py::test_blocks_compiled_one_by_one_share_their_graphs",
        ],
        "diffusers 0.36 gives its native backend no mask of two dimensions": [
            "test_seam.py::test_all_that_decides_the_result_is_read[dispatched, two-dimensional mask]",
        ],
        "diffusers 0.36 wants another argument for Qwen-Image": [
            "test_attach_traps.py::test_other_families[value-Qwen]",
            "test_attach_traps.py::test_other_families[input-Qwen]",
        ],
        "diffusers 0.36 offloads groups on a machine with an accelerator alone": [
            "test_screening.py::test_group_offloading",
            "test_attach_traps.py::test_group_offloading",
        ],
        "transformers 5.0 gives ModernBERT and T5 attention of their own, which is refused": [
            "test_language_control.py::test_every_layer_is_exact[modernbert",
            "test_language_control.py::test_every_layer_is_exact[t5",
            "test_language_control.py::test_padding_changes_nothing[modernbert",
            "test_language_control.py::test_layers_are_found_by_what_they_are",
            "test_language_diagnosis.py::test_measures_are_the_papers_at_every_layer[modernbert",
            "test_language_diagnosis.py::test_a_text_that_is_generated_is_measured_from_its_encoder_on[t5]",
        ],
        "transformers 5.0 fills a static cache over its whole length, which is refused at the first forward": [
            "test_language_control.py::test_a_cached_step_has_no_decomposition[{'cache_implementation': 'static'}-6-8]",
        ],
        "transformers 5.0 has a wrapper that torch 2.6 cannot compile": [
            "test_language_control.py::test_compiled_models_are_controlled_alike",
        ],
        "transformers 5.0 has other names for the layers of ViT": [
            "test_language_diagnosis.py::test_a_picture_has_a_map_without_the_class_token",
        ],
    },
    "newest": {
        "diffusers' ControlNet of Cosmos needs torchvision, which symskew does not ask for": [
            "test_support.py::test_class[`CosmosControlNetModel`]",
        ],
    },
}
"""What these versions do not have themselves, and the tests of it, by the beginning of their names."""


def main() -> None:
    """Install, run, and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=PYTHONS)
    parser.add_argument("--keep", action="store_true", help="leave the environment for another run")
    given = parser.parse_args()
    os.nice(10)
    home = ROOT / ".versions" / given.which
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([interpreter(PYTHONS[given.which]), "-m", "venv", home], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *requirements(given.which), *TOOLS], check=True)
    subprocess.run([*install, "--no-deps", "--editable", ROOT], check=True)
    report = home / "report.xml"
    skipped = [f"--deselect=tests/{name}" for names in NOT_THERE[given.which].values() for name in names]
    tests = sorted(str(path) for pattern in SUITE for path in (ROOT / "tests").glob(f"test_{pattern}.py"))
    # Old libraries warn of each other, and that is not what is asked here.
    how = ["-o", "filterwarnings=default", "--disable-warnings", "-p", "no:cacheprovider", "--show-capture=no"]
    threads = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-m", "pytest", *how, f"--junitxml={report}", *skipped, *tests], cwd=ROOT, env=threads
    )
    if done.returncode == 0:
        write(given.which, row(given.which, python, report))
    if not given.keep:
        shutil.rmtree(home)
    sys.exit(done.returncode)


def interpreter(version: str) -> str:
    """A Python of this version, on the path or where pyenv keeps them."""
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    found = shutil.which(f"python{version}") if not pyenv else str(pyenv[-1])
    return found or sys.exit(f"versions: no Python {version} found; install it, or put python{version} on the path.")


def requirements(which: str) -> list[str]:
    """What pyproject.toml asks for, at its lowest versions or at the newest."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = [
        *project["dependencies"],
        *(line for name in ("offload", "lora", "tables", "plots") for line in extras[name]),
    ]
    return sorted({re.sub(">=.*", "", line) if which == "newest" else line.replace(">=", "==") for line in named})


def row(which: str, python: Path, report: Path) -> str:
    """The line of the table: what was installed, and how many tests passed."""
    code = f"import platform, importlib.metadata as m; print(platform.python_version(), *map(m.version, {SHOWN}))"
    versions = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    suite = next(iter(ElementTree.parse(report).getroot()))
    passed = int(suite.attrib["tests"]) - int(suite.attrib["skipped"])
    today = datetime.datetime.now(datetime.timezone.utc).date()
    lacking = "; ".join(NOT_THERE[which]) or "nothing"
    return f"| {which} | {' | '.join(versions)} | {passed} | {today} | {lacking} |"


def write(which: str, line: str) -> None:
    """Put the line in the place of the last one, whole or not at all."""
    page = re.sub(rf"^\| {which} \|.*$", line, PAGE.read_text(), flags=re.MULTILINE)
    assert line in page, f"{PAGE} has no line for {which}"
    draft = PAGE.with_suffix(".draft")
    draft.write_text(page)
    draft.replace(PAGE)


if __name__ == "__main__":
    main()
