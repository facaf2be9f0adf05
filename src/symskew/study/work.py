"""What a worker is: it has the model and the store at hand, and does one task after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

from symskew.metrics import Site
from symskew.models import Model, load_model
from symskew.offline import go_offline, is_offline
from symskew.study.store import Store

MODEL = "model"
"""What tasks need in memory that generate."""


@dataclass(frozen=True)
class Outfit:
    """What a worker needs to begin; plain values, so that it can be sent anywhere.

    Attributes:
        folder: of the study.
        model, dtype, device: as for `load_model`.
        batch: images at a time.
        threads: of a CPU. They have a part in how sums are rounded, so they are the same for every worker; None leaves
            torch's own number.
        common: the study's, for settings that do not say.
        weights: where those of metrics are, as of a `Site`.
        offline: whether a worker connects to nothing; by default as the process that makes this.
    """

    folder: Path
    model: str
    dtype: str
    device: str
    batch: int
    threads: int | None
    common: Mapping[str, Any]
    weights: tuple[tuple[str, str], ...] = ()
    offline: bool = field(default_factory=is_offline)


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Attributes:
        task: its id.
        samples: how many are committed.
        seconds: spent on what the task is for: in the pipeline, say.
        busy: spent altogether.
        failed: what was raised, by sample.
    """

    task: str
    samples: int
    seconds: float
    busy: float
    failed: Mapping[str, str] = field(default_factory=dict)


class Task(Protocol):
    """Work that ends with a commit: doing it twice does no harm, and the second time changes nothing."""

    @property
    def id(self) -> str:
        """The same for the same work."""
        ...

    @property
    def sample_ids(self) -> list[str]:
        """The samples it is about."""
        ...

    @property
    def loads(self) -> str:
        """What it needs in memory: `MODEL`, or an extractor's id."""
        ...

    def is_done(self, store: Store) -> bool:
        """Whether its result is committed."""
        ...

    def run(self, worker: Worker, *, singly: bool) -> Outcome:
        """Do it; `singly`, sample by sample, keeping those that work: for what failed as a whole."""
        ...


class Worker:
    """Does tasks one after the other; the model is loaded for the first that needs it, and stays."""

    def __init__(self, outfit: Outfit) -> None:
        if outfit.offline:  # other nodes do not inherit the driver's environment, and nobody an audit hook
            go_offline()
        self.outfit = outfit
        self.store = Store(outfit.folder)
        if outfit.threads is not None:
            torch.set_num_threads(outfit.threads)

    @cached_property
    def model(self) -> Model:
        """The pipeline."""
        return load_model(self.outfit.model, dtype=self.outfit.dtype, device=self.outfit.device)

    @property
    def site(self) -> Site:
        """Where metrics are computed."""
        return Site(self.outfit.device, self.outfit.weights)

    @cached_property
    def prompts(self) -> dict[str, str]:
        """The texts of all prompts by id."""
        return {row["prompt_id"]: row["prompt"] for row in self.store.prompts()}

    def do(self, task: Task, *, singly: bool) -> Outcome:
        """Have it done, unless another run has done it meanwhile."""
        return Outcome(task.id, 0, 0.0, 0.0) if task.is_done(self.store) else task.run(self, singly=singly)
