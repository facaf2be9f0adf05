"""From a study to units of work: deterministic, each sample named by the hash of all that changes it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from symskew.generation import settings_id
from symskew.study.definition import Study
from symskew.study.setting import Setting
from symskew.study.sources import prompt_id
from symskew.study.store import Store


class Sample(NamedTuple):
    """One image that is planned."""

    id: str
    prompt: str
    prompt_id: str
    seed: int


@dataclass(frozen=True)
class Unit:
    """Samples of one setting that are generated and committed together.

    Attributes:
        setting_id: hash of the setting's exact description.
        setting: which of the study's it is.
        samples: whose images are computed in this order, in batches that depend on nothing else.
        diagnose: settings of `symskew.diagnose`, None for not.
        have: ids of samples whose images are there already, and only their diagnosis is not.
    """

    setting_id: str
    setting: Setting
    samples: tuple[Sample, ...]
    diagnose: Mapping[str, Any] | None = None
    have: frozenset[str] = frozenset()
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", unit_id([sample.id for sample in self.samples]))


def unit_id(sample_ids: Sequence[str]) -> str:
    """A unit's name: a hash of its samples' ids, in order."""
    return hashlib.sha256("".join(sample_ids).encode()).hexdigest()[:16]


def sample_id(description: Mapping[str, Any], prompt: str, seed: int) -> str:
    """A sample's name, given the description of its setting; the same as of the image that `symskew generate` makes."""
    return settings_id({**description, "prompt": prompt, "seed": seed})


def setting_key(study: Study, setting: Setting) -> str:
    """What a setting's description depends on, but for the model's files, as a hash."""
    plain = json.dumps([study.model, study.dtype, {**study.common, **setting.knobs}], sort_keys=True, default=str)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def plan(study: Study, descriptions: Mapping[str, tuple[str, Mapping[str, Any]]]) -> Iterator[Unit]:
    """The units of a study: run by run and seed by seed, every setting of a group of prompts before the next group.

    So what is compared is generated together, and an unfinished study is balanced. A group is `study.chunk` prompts
    that follow each other in their set.

    Args:
        study: what is asked for.
        descriptions: by name of setting, its id and the exact description of its images but for prompt and seed.
    """
    lenses: dict[str, Mapping[str, Any] | None] = {}
    groups: list[tuple[str, list[Sample]]] = []
    for run in study.runs:
        texts = study.prompts[run.prompts].texts[: run.limit]
        for role in run.roles:
            for seed in study.seeds[role][: run.each]:
                for first in range(0, len(texts), study.chunk):
                    for name in run.settings:
                        description = descriptions[name][1]
                        group = [
                            Sample(sample_id(description, text, seed), text, prompt_id(text), seed)
                            for text in texts[first : first + study.chunk]
                        ]
                        groups.append((name, group))
                        for sample in group:
                            if lenses.get(sample.id) is None:  # of a later run that diagnoses nothing, keep the earlier
                                lenses[sample.id] = run.diagnose
    planned: set[str] = set()
    for name, group in groups:
        fresh = [sample for sample in group if sample.id not in planned]
        planned.update(sample.id for sample in fresh)
        for lens, some in itertools.groupby(fresh, lambda sample: lenses[sample.id]):
            yield Unit(descriptions[name][0], study.settings[name], tuple(some), lens)


def remaining(units: Iterable[Unit], store: Store, *, given_up: Collection[str] = ()) -> list[Unit]:
    """What is left of a plan: the units, or parts of units, that the store does not hold.

    A unit is known by its name, so nothing is read unless the store holds other units of the same setting: those of an
    earlier plan, whose samples are looked up.

    Args:
        units: planned.
        store: what is done.
        given_up: ids of samples that are not to be tried again.
    """
    units = list(units)
    planned = {unit.id for unit in units}
    done = {table: _Done(store, table, planned) for table in ("samples", "measures")}
    left = []
    for unit in units:
        images = done["samples"].of(unit)
        measured = images if unit.diagnose is None else done["measures"].of(unit)
        missing = [s for s in unit.samples if s.id not in images or s.id not in measured]
        missing = [sample for sample in missing if sample.id not in given_up]
        if missing:
            have = frozenset(sample.id for sample in missing if sample.id in images)
            left.append(replace(unit, samples=tuple(missing), have=have))
    return left


class _Done:
    """The samples of a table that are committed, by unit where that is enough."""

    def __init__(self, store: Store, table: str, planned: set[str]) -> None:
        self._store, self._table = store, table
        self._units = store.done(table)
        self._others = {setting: names - planned for setting, names in self._units.items()}
        self._ids: dict[str, set[str]] = {}

    def of(self, unit: Unit) -> set[str]:
        """The ids of those of a unit's samples that are there."""
        own = {sample.id for sample in unit.samples}
        if unit.id in self._units.get(unit.setting_id, ()):
            return own
        if unit.setting_id not in self._ids:
            self._ids[unit.setting_id] = {
                key
                for name in self._others.get(unit.setting_id, ())
                for key in self._store.read(self._table, unit.setting_id, name, columns=["sample_id"])[0].to_pylist()
            }
        return own & self._ids[unit.setting_id]
