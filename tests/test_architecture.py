"""The rows of the house: a module imports from lower rows, or from its left within its row, never upwards."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "symskew"
ROWS = [
    ["algebra", "gate", "ramp", "circulation", "retrieval", "matching", "circulate", "stability", "weights"],
    [
        *("interface", "layers", "selection", "schedule", "refusal", "seam", "silence", "uninterrupted", "session"),
        *("vigilance", "timeline", "branch", "grid", "steer", "attach", "perturbation", "weak", "files", "table"),
        *("reading", "record", "probe", "diagnose", "resume", "screening", "configured", "projections"),
        *("checkpoint", "inspection", "offline"),
    ],
    [
        *("ensemble", "images", "pipelines", "models", "statistics", "baselines", "guider", "generation"),
        *("heatmap", "pictures"),
        *("metrics", "study", "protocols", "trials"),
    ],
    ["report", "cli"],
]
PLACE = {name: (row, column) for row, names in enumerate(ROWS) for column, name in enumerate(names)}
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")
LIGHT = {"torch", "jaxtyping", "symskew"}


def room(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down_or_left(path):
    here = room(path)
    assert here in PLACE, f"{here} has no row yet: give it one in ROWS"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "symskew" and len(parts) > 1 and parts[1] in PLACE and parts[1] != here:
            assert PLACE[parts[1]] < PLACE[here], f"{here} imports {parts[1]}"


@pytest.mark.parametrize("name", ROWS[0] + ROWS[1])
def test_the_maths_and_the_attachment_load_nothing_but_torch(name):
    foreign = {n.split(".")[0] for n in imports(SOURCE / f"{name}.py", top_only=True)} - LIGHT
    assert foreign <= set(sys.stdlib_module_names)


def test_import_costs_no_more_than_torch():
    heavy = ["diffusers", "transformers", "numpy.random", "PIL", "typer", "rich", "accelerate"]
    code = (
        "import sys, torch; before = set(sys.modules); import symskew\n"
        f"print([name for name in {heavy!r} if name in sys.modules and name not in before])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
