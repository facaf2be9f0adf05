"""What the commands for studies say: progress, a run's summary, how far a study is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from symskew.cli.say import err, out

if TYPE_CHECKING:
    from symskew.protocols import Evidence
    from symskew.study import Ledger

EVERY = 60.0
"""Seconds between two lines where there is no terminal to draw a bar on."""


class Watch:
    """Progress of a run: a bar on a terminal, a line a minute elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        console = err()
        self._quiet, self._said, self._stage, self._began = quiet, 0.0, "", time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
        self._bar = Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True)
        self._task = self._bar.add_task("planning", total=None, text="")

    def tell(self, ledger: Ledger) -> None:
        """How things stand now."""
        now = time.monotonic()
        if ledger.stage != self._stage:
            self._stage, self._began = ledger.stage, now
        text = self._text(ledger, now - self._began)
        done = ledger.done if ledger.stage == "generating" else ledger.scored
        total = ledger.left if ledger.stage == "generating" else None
        self._bar.update(self._task, description=ledger.stage, completed=done, total=total, text=text)
        if self._bar.disable and not self._quiet and ledger.stage != "done" and now - self._said >= EVERY:
            self._said = now
            err().print(f"{ledger.stage} {text}", soft_wrap=True, markup=False)

    def _text(self, ledger: Ledger, seconds: float) -> str:
        if ledger.stage == "scoring":
            return f"{ledger.scored} samples"
        if ledger.stage != "generating":
            return ""
        text = f"{ledger.there + ledger.done}/{ledger.planned} samples"
        if ledger.done:
            rate = ledger.done / seconds
            text += f" · {rate:.2f} a second · {duration((ledger.left - ledger.done) / rate)} left"
        return text + (f" · {ledger.given_up} given up" if ledger.given_up else "")

    def __enter__(self) -> Watch:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def duration(seconds: float) -> str:
    """In words.

    >>> duration(59), duration(3700)
    ('59 s', '1 h 2 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def summary(ledger: Ledger, folder: Path) -> str:
    """One line on what a run did."""
    parts = [f"{ledger.there + ledger.done} of {ledger.planned} samples are in {folder}"]
    if ledger.done:
        parts.append(f"{ledger.done} of them new")
    if ledger.scored:
        parts.append(f"{ledger.scored} scored now")
    if ledger.given_up:
        parts.append(f"{ledger.given_up} given up (study status lists them)")
    return ", ".join(parts)


def print_status(folder: Path, *, as_json: bool) -> None:
    """How many samples of each setting are planned, there, diagnosed, scored and given up."""
    rows, failures = count(folder)
    if as_json:
        out().print_json(json.dumps({"settings": rows, "failures": failures}))
        return
    table = Table("setting", "planned", "generated", "diagnosed", "scored", "given up", box=SIMPLE, padding=0)
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for row in rows:
        table.add_row(*map(str, row.values()))
    out().print(table)
    for key, reason in failures.items():
        out().print(f"given up: {key}: {reason}", soft_wrap=True, markup=False)


def count(folder: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """A row for each setting of a study, and why samples were given up, in a line each.

    Raises:
        ValueError: the folder is none of a study.
    """
    from symskew.study.frames import Results
    from symskew.study.plan import plan
    from symskew.study.run import describe_settings

    results = Results.of(folder)
    store, study = results.store, results.study
    given_up = store.given_up()
    there = {table: results.ids(table) for table in ("samples", "measures", "scores")}
    rows: dict[str, dict[str, Any]] = {}
    names = ("planned", "generated", "diagnosed", "scored", "given up")
    for unit in plan(study, describe_settings(study, store)):
        row = rows.setdefault(unit.setting.name, {"setting": unit.setting.name, **dict.fromkeys(names, 0)})
        ids = {sample.id for sample in unit.samples}
        sets = (ids, there["samples"], there["measures"], there["scores"], given_up.keys())
        for name, some in zip(names, sets, strict=True):
            row[name] += len(ids & some)
    return list(rows.values()), given_up


def evidence_in(folder: Path) -> Evidence:
    """What a study found: of its folder, or of one that holds the small tables that were kept of it."""
    from symskew.protocols.kept import evidence_of, kept
    from symskew.study.frames import Results

    return kept(folder) if (folder / "frame.parquet").is_file() else evidence_of(Results.of(folder))


def list_tables() -> None:
    """The names of all tables, and what they show."""
    from symskew.protocols import protocols

    for protocol in protocols().values():
        out().print(f"{protocol.name:16}{protocol.about}", soft_wrap=True, markup=False)


def make_tables(folder: Path, name: str, prompts: str | None, form: str, given: list[str]) -> list[str]:
    """The tables of a protocol as text.

    Raises:
        ValueError: an unknown table, option or format, or what the study lacks for it.
    """
    from symskew.protocols import csv_text, latex, markdown, plain, run
    from symskew.study.written import read_yaml

    forms = {"md": markdown, "tex": latex, "csv": csv_text, "json": lambda table: json.dumps(plain(table), indent=1)}
    if form not in forms:
        raise ValueError(f"--format must be {', '.join(forms)}, got {form!r}")
    options: dict[str, Any] = {} if prompts is None else {"prompts": prompts}
    for each in given:
        option, sign, value = each.partition("=")
        if not sign:
            raise ValueError(f"--set takes NAME=VALUE, got {each!r}")
        options[option] = read_yaml(value)
    return [forms[form](table) for table in run(name, evidence_in(folder), **options)]


def write_page(folder: Path, page: Path, keep: Path | None) -> None:
    """Every table into its place in a page, and the evidence beside it."""
    from symskew.protocols import write_results
    from symskew.protocols.kept import keep as keep_evidence

    evidence = evidence_in(folder)
    if keep is not None:
        keep_evidence(evidence, keep)
    made = write_results(evidence, page, folder=keep)
    out().print(f"{len(made)} tables are in {page}", soft_wrap=True, markup=False)


def write_thresholds(folder: Path, prompts: str, measure: str, quantile: float) -> None:
    """The thresholds of a gate, as YAML."""
    import yaml

    from symskew.study.frames import Results

    found = Results.of(folder).thresholds(measure, quantile, prompts)
    out().print(
        yaml.safe_dump({"gate": {"measure": measure, "threshold": found}}, sort_keys=False), end="", markup=False
    )
