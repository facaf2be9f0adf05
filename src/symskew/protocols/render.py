"""A table of results as Markdown, LaTeX, CSV and plain values; prompts and names in it are data, and escaped."""

from __future__ import annotations

import csv
import io
import math
import re
from typing import Any

from symskew.protocols.table import Cell, ResultTable
from symskew.statistics import Estimate

_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$])")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "−": "$-$", "×": r"$\times$", "→": r"$\rightarrow$", "≥": r"$\geq$",
    "≤": r"$\leq$", "±": r"$\pm$", "α": r"$\alpha$", "β": r"$\beta$", "τ": r"$\tau$", "η": r"$\eta$", "ρ": r"$\rho$",
    "ω": r"$\omega$", "σ": r"$\sigma$", "λ": r"$\lambda$", "Δ": r"$\Delta$",
}  # fmt: skip
PARTS = ("low", "high", "p", "n", "samples")
"""Of an estimate, what stands in columns of its own in a CSV file, after its value."""


def markdown(table: ResultTable) -> str:
    """A pipe table between what came out and how to read it, for a page; no heading."""
    head = [_markdown(column.name) for column in table.columns]
    right = ["---:" if any(_numeric(row[i]) for row in table.rows) else "---" for i in range(len(head))]
    body = [[_markdown(c.text(cell)) for c, cell in zip(table.columns, row, strict=True)] for row in table.rows]
    lines = [f"| {' | '.join(row)} |" for row in (head, right, *body)]
    notes = [f"- {_markdown(note)}" for note in table.notes]
    above = f"**{_markdown(table.title)}.** {_markdown(table.summary)}".rstrip()
    parts = [above, "\n".join(lines), _markdown(table.caption), "\n".join(notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def latex(table: ResultTable) -> str:
    """A `table` environment that needs the package booktabs; Greek and signs become mathematics."""
    align = "".join("r" if any(_numeric(row[i]) for row in table.rows) else "l" for i in range(len(table.columns)))
    body = [
        " & ".join(_latex(c.text(cell)) for c, cell in zip(table.columns, row, strict=True)) + r" \\"
        for row in table.rows
    ]
    caption = " ".join([f"{table.title}.", table.summary, table.caption, *table.notes])
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\caption{{{_latex(caption)}}}", rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{align}}}", r"\toprule",
        " & ".join(_latex(column.name) for column in table.columns) + r" \\", r"\midrule", *body, r"\bottomrule",
        r"\end{tabular}", r"\end{table}", "",
    ])  # fmt: skip


def csv_text(table: ResultTable) -> str:
    """Rows of numbers to eight digits. A column with estimates is followed by its low, high, p, n and samples."""
    estimated = [any(isinstance(row[i], Estimate) for row in table.rows) for i in range(len(table.columns))]
    head = []
    for column, wide in zip(table.columns, estimated, strict=True):
        head += [column.name, *(f"{column.name} {part}" for part in PARTS)] if wide else [column.name]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for row in table.rows:
        fields: list[Any] = []
        for cell, wide in zip(row, estimated, strict=True):
            if isinstance(cell, Estimate):
                fields += [_number(cell.value), *(_number(getattr(cell, part)) for part in PARTS)]
            else:
                fields += [_number(cell), *([""] * len(PARTS) if wide else [])]
        writer.writerow(fields)
    return out.getvalue()


def plain(table: ResultTable) -> dict[str, Any]:
    """Plain values for JSON; an estimate is a mapping with its numbers and its text, what is not finite is None."""
    return {
        "name": table.name,
        "title": table.title,
        "columns": [
            {"name": column.name, "spec": column.spec, "sign": column.sign, "mark": column.mark}
            for column in table.columns
        ],
        "rows": [[_plain(c.text(cell), cell) for c, cell in zip(table.columns, r, strict=True)] for r in table.rows],
        "summary": table.summary,
        "caption": table.caption,
        "notes": list(table.notes),
    }


def _numeric(cell: Cell) -> bool:
    return cell is not None and not isinstance(cell, str)


def _markdown(text: str) -> str:
    escaped = _MARKDOWN.sub(r"\\\1", "".join(_HTML.get(letter, letter) for letter in text))
    return " ".join(escaped.split())


def _latex(text: str) -> str:
    return " ".join("".join(_LATEX.get(letter, letter) for letter in text).split())


def _number(value: Cell) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.8g}" if isinstance(value, float) else value


def _plain(text: str, cell: Cell) -> Any:
    if isinstance(cell, Estimate):
        numbers = {part: getattr(cell, part) for part in ("value", *PARTS)}
        return {name: _finite(number) for name, number in numbers.items()} | {"text": text}
    return _finite(cell)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
