"""What a pipeline's folder says it is made of: classes of diffusers and transformers, and never code of its own."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

from symskew.files import read_json

_NO_CODE = "code that comes with a model is never run"


def refuse_code(name: str, folder: Path) -> None:
    """Refuse a pipeline whose parts are not of diffusers and transformers: its own code would have to be run.

    Raises:
        ValueError: naming the part.
    """
    diffusers: Any = importlib.import_module("diffusers")
    index = read_json(folder / "model_index.json")
    kind = index.get("_class_name")
    pipeline = getattr(diffusers, kind, None) if isinstance(kind, str) else None
    if not (isinstance(pipeline, type) and issubclass(pipeline, diffusers.DiffusionPipeline)):
        raise ValueError(f"{name} is a pipeline of the class {kind}, which diffusers does not have; {_NO_CODE}")
    optional = getattr(pipeline, "_optional_components", [])
    for part in inspect.signature(pipeline).parameters.values():
        of = index.get(part.name)
        if of is None or (part.default is not part.empty and part.name not in optional) or of == [None, None]:
            continue
        library, found = of if isinstance(of, list) and len(of) == 2 else (None, None)
        if not (
            isinstance(found, str) and isinstance(library, str) and re.fullmatch(r"\w+", library) and _own(library)
        ):
            raise ValueError(f"{name}: its {part.name} is {of}, of neither diffusers nor transformers; {_NO_CODE}")


def _own(library: str) -> bool:
    # Safety checkers are listed under the module of their pipeline.
    own = importlib.util.find_spec("diffusers.pipelines." + library)
    return library in ("diffusers", "transformers") or own is not None
