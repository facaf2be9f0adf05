"""What a file of JSON beside the weights says of a network's shape. It is as foreign as they are: sizes are taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from symskew.files import read_json
from symskew.metrics.weights import Source
from symskew.models import first_line

__all__ = ["fitting", "read_beside", "sizes"]


def read_beside(path: Path, name: str, source: Source) -> dict[str, Any]:
    """What a file of JSON beside the weights says; nothing where there is none.

    Raises:
        ValueError: it is damaged.
    """
    file = path.with_name(name)
    try:
        return read_json(file) if file.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{source.name}: {file} is damaged: {first_line(error)}; {source.remedy}") from error


def sizes(written: Any, names: Iterable[str]) -> dict[str, Any]:
    """What is written under some names. The rest is left: libraries take other entries for models to be downloaded.

    >>> sizes({"hidden_size": 8, "attn_implementation": "somebody/kernels"}, ["hidden_size", "hidden_act"])
    {'hidden_size': 8}
    """
    if not isinstance(written, Mapping):
        raise ValueError(f"expected names with values, got a {type(written).__name__}")
    return {name: written[name] for name in names if name in written}


@contextmanager
def fitting(path: Path, name: str, source: Source) -> Iterator[None]:
    """Around what makes a network of the shape that a file beside the weights says.

    Raises:
        ValueError: that failed, in whatever way a library fails that was given nonsense; says how to get the file.
    """
    try:
        yield
    except Exception as error:
        file = path.with_name(name)
        raise ValueError(
            f"{source.name}: {file} is damaged or of another model: {first_line(error)}; {source.remedy}"
        ) from error
