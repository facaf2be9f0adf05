"""A table of results: numbers with their intervals, what is shown, and what to beware of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from symskew.statistics import Estimate

Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Column:
    """A column's heading and how its numbers are written.

    Args:
        name: the heading.
        spec: a format of numbers, such as ".3f"; None shows as many decimals as the interval supports.
        sign: with a plus before what is not negative, for changes and correlations.
        mark: with a star after estimates whose p is below 0.05.
    """

    name: str
    spec: str | None = None
    sign: bool = False
    mark: bool = False

    def text(self, cell: Cell) -> str:
        """A cell as it is read, not escaped for any format.

        >>> Column("p", ".3f").text(0.0000004), Column("change", ".2f", sign=True).text(0.5), Column("n").text(None)
        ('<0.001', '+0.50', '')
        """
        if cell is None:
            return ""
        if isinstance(cell, Estimate):
            star = "*" if self.mark and cell.p is not None and cell.p < 0.05 else ""
            return cell.text(self.spec or _decimals(cell), sign=self.sign) + star
        if isinstance(cell, str | bool | int):
            return str(cell)
        if math.isnan(cell):
            return ""
        spec = self.spec or ".3g"
        text = f"{cell:{'+' if self.sign else ''}{spec}}"
        if cell > 0 and not self.sign and spec.endswith("f") and not float(text):
            return "<" + f"{10 ** -int(spec[1:-1]):{spec}}"
        return text


@dataclass(frozen=True)
class ResultTable:
    """A table that a protocol made.

    Args:
        name: as it is asked for, such as "table-1".
        title: in a few words.
        columns: headings and formats.
        rows: a cell for each column: words, a number, an estimate, or None where there is none.
        summary: what came out, in a sentence or two.
        caption: in plain words: what is shown, by which protocol, of how many, with which intervals.
        notes: warnings: what is missing, what is biased, over which family p was adjusted.

    Raises:
        ValueError: a row without a cell for each column.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    summary: str
    caption: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"ResultTable: {self.name} has {len(self.columns)} columns and a row of {len(row)}")

    def records(self, **where: Any) -> Iterator[dict[str, Any]]:
        """The rows, cells by heading, those whose cells under some headings are as asked for.

        Spaces of headings are written `_`. Raises ValueError for an unknown heading.
        """
        names = [column.name for column in self.columns]
        wanted = {key.replace("_", " "): value for key, value in where.items()}
        if unknown := wanted.keys() - set(names):
            raise ValueError(f"ResultTable: {self.name} has no column {min(unknown)!r}; it has {', '.join(names)}")
        for row in self.rows:
            record = dict(zip(names, row, strict=True))
            if all(record[key] == value for key, value in wanted.items()):
                yield record


def _decimals(estimate: Estimate) -> str:
    """Decimals that show two digits of half the interval's width."""
    half = (estimate.high - estimate.low) / 2
    scale = half if math.isfinite(half) and half > 1e-9 * abs(estimate.value) else abs(estimate.value) / 10
    if not (math.isfinite(scale) and scale > 0):
        return ".3f"
    return f".{min(max(1 - math.floor(math.log10(scale)), 0), 6)}f"
