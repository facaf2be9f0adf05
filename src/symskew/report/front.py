"""The page as it is before any script runs: what was run, what it came to, tables, and where all of it comes from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from string import Template
from typing import Any, NamedTuple

from symskew.protocols.contract import ROLES
from symskew.protocols.evidence import Evidence
from symskew.protocols.table import Cell, Column, ResultTable
from symskew.report.draw import draw_at_random
from symskew.report.markup import Markup, join, tag
from symskew.report.pictures import Picture

NUMBER = {"class": "number"}
FEW = 3
"""So many tables are open at first; of more, only what they say in a sentence."""


class Claim(NamedTuple):
    """A sentence that the study speaks for or against.

    Attributes:
        claim: the sentence.
        verdict: in a word or two; "holds", "does not hold" and "open" have colours of their own.
        number: what decides it, in words.
    """

    claim: str
    verdict: str
    number: str


class Front(NamedTuple):
    """What the first page and the last one tell."""

    title: str
    evidence: Evidence
    pictures: Sequence[Picture]
    tables: Sequence[ResultTable]
    claims: Sequence[Claim]
    failures: int
    provenance: Mapping[str, Any]


def render(template: str, front: Front) -> str:
    """Fill in the template; whatever is given is text, and escaped."""
    overview = [
        _facts(front),
        _claims(front.claims),
        draw_at_random(front.evidence, front.pictures),
        _tables(front.tables),
    ]
    provenance = [tag("h2", None, "This report"), _definitions(front.provenance), _metrics(front.evidence)]
    return Template(template).substitute(
        title=join(front.title), overview="\n".join(overview), provenance="\n".join(provenance)
    )


def _facts(front: Front) -> Markup:
    frame, settings = front.evidence.frame, front.evidence.settings
    prompts = frame.drop_duplicates("prompt_id")["prompts"].value_counts(sort=False)
    seeds: dict[Any, int] = frame.drop_duplicates(["role", "seed"])["role"].value_counts().to_dict()
    diagnosed = front.evidence.measures["sample_id"].nunique()
    families = settings["family"].nunique()
    facts = [
        ("Prompts", f"{prompts.sum():,}", _parts(prompts.items())),
        ("Seeds", f"{frame['seed'].nunique():,}", _parts((role, seeds[role]) for role in ROLES if role in seeds)),
        ("Settings", f"{len(settings):,}", f"{families:,} {'family' if families == 1 else 'families'}"),
        ("Samples", f"{len(frame):,}", f"{diagnosed:,} diagnosed" if diagnosed else None),
        ("Failures", f"{front.failures:,}", "could not be made" if front.failures else None),
    ]
    model = [
        tag("span", {"dir": "auto"}, f"{name} ", tag("code", None, _words(front.provenance[name])))
        for name in ("model", "weights")
        if name in front.provenance
    ]
    rows = tag(
        "dl",
        {"class": "run"},
        *(
            tag(
                "div",
                None,
                tag("dt", None, name),
                *(tag("dd", {"dir": "auto"}, part) for part in parts if part),
            )
            for name, *parts in facts
        ),
    )
    return join(tag("p", {"class": "model"}, *model) if model else None, rows)


def _parts(counts: Iterable[tuple[Any, int]]) -> str:
    return " · ".join(f"{name} {count:,}" for name, count in counts)


def _claims(claims: Sequence[Claim]) -> Markup:
    if not claims:
        return Markup()
    items = [
        tag(
            "li",
            None,
            tag("span", {"class": "verdict", "data-verdict": claim.verdict.lower(), "dir": "auto"}, claim.verdict),
            tag("p", {"dir": "auto"}, claim.claim),
            tag("p", {"class": "number", "dir": "auto"}, _signs(claim.number)),
        )
        for claim in claims
    ]
    counts = Counter(claim.verdict for claim in claims)
    return join(
        tag("h2", None, "What it comes to"),
        tag("p", {"class": "caption tally", "dir": "auto"}, _parts((verdict, counts[verdict]) for verdict in counts)),
        tag("ul", {"class": "claims"}, *items),
    )


def _tables(tables: Sequence[ResultTable]) -> Markup:
    if not tables:
        return tag("p", {"class": "empty"}, "No tables were made for this report.")
    return join(
        tag("h2", None, "Tables"),
        *(_table(place, table, shown=len(tables) <= FEW) for place, table in enumerate(tables)),
    )


def _table(place: int, table: ResultTable, *, shown: bool) -> Markup:
    title = f"table-{place}"
    right = [any(_numeric(row[i]) for row in table.rows) for i in range(len(table.columns))]
    head = [
        tag("th", {"scope": "col", "class": "number" if number else None, "dir": "auto"}, column.name)
        for column, number in zip(table.columns, right, strict=True)
    ]
    body = [
        tag(
            "tr",
            None,
            *(_cell(i, column, cell) for i, (column, cell) in enumerate(zip(table.columns, row, strict=True))),
        )
        for row in table.rows
    ]
    return tag(
        "details",
        {"class": "result", "open": shown},
        tag(
            "summary",
            None,
            tag("h3", {"id": title, "dir": "auto"}, table.title),
            tag("p", {"dir": "auto"}, _signs(table.summary)),
        ),
        tag(
            "div",
            {"class": "box", "tabindex": "0", "role": "region", "aria-labelledby": title},
            tag("table", None, tag("thead", None, tag("tr", None, *head)), tag("tbody", None, *body)),
        ),
        tag("p", {"class": "caption", "dir": "auto"}, table.caption),
        tag("ul", {"class": "notes"}, *(tag("li", {"dir": "auto"}, note) for note in table.notes))
        if table.notes
        else None,
        tag("div", {"data-table": place, "class": "table-tools"}),
    )


def _cell(place: int, column: Column, cell: Cell) -> Markup:
    text = column.text(cell)
    if not _numeric(cell):
        return tag("th" if place == 0 else "td", {"scope": "row" if place == 0 else None, "dir": "auto"}, text)
    value, space, interval = _signs(text).partition(" (")
    return tag("td", NUMBER, value, tag("span", {"class": "interval"}, f"{space}{interval}") if space else None)


def _signs(text: str) -> str:
    """With true minus signs before numbers; hyphens stay."""
    return re.sub(r"(?<![\w.])-(?=[\d.])", "−", text)


def _numeric(cell: Cell) -> bool:
    return cell is not None and not isinstance(cell, str)


def _definitions(values: Mapping[str, Any]) -> Markup:
    if not values:
        return tag("p", {"class": "empty"}, "Nothing is recorded.")
    rows = [
        tag("div", None, tag("dt", {"dir": "auto"}, str(name)), tag("dd", {"dir": "auto"}, _value(value)))
        for name, value in values.items()
    ]
    return tag("dl", {"class": "record"}, *rows)


def _value(value: Any) -> Markup:
    if isinstance(value, Mapping):
        return _definitions(value)
    if isinstance(value, list | tuple):
        return tag("ul", None, *(tag("li", {"dir": "auto"}, _value(item)) for item in value))
    text = "–" if value is None else str(value)
    return tag("pre", None, text) if "\n" in text else join(text)


def _words(value: Any) -> str:
    """In one line: of several values, how many there are."""
    if isinstance(value, Mapping | list | tuple):
        return f"{len(value)}, see Provenance"
    return "–" if value is None else str(value)


def _metrics(evidence: Evidence) -> Markup:
    columns = {"title": "Metric", "metric": "Id", "kind": "Of a", "unit": "Unit", "higher_is_better": "Better",
               "version": "Version", "dtype": "Type", "weights": "Weights"}  # fmt: skip
    there = {name: title for name, title in columns.items() if name in evidence.metrics}
    rows = evidence.metrics.to_dict("records")
    for row in rows:
        row["higher_is_better"] = "higher" if row["higher_is_better"] else "lower"
    body = [tag("tr", None, *(tag("td", {"dir": "auto"}, _plain(row[name])) for name in there)) for row in rows]
    return join(
        tag("h2", {"id": "metrics-title"}, "Metrics"),
        tag(
            "div",
            {"class": "box", "tabindex": "0", "role": "region", "aria-labelledby": "metrics-title"},
            tag(
                "table",
                None,
                tag("thead", None, tag("tr", None, *(tag("th", {"scope": "col"}, title) for title in there.values()))),
                tag("tbody", None, *body),
            ),
        ),
    )


def _plain(value: Any) -> str:
    return "–" if value is None or value != value or value == "" else str(value)
