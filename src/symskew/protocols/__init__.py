"""The tables of the paper, and some it has not, from what a study found: each a function of evidence, by name.

    evidence = Evidence(frame, settings, measures, metrics, pairs)
    for table in run("table-3b", evidence):
        print(markdown(table))

Prompts are selected, and settings compared, on seeds of their own; naive numbers stand only beside their placebo.
"""

from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import Protocol, protocols, run
from symskew.protocols.render import csv_text, latex, markdown, plain
from symskew.protocols.results import write_results
from symskew.protocols.table import Column, ResultTable

__all__ = [
    "Column",
    "Evidence",
    "MissingError",
    "Protocol",
    "ResultTable",
    "csv_text",
    "latex",
    "markdown",
    "plain",
    "protocols",
    "run",
    "write_results",
]
