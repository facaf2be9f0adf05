"""The table in docs/combinations.md, made of the cases."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from combinations.case import REFUSED, UNTESTED
from combinations.cases import CASES

PAGE = Path(__file__).parent.parent.parent / "docs" / "combinations.md"


def lines() -> list[str]:
    """The table, part by part."""
    found = []
    for part, cases in groupby(CASES, key=lambda case: case.part):
        found += [f"### {part}", "", "| combined with | control | diagnosis | note |", "|---|---|---|---|"]
        found += [f"| {case.name} | {case.control} | {case.diagnosis} | {case.note} |" for case in cases]
        found.append("")
    untested = sum(UNTESTED in (case.control, case.diagnosis) for case in CASES)
    refused = sum(REFUSED in (case.control, case.diagnosis) for case in CASES)
    return [*found, f"{len(CASES)} lines: {untested} with something untested, {refused} with something refused."]
