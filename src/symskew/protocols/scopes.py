"""On which sets of prompts a table is made: a study may run some settings on one and some on another."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from symskew.protocols.choices import settings_of
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.table import ResultTable


class Scope(NamedTuple):
    """The evidence on sets of prompts that the same settings were run on, and these settings."""

    evidence: Evidence
    settings: list[str]


def scopes(
    evidence: Evidence, families: str | Sequence[str], roles: Sequence[str] = ("eval",), *, largest: bool = False
) -> list[Scope]:
    """Where settings of families can be held against vanilla, those with the most settings first.

    Args:
        evidence: of the study.
        families: whose settings.
        roles: of the seeds that vanilla must have on the prompts.
        largest: those with the most vanilla samples first instead.

    Raises:
        MissingError: no such setting, or no set of prompts on which vanilla has all the roles.
    """
    settings, vanilla = settings_of(evidence, families), evidence.vanilla
    sets = evidence.frame["prompts"].to_numpy()
    homes = {
        (setting, role): set(sets[evidence.arm(setting, role).rows])
        for setting, role in [*((each, "eval") for each in settings), *((vanilla, role) for role in roles)]
    }
    where = [name for name in evidence.prompt_sets if all(name in homes[vanilla, role] for role in roles)]
    if not where:
        lacking = [role for role in roles if not homes[vanilla, role]] or list(roles)
        raise MissingError(
            f"vanilla samples with seeds of the role{'s' * (len(lacking) > 1)} {' and '.join(lacking)}, on the prompts "
            "of the settings",
            roles=lacking,
        )
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in where:
        groups.setdefault(tuple(each for each in settings if name in homes[each, "eval"]), []).append(name)
    found = [Scope(evidence.on(names), list(some)) for some, names in groups.items() if some]
    if not found:
        raise MissingError(
            f"settings of the family {families if isinstance(families, str) else ' or '.join(families)} on the prompts "
            f"of vanilla, {' or '.join(where)}",
            settings=[families] if isinstance(families, str) else families,
        )
    if largest:
        return sorted(found, key=lambda scope: -len(scope.evidence.arm(vanilla).rows))
    return sorted(found, key=lambda scope: -len(scope.settings))


def each_set(evidence: Evidence) -> list[Scope]:
    """Each set of prompts by itself, those with the most vanilla samples first."""
    found = [Scope(evidence.on(name), []) for name in evidence.prompt_sets]
    return sorted(found, key=lambda scope: -len(scope.evidence.arm(evidence.vanilla, None).rows))


def in_each(found: Sequence[Scope], make: Callable[[Evidence, list[str]], Iterable[ResultTable]]) -> list[ResultTable]:
    """The tables of every scope, named after its prompts from the second on; scopes that lack something are left out.

    Raises:
        MissingError: all of them lack something.
    """
    made: list[ResultTable] = []
    first: MissingError | None = None
    for scope in found:
        try:
            tables = list(make(*scope))
        except MissingError as error:
            first = first or error
            continue
        prompts = scope.evidence.prompt_sets
        suffix = "".join(f"-{re.sub(r'[^0-9A-Za-z]+', '-', name)}" for name in prompts) if made else ""
        about = f" (prompts: {', '.join(prompts)})" if len(found) > 1 else ""
        made += [dataclasses.replace(each, name=each.name + suffix, title=each.title + about) for each in tables]
    if not made and first is not None:
        raise first
    return made
