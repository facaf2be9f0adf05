"""The task of looking at the images of a unit: features once, and scores from them."""

from __future__ import annotations

import hashlib
import io
import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from symskew import metrics
from symskew.files import read_json
from symskew.metrics import Features, SampleMetric
from symskew.study.plan import unit_id
from symskew.study.scorers import keep_digests
from symskew.study.store import Store
from symskew.study.work import Outcome, Worker
from symskew.table import need


@dataclass(frozen=True)
class Score:
    """Score the images of a committed unit.

    Attributes:
        setting_id, unit: whose samples.
        metrics: names of what is to be scored, all of one extractor; metrics of pairs and sets are given its features.
        extractor: its id.
    """

    setting_id: str
    unit: str
    metrics: tuple[str, ...]
    extractor: str

    @property
    def id(self) -> str:
        """Of the unit and what is looked for."""
        return f"{self.unit}/{group_id(self.metrics)}"

    @property
    def sample_ids(self) -> list[str]:
        """Not known before the unit is read; the unit's name stands for them."""
        return [self.unit]

    @property
    def loads(self) -> str:
        """The extractor."""
        return self.extractor

    def is_done(self, store: Store) -> bool:
        """Whether the scores are committed."""
        return store.has("scores", group_id(self.metrics), self.setting_id, self.unit)

    def run(self, worker: Worker, *, singly: bool) -> Outcome:
        """Look at the images unless their features are kept already, score them, commit what is found."""
        began = time.perf_counter()
        store = worker.store
        samples = store.read("samples", self.setting_id, self.unit, columns=["sample_id", "prompt_id"]).to_pylist()
        texts = {row["sample_id"]: worker.prompts[row["prompt_id"]] for row in samples}
        some = metrics.find(self.metrics, worker.site)
        digests = metrics.digests(some, worker.site)
        keep_digests(store, digests)  # first, so that no other weights leave anything behind
        failed: dict[str, str] = {}
        looked, features = self._features(worker, list(texts), digests, failed if singly else None)

        def score(rows: slice) -> Features:
            own = {name: values[rows] for name, values in features.items()}
            asked = [texts[key] for key in looked[rows]]
            # Metrics of pairs and sets are computed of many units together, once somebody asks.
            return {metric.id: metric.score(own, asked) for metric in some if isinstance(metric, SampleMetric)}

        scored, scores = _gather(looked, score, failed if singly else None)
        if scored:
            name = self.unit if len(scored) == len(texts) else unit_id(scored)
            store.commit(_as_rows(scored, scores), "scores", group_id(self.metrics), self.setting_id, name)
        seconds = time.perf_counter() - began
        return Outcome(self.id, len(scored), seconds, seconds, failed)

    def _features(
        self, worker: Worker, ids: list[str], digests: Mapping[str, str], failed: dict[str, str] | None
    ) -> tuple[list[str], Features]:
        store, eye = worker.store, metrics.extractor(self.extractor, worker.site)
        folder = ("features", slug(self.extractor), self.setting_id)
        if store.has(*folder, self.unit):
            table = store.read(*folder, self.unit)
            check_weights(table, store.path(*folder, self.unit), digests)
            return table["sample_id"].to_pylist(), unpack(table)
        images = store.read("samples", self.setting_id, self.unit, columns=["image"])["image"].to_pylist()

        def look(rows: slice) -> Features:
            return eye.extract(
                [Image.open(io.BytesIO(each["bytes"]), formats=("PNG",)).convert("RGB") for each in images[rows]]
            )

        looked, features = _gather(ids, look, failed)
        if eye.kept and looked:
            own = {source.name: digests[source.name] for source in eye.sources}
            store.commit(pack(looked, features, own), *folder, self.unit if looked == ids else unit_id(looked))
        return looked, features

    def by_sample(self, store: Store, reasons: Mapping[str, str]) -> dict[str, str]:
        """Why samples are not scored, where the unit as a whole is not; if it cannot be read, of the unit as it is."""
        if self.unit in reasons:
            with suppress(ValueError, FileNotFoundError):
                return dict.fromkeys(_ids(store, self.setting_id, self.unit), reasons[self.unit])
        return dict(reasons)


def _gather(
    ids: list[str], work: Callable[[slice], Features], failed: dict[str, str] | None
) -> tuple[list[str], Features]:
    """The samples that work can be done for, and what comes of it.

    That is all of them at once, or an error; where failures have a place to go, each by itself.
    """
    if failed is None:
        return ids, work(slice(None))
    good: list[str] = []
    parts: list[Features] = []
    for row, key in enumerate(ids):
        try:
            parts.append(work(slice(row, row + 1)))
        except Exception:
            failed[key] = traceback.format_exc()
        else:
            good.append(key)
    return good, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _as_rows(ids: list[str], scores: Features) -> Any:
    arrow = need("pyarrow", "study")
    values = [value for column in scores.values() for value in column.tolist()]
    names = arrow.array([name for name in scores for _ in ids], arrow.string())
    columns = {
        "sample_id": arrow.array(ids * len(scores), arrow.string()),
        "metric_id": names.dictionary_encode(),
        "value": arrow.array(values, arrow.float64()),
    }
    return arrow.table(columns)


def _ids(store: Store, setting: str, unit: str) -> list[str]:
    return store.read("samples", setting, unit, columns=["sample_id"])["sample_id"].to_pylist()


def scoring_tasks(store: Store, names: Sequence[str]) -> Iterator[Score]:
    """What is left to score or to look at of the committed samples, for all metrics named whose features are kept.

    Metrics that are added later are scored by themselves; nothing is scored again, and nothing that was given up.
    """
    known = _groups(store)
    samples = store.done("samples")
    by_extractor: dict[str, list[str]] = {}
    for metric in metrics.find(names):
        if metric.extractor and (isinstance(metric, SampleMetric) or metrics.extractor(metric.extractor).kept):
            by_extractor.setdefault(metric.extractor, []).append(metric.quantities[0].id)
    scored = {group: store.done("scores", group) for group in known}
    given_up = {group: _by_unit(failures) for group, failures in store.unscored().items()}

    def is_there(group: str, setting: str, unit: str) -> bool:
        done, lost = scored[group].get(setting, set()), given_up.get(group, {}).get(unit, set())
        if unit in done or not lost:
            return unit in done
        ids = _ids(store, setting, unit)
        rest = [key for key in ids if key not in lost]
        return not rest or (len(rest) < len(ids) and unit_id(rest) in done)

    for extractor, wanted in by_extractor.items():
        for setting, units in sorted(samples.items()):
            for unit in sorted(units):
                there = {name for group, own in known.items() if is_there(group, setting, unit) for name in own}
                if missing := tuple(name for name in wanted if name not in there):
                    yield Score(setting, unit, missing, extractor)


def _by_unit(failures: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key, failure in failures.items():
        found.setdefault(str(failure["task"]).partition("/")[0], set()).add(key)
    return found


def keep_groups(store: Store, tasks: Sequence[Score]) -> None:
    """Write down which metrics a folder of scores is of."""
    for names in {task.metrics for task in tasks}:
        store.keep_text(json.dumps(list(names)) + "\n", "scores", group_id(names), "metrics.json")


def check_weights(table: Any, path: Path, digests: Mapping[str, str]) -> None:
    """That features were made with these weights; of features from before they said so, nothing is known.

    Raises:
        ValueError: they were made with others.
    """
    for name, came in json.loads((table.schema.metadata or {}).get(b"weights", b"{}")).items():
        if digests.get(name, came) != came:
            raise ValueError(
                f"{path} was made with other weights of {name} (SHA-256 {came[:12]}…) than its study is scored with "
                f"({digests[name][:12]}…); delete it and scores/*/{path.parent.name}/{path.name}, and run the study "
                "again"
            )


def _groups(store: Store) -> dict[str, list[str]]:
    return {
        path.parent.name: read_json(path, list) for path in sorted((store.folder / "scores").glob("*/metrics.json"))
    }


def group_id(names: Sequence[str]) -> str:
    """The folder of the scores of these metrics."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:12]


def slug(name: str) -> str:
    """A name as a folder."""
    return "".join(each if each.isalnum() or each in "-@." else "_" for each in name)


def pack(ids: Sequence[str], features: Features, weights: Mapping[str, str]) -> Any:
    """Features as a table: a row for each sample, a list of numbers for each array.

    The metadata have the shapes of the arrays, and the SHA-256 of the published weights that they were made with.
    """
    arrow = need("pyarrow", "study")
    columns: dict[str, Any] = {"sample_id": arrow.array(list(ids))}
    shapes = {}
    for name, values in features.items():
        flat = np.ascontiguousarray(values).reshape(len(ids), -1)
        columns[name] = arrow.FixedSizeListArray.from_arrays(arrow.array(flat.reshape(-1)), flat.shape[1])
        shapes[name] = list(values.shape[1:])
    known = {"shapes": json.dumps(shapes), "weights": json.dumps(dict(weights))}
    return arrow.table(columns).replace_schema_metadata(known)


def unpack(table: Any) -> dict[str, np.ndarray]:
    """The inverse of `pack`, but for the ids."""
    shapes = json.loads(table.schema.metadata[b"shapes"])
    table = table.combine_chunks()
    return {
        name: np.concatenate([c.flatten().to_numpy(zero_copy_only=False) for c in table[name].chunks]).reshape(
            -1, *shape
        )
        for name, shape in shapes.items()
    }
