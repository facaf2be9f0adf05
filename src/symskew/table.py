"""A table of measurements: columns of numbers and of words, filtered, averaged, handed on."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Words(NamedTuple):
    """A column of words: each row's place among the different ones."""

    codes: Tensor
    names: list[str]


Column = Tensor | Words


class Table:
    """Columns of equal length by name, with `metadata` that says what they mean."""

    def __init__(self, columns: dict[str, Column], metadata: dict[str, Any]) -> None:
        self.columns, self.metadata = columns, metadata

    def __len__(self) -> int:
        return len(_codes(next(iter(self.columns.values()))))

    def rows(self, **where: Any) -> Tensor:
        """The rows, by number, whose columns have one of the values asked for (`step=range(9)`, `stage="up"`).

        Raises:
            ValueError: an unknown column, or no row that fits.
        """
        chosen = torch.ones(len(self), dtype=torch.bool)
        for name, wanted in where.items():
            column = self.column(name)
            several = [wanted] if isinstance(wanted, str) or not isinstance(wanted, Iterable) else list(wanted)
            if isinstance(column, Words):
                several = [column.names.index(word) for word in several if word in column.names]
            codes = _codes(column)
            chosen &= torch.isin(codes, torch.tensor(several, dtype=codes.dtype))
        if not chosen.any():
            fits = " and ".join(f"{name}={wanted!r}" for name, wanted in where.items())
            raise ValueError(f"symskew: no row of the record has {fits}.")
        return chosen.nonzero().flatten()

    def column(self, name: str) -> Column:
        """A column; ValueError, listing those there are, for an unknown one."""
        if name not in self.columns:
            raise ValueError(f"symskew: the record has no column {name!r}; there are {', '.join(self.columns)}.")
        return self.columns[name]

    def mean(self, name: str, by: Sequence[str], rows: Tensor) -> dict[tuple[Any, ...], float]:
        """The mean of a column of numbers over some rows, per group of rows that are alike in the columns `by`."""
        values = self.column(name)
        if isinstance(values, Words):
            raise ValueError(f"symskew: {name!r} is a column of words and has no mean.")
        values = values[rows].double()
        if not by:
            return {(): values.mean().item()}
        keys = torch.stack([_codes(self.column(key))[rows].double() for key in by], 1)
        groups, place = keys.unique(dim=0, return_inverse=True)
        sums = torch.zeros(len(groups), dtype=torch.double).index_add_(0, place, values)
        means = (sums / place.bincount(minlength=len(groups))).tolist()
        labels = zip(*(_label(self.column(key), group) for key, group in zip(by, groups.T, strict=True)), strict=True)
        return dict(zip(labels, means, strict=True))

    def to_pandas(self) -> Any:
        """A pandas DataFrame; words are categories, `metadata` is in its `attrs`."""
        pandas: Any = need("pandas")
        frame = pandas.DataFrame(
            {
                name: pandas.Categorical.from_codes(column.codes.numpy(), column.names)
                if isinstance(column, Words)
                else column.numpy()
                for name, column in self.columns.items()
            }
        )
        frame.attrs.update(self.metadata)
        return frame

    def to_arrow(self) -> Any:
        """A pyarrow table; words are dictionaries, `metadata` is JSON in its schema under "symskew"."""
        arrow: Any = need("pyarrow")
        columns = {
            name: arrow.DictionaryArray.from_arrays(column.codes.to(torch.int32).numpy(), column.names)
            if isinstance(column, Words)
            else arrow.array(column.numpy())
            for name, column in self.columns.items()
        }
        text = json.dumps(self.metadata, ensure_ascii=False)
        return arrow.table(columns).replace_schema_metadata({"symskew": text})


def need(name: str, extra: str = "tables") -> Any:
    """A library that comes with an extra.

    Raises:
        ImportError: it is not installed; says how to.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(f'symskew: this needs {package}: pip install "symskew[{extra}]"') from error


def _codes(column: Column) -> Tensor:
    return column.codes if isinstance(column, Words) else column


def _label(column: Column, values: Tensor) -> list[Any]:
    if isinstance(column, Words):
        return [column.names[int(value)] for value in values]
    return values.to(column.dtype).tolist()
