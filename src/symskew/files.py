"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
def _partial(path: Path) -> Iterator[Path]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)
