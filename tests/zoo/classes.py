"""Every model class of the installed diffusers, read from its sources: what is new appears by itself."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

_CLASS = re.compile(r"^class (\w+)\(([^)]*)\):", re.MULTILINE)


@functools.cache
def model_classes() -> dict[str, str]:
    """The name of every subclass of ModelMixin, with the dotted name of its module, in the order of the latter.

    The sources are read, not imported: a module that needs a package which is not there counts as well.
    """
    spec = importlib.util.find_spec("diffusers")
    assert spec is not None
    assert spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0])
    found: list[tuple[str, str, set[str]]] = []
    for path in sorted(root.rglob("*.py")):
        module = ".".join(["diffusers", *path.relative_to(root).with_suffix("").parts])
        for name, bases in _CLASS.findall(path.read_text(encoding="utf-8")):
            found.append((module, name, {base.split(".")[-1].strip() for base in bases.split(",")}))
    models = {"ModelMixin"}
    while more := {name for _, name, bases in found if bases & models} - models:
        models |= more
    return {name: module for module, name, bases in found if bases & models}


def load(name: str) -> Any:
    """The class itself."""
    return getattr(importlib.import_module(model_classes()[name]), name)
