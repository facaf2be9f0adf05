"""Every Python block of the README and the docs runs, and so does every docstring example."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import symskew

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCKS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
]
MODULES = sorted(
    info.name for info in pkgutil.walk_packages(symskew.__path__, "symskew.") if not info.name.endswith("__main__")
)


@pytest.mark.parametrize("code", BLOCKS)
def test_block_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "block", "exec"), {"__name__": "block"})


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    torch.manual_seed(0)
    module = importlib.import_module(name)
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(module, extraglobs={"torch": torch}, optionflags=options).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [ROOT / "docs" / "method-card.md"], ids=lambda page: page.name)
def test_numbers_with_intervals_are_those_of_the_results(page):
    results = (ROOT / "docs" / "results.md").read_text()
    number = r"[-+−][0-9.]+"
    found = re.findall(rf"{number} \({number} to {number}\)", page.read_text())
    assert found
    assert [each for each in found if each.replace("−", "-") not in results] == []
