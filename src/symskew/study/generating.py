"""The task of generating a unit."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from symskew.generation import Request, Result, describe_request, generate, settings_id
from symskew.study.noise import NoiseWatch
from symskew.study.plan import Sample, Unit, unit_id
from symskew.study.store import Store
from symskew.study.tables import maps_of, measures_of, samples_of
from symskew.study.work import MODEL, Outcome, Worker

Done = tuple[Sample, Result, str]
"""A sample, what was generated, and the hash of the noise it began with."""


@dataclass(frozen=True)
class Generate:
    """Generate a unit, diagnose it if that is asked for, and commit both.

    Attributes:
        unit: whose samples.
        description: of its setting, exactly: what is generated must be just that.
    """

    unit: Unit
    description: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The unit's."""
        return self.unit.id

    @property
    def sample_ids(self) -> list[str]:
        """The unit's samples."""
        return [sample.id for sample in self.unit.samples]

    @property
    def loads(self) -> str:
        """The pipeline."""
        return MODEL

    def is_done(self, store: Store) -> bool:
        """Whether another run has committed just this unit."""
        tables = ["samples"] * (len(self.unit.have) < len(self.unit.samples))
        tables += ["measures"] * (self.unit.diagnose is not None)
        return all(store.has(table, self.unit.setting_id, self.id) for table in tables)

    def run(self, worker: Worker, *, singly: bool) -> Outcome:
        """Generate in batches that depend on the unit alone, then commit."""
        began = time.perf_counter()
        batch = 1 if singly else worker.outfit.batch
        self._check(worker)
        done: list[Done] = []
        failed: dict[str, str] = {}
        for first in range(0, len(self.unit.samples), batch):
            some = self.unit.samples[first : first + batch]
            try:
                done += self._generate(worker, some)
            except Exception:
                if not singly:
                    raise
                failed |= {sample.id: traceback.format_exc() for sample in some}
        seconds = sum(result.seconds for _, result, _ in done)
        if done:
            self._commit(worker.store, done)
        return Outcome(self.id, len(done), seconds, time.perf_counter() - began, failed)

    def _check(self, worker: Worker) -> None:
        """That the model here is the one that the samples are named after."""
        request = self._request(worker, self.unit.samples[0])
        here = describe_request(worker.model, request)
        there = {**self.description, "prompt": request.prompt, "seed": request.seed}
        if settings_id(here) != settings_id(there):
            differ = [name for name in {**here, **there} if here.get(name) != there.get(name) and name != "model"]
            raise ValueError(
                f"study: {self.unit.setting.name} was planned with another {differ[0]} ({there.get(differ[0])}) than "
                f"there is here ({here.get(differ[0])}); use the same model, or a new folder"
            )

    def _request(self, worker: Worker, sample: Sample) -> Request:
        return self.unit.setting.request(sample.prompt, sample.seed, worker.outfit.common)

    def _generate(self, worker: Worker, samples: tuple[Sample, ...]) -> list[Done]:
        by_key = {(sample.prompt, sample.seed): sample for sample in samples}
        requests = [self._request(worker, sample) for sample in samples]
        lens = None if self.unit.diagnose is None else {"maps": True, **self.unit.diagnose}
        found = []
        with NoiseWatch(worker.model.pipe) as noise:
            for result in generate(worker.model, requests, batch=len(requests), diagnose=lens):
                sample = by_key[result.settings["prompt"], result.settings["seed"]]
                found.append((sample, result, noise.of(result.run["place"], result.run["batch"])))
        return found

    def _commit(self, store: Store, done: list[Done]) -> None:
        setting = self.unit.setting_id
        if self.unit.diagnose is not None:
            name = unit_id([sample.id for sample, *_ in done])
            store.commit(measures_of(done), "measures", setting, name)
            store.commit(maps_of(done), "maps", setting, name)
        # The samples last: where they are, all of the unit is.
        if fresh := [each for each in done if each[0].id not in self.unit.have]:
            name = unit_id([sample.id for sample, *_ in fresh])
            store.commit(samples_of(fresh, setting, name), "samples", setting, name)
