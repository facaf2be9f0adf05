"""The tables by name."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.table import ResultTable

Made = ResultTable | list[ResultTable]
ROOMS = (
    "correlations", "strata", "sweeps", "subsets", "curves", "symmetry", "adaptive", "distributions", "components",
    "temperatures", "field", "operating", "claims",
)  # fmt: skip
"""Modules of this room that have protocols."""
ORDER = (
    "table-1", "table-2", "table-3a", "table-3b", "quantiles", "table-4", "table-5", "table-6", "table-7", "table-8",
    "figure-3", "figure-9", "field", "operating-point", "claims",
)  # fmt: skip
"""As the paper has them, then what it has not."""


class Protocol(NamedTuple):
    """A table that can be asked for by name."""

    name: str
    about: str
    make: Callable[..., Made]


_PROTOCOLS: dict[str, Protocol] = {}


def protocol(name: str, about: str) -> Callable[[Callable[..., Made]], Callable[..., Made]]:
    """Register a function of evidence and options under a name; it then also takes `prompts`, the sets to look at.

    A table is made once of the same evidence with the same options: claims and reports rest on those of others.
    """

    def register(function: Callable[..., Made]) -> Callable[..., Made]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def make(evidence: Evidence, *, prompts: str | Sequence[str] | None = None, **options: Any) -> Made:
            known = list(signature.parameters)[1:]
            for option in options:
                if option not in known:
                    raise ValueError(f"{name}: there is no option {option!r}; there are {', '.join(known)}, prompts")
            some = evidence.on(prompts)
            bound = signature.bind(some, **options)
            bound.apply_defaults()
            # Kept with the table, the options stay alive, so that no other can be taken for them.
            key = ("table", name, repr(bound.args[1:]), repr(bound.kwargs))
            try:
                return some.remember(key, lambda: (function(some, **options), options))[0]
            except MissingError as error:
                error.table, error.model = error.table or name, evidence.model
                error.seeds, error.families = evidence.seeds_by_role, list(evidence.settings["family"])
                raise

        _PROTOCOLS[name] = Protocol(name, about, make)
        return make

    return register


def protocols() -> dict[str, Protocol]:
    """All there are, by name, in `ORDER`."""
    for room in ROOMS:
        importlib.import_module(f"symskew.protocols.{room}")
    return {name: _PROTOCOLS[name] for name in (*ORDER, *(_PROTOCOLS.keys() - set(ORDER)))}


def run(name: str, evidence: Evidence, **options: Any) -> list[ResultTable]:
    """The tables of a protocol.

    Raises:
        ValueError: an unknown name or option, telling those there are.
        MissingError: the study lacks what the table is made of; says what to add to it.
    """
    known = protocols()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"symskew: there is no table {name!r}; {hint}")
    made = known[name].make(evidence, **options)
    return [made] if isinstance(made, ResultTable) else made
