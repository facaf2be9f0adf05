"""What a diagnosis measured: kept by generation, moment and layer, and read as a table or as maps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symskew.branch import whole_batch
from symskew.files import claiming, replacing
from symskew.grid import Grid, fold, stretch
from symskew.layers import STAGES, Layer
from symskew.reading import (
    MAPS,
    MEASURES,
    RETRIEVALS,
    STATES,
    Generation,
    Place,
    Reading,
    Shape,
    row_count,
    row_pattern,
)
from symskew.table import Column, Table, Words, need

COLUMNS = {
    "generation": "counted from 0: one for each time the schedule began",
    "step": "place of the timestep in the scheduler's list, from 0; counts the forwards where there is none",
    "timestep": "as the denoiser was given it; NaN where it takes none",
    "layer": "name of the attention module",
    "index": "place among the self-attention layers of the model in the order they run, from 0",
    "stage": "down, mid or up: the block of a UNet, a third of the depth of a transformer",
    "depth": "(index + ½) / number of layers",
    "sample": "place of the image (or text; or frame, where a layer sees one at a time) in the call, from 0",
    "branch": "of guidance: unconditional, conditional, perturbed, or as the pipeline calls it",
    "retrieval": "vanilla; or controlled, the states that a control put in its place",
    "states": "input: retrieved input features (the paper's); value: retrieved values",
    "head": "of the attention, from 0",
    "energy": "E = −½ ξᵀ M_sym ξ (Eq. 21), in units of q·k without 1/√head_dim; lower is better supported",
    "instability": "share of tokens with λ < 0 (Eq. 28), 0 to 1",
    "alignment": "cos(ξ, h) (Eq. 29), −1 to 1",
    "symmetry": "η (Eq. 36), −1 to 1, not centred",
    "skew_ratio": "‖M_skew‖ / ‖M_sym‖ = √((1 − η)/(1 + η)), not centred",
    "alpha": "scale of the skew part that acted; 1 for the vanilla retrieval",
    "beta": "step towards the circulated retrieval that acted; 1 for the vanilla one",
}
"""What each column of a record means, and its unit."""
CONVENTIONS = (
    "ξ, q and k centred over tokens, ξ of unit norm, as published; means over the measured features, and over heads "
    "where there is no column for them"
)


class Record:
    """What a diagnosis has measured so far, made by `symskew.diagnose`.

    Each row of the table is one layer at one step for one sample and branch of guidance (and one head, if asked for).
    Where a control acted there are two rows, for the vanilla retrieval and for the controlled one; `mean`, `scores` and
    `map` take the one that the model went on with, unless told otherwise.
    """

    def __init__(self, layers: Sequence[Layer], settings: dict[str, Any]) -> None:
        self.layers = [Place(layer.name, layer.stage, layer.index, layer.depth) for layer in layers]
        """Where the layers are that are watched, in the order they run."""
        self.metadata: dict[str, Any] = {"conventions": CONVENTIONS, **settings}
        """The settings of the diagnosis; with what the columns mean it goes into every table and file."""
        self.generations: list[Generation] = []
        """What was measured, as it came."""
        self._known: tuple[Table, Tensor, Tensor] | None = None
        self._settle: Callable[[], None] = lambda: None
        """Brings in what is still on a device; set by whoever fills the record."""

    def __len__(self) -> int:
        """Number of rows."""
        self._settle()
        return sum(row_count(reading, self._per_head) for reading in self._readings())

    @property
    def table(self) -> Table:
        """All rows; ValueError where there are none."""
        return self._tabulated()[0]

    def mean(self, measure: str, by: Sequence[str] = (), **where: Any) -> Any:
        """The mean of a measure over all rows, or per group; rows (layers, steps, branches) count alike.

        Args:
            measure: a column of numbers.
            by: columns to group by.
            where: what to take of a column, a value or several: `branch="conditional"`, `step=range(9)`.

        Returns:
            A number; or a dictionary from group to number, its keys being values (one column) or tuples of values.

        Raises:
            ValueError: an unknown column, or no row that fits.

        Example:
            >>> record.mean("alignment", by=["stage"])  # doctest: +SKIP
            {'down': 0.61, 'mid': 0.55, 'up': 0.58}
        """
        means = self.table.mean(measure, by, self._chosen(where, by))
        return means[()] if not by else {key if len(by) > 1 else key[0]: mean for key, mean in means.items()}

    def scores(self, measure: str = "alignment", **where: Any) -> Tensor:
        """The mean of a measure for each image, in the order they were generated; `where` as in `mean`."""
        return torch.tensor(list(self.mean(measure, by=["generation", "sample"], **where).values()))

    def map(self, measure: str = "agreement", *, size: tuple[int, int] | None = None, **where: Any) -> Tensor:
        """Where in the image: a measure of every place, averaged over the layers, steps and rows that fit.

        Args:
            measure: "agreement", λ averaged over features and heads (Eq. 26), in units of q·k; or "conflict", the share
                of features and heads with λ < 0, 0 to 1.
            size: (height, width) of the result; by default the finest grid among the layers.
            where: as in `mean`: `sample=0`, `stage="up"`, `step=range(5)`, `branch="conditional"`.

        Returns:
            (height, width), or (frames, height, width) for video.

        Raises:
            ValueError: there are no maps, or none that fits.
        """
        sums, count = {}, 0
        for reading, grid, maps in self._mapped(measure, where):
            if len(grid) < 2:
                raise ValueError(
                    f"symskew: the tokens of {self.layers[reading.layer].name} are no image's; "
                    f"record.tokens({measure!r}) gives the measure of every token."
                )
            sums[grid] = sums.get(grid, 0) + maps.sum(0)
            count += len(maps)
        height, width = size or max((grid[-2:] for grid in sums), key=lambda grid: grid[0] * grid[1])
        spread = [stretch(fold(total, grid), (height, width)) for grid, total in sums.items()]
        return torch.stack(spread).sum(0) / count

    def tokens(self, measure: str = "agreement", **where: Any) -> Tensor:
        """How well supported every token of a text is: a measure of each, layer by layer.

        Args:
            measure: "agreement" or "conflict", as in `map`.
            where: as in `mean`: `sample=0`, `step=3`, `stage="up"`. What still fits is averaged, without padding.

        Returns:
            (layers, tokens), in the order they run and are read; NaN for padding.

        Raises:
            ValueError: there are no maps, or none that fits; an image's; texts of different length at once.
        """
        found: dict[int, list[Tensor]] = {}
        for reading, grid, maps in self._mapped(measure, where):
            if len(grid) > 1:
                raise ValueError(
                    f"symskew: the tokens of {self.layers[reading.layer].name} are an image's; record.map({measure!r}) "
                    "says where in the image."
                )
            found.setdefault(reading.layer, []).append(maps)
        lengths = {maps.shape[1] for some in found.values() for maps in some}
        if len(lengths) > 1:
            raise ValueError(
                f"symskew: these are texts of {', '.join(map(str, sorted(lengths)))} tokens; choose one with step= "
                "(forwards are counted from 0), or with layer= one half of an encoder-decoder."
            )
        return torch.stack([torch.cat(found[layer]).nanmean(0) for layer in sorted(found)])

    def to_pandas(self) -> Any:
        """The table as a pandas DataFrame; `metadata` is in its `attrs`."""
        return self.table.to_pandas()

    def to_parquet(self, path: str | Path) -> Path:
        """Write the table as one Parquet file, whole or not at all; `metadata` is JSON in its schema, "symskew".

        Raises:
            ValueError: the record is empty.
            OSError: the file cannot be written, the disk is full, say; the record keeps everything.
        """
        parquet, arrow, path = need("pyarrow.parquet"), self.table.to_arrow(), Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            parquet.write_table(arrow, partial)
        return path

    def append(self, folder: str | Path) -> Path:
        """Write what was recorded since the last time as one more Parquet file of a folder, and let go of it.

        For long runs: the folder, which pandas, pyarrow or DuckDB read as one table, grows file by file, each there
        whole under a name of its own, also when several processes append. Memory holds only what is not written yet.

        Raises:
            ValueError: nothing is new.
            OSError: the file cannot be written; nothing is lost, a later call writes it.
        """
        parquet, arrow, folder = need("pyarrow.parquet"), self.table.to_arrow(), Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            taken = (path.stem.partition("-")[2] for path in folder.glob("part-*.parquet"))
            number = max((int(number) for number in taken if number.isdigit()), default=-1) + 1
            path = folder / f"part-{number:06d}.parquet"
            with suppress(FileExistsError):  # taken by another process, a moment ago
                with claiming(path) as partial:
                    parquet.write_table(arrow, partial)
                break
        for generation in self.generations:  # which may be in progress: its moments say what the next ones are
            generation.readings = [[] for _ in generation.moments]
        del self.generations[:-1]
        self._known = None
        return path

    @property
    def _per_head(self) -> bool:
        return bool(self.metadata["heads"])

    def _readings(self) -> Iterator[Reading]:
        for generation in self.generations:
            yield from itertools.chain.from_iterable(generation.readings)

    def _mapped(self, measure: str, where: dict[str, Any]) -> Iterator[tuple[Reading, Grid, Tensor]]:
        """The readings that fit, each with its grid and (rows that fit, tokens), a map of each row."""
        if measure not in MAPS:
            raise ValueError(f"symskew: {measure!r} is no map; there are {', '.join(MAPS)}.")
        origin = self._tabulated()[2]
        chosen = origin[self._chosen(where, ())].unique(dim=0)
        readings = list(self._readings())
        for number in chosen[:, 0].unique().tolist():
            reading, lines = readings[number], chosen[chosen[:, 0] == number, 1]
            if reading.maps is None or reading.grid is None:
                raise ValueError("symskew: the record has no maps; open it with symskew.diagnose(…, maps=True).")
            yield reading, reading.grid, reading.maps.flatten(0, 1)[lines, MAPS.index(measure)]

    def _chosen(self, where: dict[str, Any], by: Sequence[str]) -> Tensor:
        table, used, _ = self._tabulated()
        rows = table.rows(**where)
        return rows if "retrieval" in where or "retrieval" in by else rows[used[rows]]

    def _tabulated(self) -> tuple[Table, Tensor, Tensor]:
        """The table; which of its rows the model went on with; which reading each is of, and which line of it."""
        size = len(self)
        if not size:
            raise ValueError(
                "symskew: the record is empty: nothing was generated within its `with symskew.diagnose(…)` yet, or all "
                "of it has been appended to a folder."
            )
        if self._known is None or len(self._known[0]) != size:
            self._known = self._tabulate()
        return self._known

    def _tabulate(self) -> tuple[Table, Tensor, Tensor]:
        facts: list[tuple[float, ...]] = []
        shapes: list[Shape] = []
        numbers: list[Tensor] = []
        for generation in self.generations:
            for moment, time, readings in zip(generation.moments, generation.times, generation.readings, strict=True):
                for reading in readings:
                    retrievals, rows, heads, _ = reading.numbers.shape
                    facts.append((generation.number, time.step, time.timestep, reading.layer, reading.states))
                    samples = whole_batch(moment.rows, reading.given) // len(time.branches)
                    shapes.append(Shape(retrievals, rows, heads if self._per_head else 1, samples, time.branches))
                    found = reading.numbers if self._per_head else reading.numbers.mean(2, keepdim=True)
                    numbers.append(found.flatten(0, 2))
        branches = list(dict.fromkeys(itertools.chain.from_iterable(shape.branches for shape in shapes)))
        patterns = {shape: row_pattern(shape, branches) for shape in dict.fromkeys(shapes)}
        lengths = torch.tensor([len(some) for some in numbers])
        per_reading = torch.tensor(facts, dtype=torch.double).repeat_interleave(lengths, 0).T
        generation, step, timestep, layer, states = per_reading
        line, retrieval, sample, branch, head, used = torch.cat([patterns[shape] for shape in shapes]).T
        layer, measured = layer.long(), torch.cat(numbers)
        names, stages, indices, depths = zip(*map(astuple, self.layers), strict=True)
        columns: dict[str, Column] = {
            "generation": generation.long(),
            "step": step.long(),
            "timestep": timestep,
            "layer": Words(layer, list(names)),
            "index": torch.tensor(indices)[layer],
            "stage": Words(torch.tensor([STAGES.index(stage) for stage in stages])[layer], list(STAGES)),
            "depth": torch.tensor(depths)[layer],
            "sample": sample,
            "branch": Words(branch, branches),
            "retrieval": Words(retrieval, list(RETRIEVALS)),
            "states": Words(states.long(), list(STATES)),
        }
        columns |= {"head": head} if self._per_head else {}
        columns |= dict(zip(MEASURES, measured.T, strict=True))
        metadata = {"columns": {name: COLUMNS[name] for name in columns}, **self.metadata}
        reading = torch.arange(len(numbers)).repeat_interleave(lengths)
        return Table(columns, metadata), used.bool(), torch.stack([reading, line], 1)
