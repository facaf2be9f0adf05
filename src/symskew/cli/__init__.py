"""The command line: `symskew generate`, `symskew diagnose`, `symskew models`, `symskew doctor`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, and leave with its exit code."""
    from symskew.cli.app import run

    sys.exit(run(arguments))
