"""All tables of a study, written into a page and a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from symskew.files import replacing, write_section
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocols, run
from symskew.protocols.render import csv_text, markdown
from symskew.protocols.table import ResultTable

MOST_BYTES = 1_000_000
"""Of all CSV files together."""
MOST_ROWS = 24
"""Of a table that a page shows unfolded."""


def write_results(
    evidence: Evidence,
    page: Path,
    *,
    folder: Path | None = None,
    names: Iterable[str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[ResultTable]:
    """Write each table, with what came out in words, between its markers of a page, and as a CSV file of a folder.

    Where the study lacks what a table needs, its section says what is missing.

    Args:
        evidence: of the study.
        page: with markers `<!-- table-1: begin -->` and `<!-- table-1: end -->` for each table that it has room for.
        folder: for the CSV files; None for none.
        names: of the tables; all that the page has markers for by default.
        options: of the tables, by name.

    Returns:
        The tables that were made.

    Raises:
        ValueError: an unknown name, a page without a place for a table (before anything is computed), or files that
            would be too large together.
    """
    text = page.read_text(encoding="utf-8")
    known, given = protocols(), options or {}
    wanted = [name for name in known if f"<!-- {name}: begin -->" in text] if names is None else list(names)
    if unknown := [name for name in (*wanted, *given) if name not in known]:
        raise ValueError(f"symskew: there is no table {unknown[0]!r}; there are {', '.join(known)}")
    for name in wanted:
        if not all(f"<!-- {name}: {end} -->" in text for end in ("begin", "end")):
            raise ValueError(f"symskew: {page} has no place for {name}: put its two markers where it belongs")
    if not wanted:
        raise ValueError(
            f"symskew: {page} has no place for any table: put the lines <!-- NAME: begin --> and <!-- NAME: end --> "
            f"where they belong, with a name of {', '.join(known)}"
        )
    made: list[ResultTable] = []
    sections: dict[str, list[str]] = {}
    for name in wanted:
        try:
            tables = run(name, evidence, **given.get(name, {}))
            sections[name] = [_folded(table) for table in tables]
            made += tables
        except MissingError as error:
            sections[name] = [f"Not measured: this needs {error.what}.", ""]
    files = {table.name: csv_text(table) for table in made} if folder else {}
    if (size := sum(len(content.encode()) for content in files.values())) > MOST_BYTES:
        largest = max(files, key=lambda name: len(files[name]))
        raise ValueError(
            f"symskew: the tables take {size} bytes as CSV, more than {MOST_BYTES}; the largest is {largest}: give it "
            "fewer metrics or families by `options`"
        )
    for name, parts in sections.items():
        write_section(page, name, parts)
    for name, content in files.items():
        assert folder is not None
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"{name}.csv") as partial:
            partial.write_text(content, encoding="utf-8")
    return made


def _folded(table: ResultTable) -> str:
    """A table as a page shows it: what came out, and under it, folded away if it is long, the table."""
    text = markdown(table)
    if len(table.rows) <= MOST_ROWS:
        return text
    said, _, rest = text.partition("\n\n")
    return f"{said}\n\n<details><summary>The table, {len(table.rows)} rows</summary>\n\n{rest}\n</details>\n"
