"""One run of `symskew diagnose`: every image measured as it is generated, pictured, and ranked among its seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symskew import pictures
from symskew.cli.comparison import facts
from symskew.cli.job import Done, Job
from symskew.cli.judging import Opinion
from symskew.cli.say import uninterrupted
from symskew.files import replacing
from symskew.generation import Result
from symskew.images import describe_control, save_image
from symskew.table import Table, Words, need

STABLE = {"energy": min, "instability": min, "alignment": max}
"""Which end of a measure is the stable one."""


class Records:
    """`record.parquet` of a folder: all rows of all its images, each with the `id` of its image.

    Raises:
        ValueError: there is such a file, and it cannot be added to.
        ImportError: pyarrow is not installed.
    """

    def __init__(self, folder: Path, features: int | None) -> None:
        self.path, self._new, self._ids = folder / "record.parquet", [], []
        self._arrow, self._parquet = need("pyarrow"), need("pyarrow.parquet")
        self._old: Any = self._read("all" if features is None else features) if self.path.is_file() else None

    def add(self, results: Sequence[Result]) -> None:
        """What was measured of one batch."""
        assert results[0].diagnosis is not None
        table = results[0].diagnosis.table
        sample = table.column("sample")
        assert isinstance(sample, Tensor)
        whose = {
            "id": _words(sample, [result.id for result in results]),
            "prompt": _words(sample, [result.settings["prompt"] for result in results]),
            "seed": torch.tensor([result.settings["seed"] for result in results])[sample],
        }
        # An id says what these two do, and to other runs as well.
        own = {name: column for name, column in table.columns.items() if name not in ("generation", "sample")}
        meaning = {"id": "of the image, as in metadata.jsonl", "prompt": "of the image", "seed": "of the image"}
        meaning |= {name: table.metadata["columns"][name] for name in own}
        self._new.append(Table(whose | own, {**table.metadata, "columns": meaning}).to_arrow())
        self._ids += [result.id for result in results]

    def write(self) -> None:
        """Write all there is, whole or not at all; what was there of the same images before is replaced."""
        if not self._new:
            return
        parts = list(self._new)
        if self._old is not None:
            again = need("pyarrow.compute").is_in(self._old["id"].cast("string"), self._arrow.array(self._ids))
            parts.insert(0, self._old.filter(need("pyarrow.compute").invert(again)))
        merged = self._arrow.concat_tables(parts, promote_options="default")
        with replacing(self.path) as partial:
            self._parquet.write_table(merged.replace_schema_metadata(self._new[0].schema.metadata), partial)

    def _read(self, features: int | str) -> Any:
        try:
            old = self._parquet.read_table(self.path)
            before = json.loads(old.schema.metadata[b"symskew"])["features"]
            assert "id" in old.column_names
        except (ValueError, OSError, KeyError, TypeError, AssertionError) as error:
            raise ValueError(f"{self.path} is no record of symskew diagnose; give another --out") from error
        if before != features:
            raise ValueError(f"{self.path} was measured with --features {before}, not {features}; give another --out")
        return old


@dataclass
class Diagnosis(Job):
    """A job whose images are measured, pictured and ranked."""

    records: Records | None = None
    animated: bool = False

    def run(self, *, quiet: bool = False) -> None:
        """Generate, measure, judge and save; whatever happens, what is finished is kept, and its numbers with it."""
        assert self.records is not None
        try:
            super().run(quiet=quiet)
        finally:
            with uninterrupted():
                self.records.write()

    def report(self, *, as_json: bool, quiet: bool) -> None:
        """Rank the images, and print their numbers."""
        from symskew.cli.report import print_diagnosis, print_json

        assert self.records is not None
        ranks = dict(_ranks(self.ordered()))
        if as_json:
            for id_, own in ranks.items():
                self.done[id_].more["rank"] = {name: int(rank.partition("/")[0]) for name, rank in own.items()}
            print_json(self, record=str(self.records.path))
        elif not quiet:
            seen = f"; the pictures are {self.folder.path}/*-diagnosis.png, and {self.records.path} has every number"
            print_diagnosis(self, ranks, seen)

    def _keep(self, finished: list[Result]) -> None:
        assert self.records is not None
        self.records.add(finished)
        super()._keep(finished)

    def _keep_one(self, result: Result, **more: Any) -> Done:
        record, where = result.diagnosis, {"sample": result.run["place"]}
        assert record is not None
        where |= pictures.branch_of(record)
        done = super()._keep_one(result, **{name: record.mean(name, **where) for name in STABLE}, **more)
        prompt = result.settings["prompt"]
        figure = pictures.draw(result.image, record, prompt, _note(done), **where)
        drawn = done.path.with_name(f"{done.path.stem}-diagnosis.png")
        save_image(drawn, pictures.render(figure), result.record())
        done.more["diagnosis"] = str(drawn)
        if self.animated:
            film = pictures.animate(result.image, record, **where)
            done.more["animation"] = str(pictures.save_gif(drawn.with_suffix(".gif"), film))
        return done


def _words(codes: Tensor, names: list[str]) -> Words:
    different = list(dict.fromkeys(names))
    return Words(torch.tensor([different.index(name) for name in names])[codes], different)


def _note(done: Done) -> str:
    lines = [facts(done, one_seed=True), describe_control(done.result.settings), _judged(done.opinion)]
    return "\n".join(line for line in lines if line)


def _judged(opinion: Opinion | None) -> str:
    if opinion is None:
        return ""
    sign = {True: "✓ ", False: "✗ ", None: ""}[opinion.right]
    return f"judge: {sign}{', '.join(opinion.wrong) or opinion.read}"


def _ranks(images: list[Done]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rank of each image, by its id, among those of its prompt; none where there is but one."""
    for done in images:
        alike = [other for other in images if other.result.settings["prompt"] == done.result.settings["prompt"]]
        ranks = {}
        for name, best in STABLE.items():
            mine = done.more[name]
            ahead = sum(other.more[name] != mine and best(other.more[name], mine) != mine for other in alike)
            ranks[name] = f"{ahead + 1}/{len(alike)}"
        yield done.result.id, ranks if len(alike) > 1 else {}
