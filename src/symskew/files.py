"""Files and folders that are there whole or not at all, and pages of which a part is written by a command."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place at the end; nothing is left of it after a failure."""
    with _partial(path) as partial:
        yield partial
        os.replace(partial, path)


@contextmanager
def claiming(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` at the end, unless that is taken by then: FileExistsError."""
    with _partial(path) as partial:
        yield partial
        os.link(partial, path)


@contextmanager
def becoming(folder: Path) -> Iterator[Path]:
    """A folder to fill beside `folder`, which takes its place at the end; nothing is left of it after a failure."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.{end}") for end in ("tmp", "old"))
    partial.mkdir()
    try:
        yield partial
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_json(path: Path, kind: type = dict) -> Any:
    """The value in a file of JSON that anybody may have written.

    Raises:
        ValueError: it is no JSON, nested beyond measure, or of another kind than names with values.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error
    if not isinstance(found, kind):
        raise ValueError(f"{path.name} should hold a {kind.__name__}, and holds a {type(found).__name__}")
    return found


def write_section(page: Path, name: str, lines: Iterable[str]) -> None:
    """Put lines between the markers `<!-- name: begin -->` and `<!-- name: end -->` of a page.

    Raises:
        ValueError: the page has no such markers; it is left as it is.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, first, rest = page.read_text(encoding="utf-8").partition(begin)
    _, last, tail = rest.partition(end)
    if not (first and last):
        raise ValueError(f"symskew: {page} has no place for this: put the lines {begin} and {end} where it belongs.")
    body = "\n".join(lines)
    with replacing(page) as partial:
        partial.write_text(f"{head}{begin}\n\n{body}\n{end}{tail}", encoding="utf-8")


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    # Several machines may write to one folder, where process ids are no names.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)
