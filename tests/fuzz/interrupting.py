"""Ctrl-C at a chosen line of what symskew does, and of what diffusers and contextlib do for it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OURS = ("attach", "diagnose", "seam", "session", "uninterrupted", "vigilance")
_WHERE = (*(f"/symskew/{name}.py" for name in _OURS), "/diffusers/hooks/hooks.py")


def _ours(frame: Any) -> bool:
    # contextlib too where it is ours: torch itself loses a function mode when it is stopped there on its own account.
    while frame is not None and frame.f_code.co_filename.endswith("/contextlib.py"):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.endswith(_WHERE)


@contextmanager
def interrupted(line: int, reached: list[str] | None = None) -> Iterator[None]:
    """Raises the signal of Ctrl-C when so many lines have been run within the block; where, is put in `reached`."""
    assert threading.current_thread() is threading.main_thread(), "Ctrl-C comes in the main thread alone"
    left = line

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if not _ours(frame):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                if reached is not None:
                    reached.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
                signal.raise_signal(signal.SIGINT)
        return trace

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
        signal.signal(signal.SIGINT, handler)
