"""One progress bar over the images of a run."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from symskew.cli.say import err


class Progress:
    """A bar with images done, seconds per image and the time left; on a terminal only."""

    def __init__(self, images: int, *, quiet: bool = False, doing: str = "generating") -> None:
        console = err()
        self.images, self._done, self._began = images, 0.0, time.perf_counter()
        columns = (TextColumn(doing), BarColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn())
        shown = console.is_terminal and not quiet
        self._bar = Bar(*columns, console=console, disable=not shown, transient=True)
        self._task = self._bar.add_task("", total=images, text=self._text())

    def _text(self) -> str:
        speed = f" · {(time.perf_counter() - self._began) / self._done:.2f} s/image" if self._done else ""
        return f"{int(self._done + 1e-6)}/{self.images} images{speed} · left"

    def advance(self, images: float) -> None:
        """So much more has been done, in images."""
        self._done += images
        self._bar.update(self._task, completed=self._done, text=self._text())

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
