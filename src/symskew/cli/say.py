"""What the command line says, where: results on stdout, everything else on stderr, in single sentences."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes: nothing was begun; something went wrong on the way; stopped by Ctrl-C."""


def out() -> Console:
    """For results."""
    return Console(highlight=False)


def err() -> Console:
    """For progress, warnings and errors."""
    return Console(stderr=True, highlight=False)


def warn(message: str) -> None:
    """One line of warning on stderr."""
    err().print(f"[yellow]warning:[/] {_escaped(message)}", soft_wrap=True)


def fail(message: str, code: int) -> NoReturn:
    """Say what went wrong in one sentence on stderr, and leave."""
    err().print(f"[red]error:[/] {_escaped(message)}", soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def refusing(code: int = BAD_INPUT) -> Iterator[None]:
    """What the library refuses within this block becomes one sentence and an exit code."""
    try:
        yield
    except BrokenPipeError:
        raise  # nobody is listening any more; the parser leaves in silence
    except (ValueError, TypeError, RuntimeError, ArithmeticError, OSError, ImportError) as error:
        fail(str(error).removeprefix("symskew: ").rstrip() or type(error).__name__, code)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of this block, so that an image and its line in the list are both there or neither."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *args: pressed.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def unbreakable_output() -> None:
    """A terminal or pipe that lacks a sign (✓, α) gets a question mark instead of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")


def quiet_libraries() -> None:
    """Keep the libraries' warnings off the screen, unless somebody asked for them; to be called before they load."""
    for name in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
        os.environ.setdefault(name, "error")


def _escaped(message: str) -> str:
    from rich.markup import escape

    return escape(message)
