"""The task of looking at the images of a unit: features once, and scores from them."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from symskew import metrics
from symskew.files import read_json
from symskew.metrics import Features, SampleMetric
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
        """Look at the images unless their features are kept already, score each by itself, commit."""
        began = time.perf_counter()
        samples = worker.store.read("samples", self.setting_id, self.unit, columns=["sample_id", "prompt_id"])
        ids = samples["sample_id"].to_pylist()
        texts = [worker.prompts[each] for each in samples["prompt_id"].to_pylist()]
        some = metrics.find(self.metrics, worker.site)
        features = self._features(worker.store, worker.site)
        rows: dict[str, list[Any]] = {"sample_id": [], "metric_id": [], "value": []}
        for metric in some:
            if not isinstance(metric, SampleMetric):
                continue  # computed of many units together, once somebody asks
            rows["sample_id"] += ids
            rows["metric_id"] += [metric.id] * len(ids)
            rows["value"] += metric.score(features, texts).tolist()
        keep_digests(worker.store, metrics.digests(some, worker.site))
        arrow = need("pyarrow", "study")
        types = {"sample_id": arrow.string(), "metric_id": arrow.string(), "value": arrow.float64()}
        columns = {name: arrow.array(values, types[name]) for name, values in rows.items()}
        columns["metric_id"] = columns["metric_id"].dictionary_encode()
        worker.store.commit(arrow.table(columns), "scores", group_id(self.metrics), self.setting_id, self.unit)
        seconds = time.perf_counter() - began
        return Outcome(self.id, len(ids), seconds, seconds)

    def _features(self, store: Store, site: metrics.Site) -> Features:
        eye = metrics.extractor(self.extractor, site)
        where = ("features", slug(self.extractor), self.setting_id, self.unit)
        if store.has(*where):
            return unpack(store.read(*where))
        table = store.read("samples", self.setting_id, self.unit, columns=["sample_id", "image"])
        images = [
            Image.open(io.BytesIO(each["bytes"]), formats=("PNG",)).convert("RGB")
            for each in table["image"].to_pylist()
        ]
        features = eye.extract(images)
        if eye.kept:
            store.commit(pack(table["sample_id"].to_pylist(), features), *where)
        return features


def scoring_tasks(store: Store, names: Sequence[str]) -> Iterator[Score]:
    """What is left to score or to look at of the committed samples, for all metrics named whose features are kept.

    Metrics that are added later are scored by themselves; nothing is scored again.
    """
    known = _groups(store)
    samples = store.done("samples")
    by_extractor: dict[str, list[str]] = {}
    for metric in metrics.find(names):
        if metric.extractor and (isinstance(metric, SampleMetric) or metrics.extractor(metric.extractor).kept):
            by_extractor.setdefault(metric.extractor, []).append(metric.quantities[0].id)
    scored = {group: store.done("scores", group) for group in known}
    for extractor, wanted in by_extractor.items():
        for setting, units in sorted(samples.items()):
            for unit in sorted(units):
                there = {name for group, own in known.items() if unit in scored[group].get(setting, ()) for name in own}
                if missing := tuple(name for name in wanted if name not in there):
                    yield Score(setting, unit, missing, extractor)


def keep_groups(store: Store, tasks: Sequence[Score]) -> None:
    """Write down which metrics a folder of scores is of."""
    for names in {task.metrics for task in tasks}:
        store.keep_text(json.dumps(list(names)) + "\n", "scores", group_id(names), "metrics.json")


def keep_digests(store: Store, digests: Mapping[str, str]) -> None:
    """Write down which weights a study is scored with, so that it is scored with no others.

    Raises:
        ValueError: it was scored with others.
    """
    there = digests_in(store)
    for name, digest in digests.items():
        if there.get(name, digest) != digest:
            raise ValueError(
                f"{name}: these weights (SHA-256 {digest[:12]}…) are not those that {store.folder} was scored with "
                f"({there[name][:12]}…); use the same, or a new folder"
            )
        store.keep_text(json.dumps({"sha256": digest}) + "\n", "weights", f"{name}.json")


def digests_in(store: Store) -> dict[str, str]:
    """The SHA-256 of the published weights that a study was scored with, by name."""
    return {path.stem: str(read_json(path)["sha256"]) for path in (store.folder / "weights").glob("[!.]*.json")}


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


def pack(ids: Sequence[str], features: Features) -> Any:
    """Features as a table: a row for each sample, a list of numbers for each array; the metadata have their shapes."""
    arrow = need("pyarrow", "study")
    columns: dict[str, Any] = {"sample_id": arrow.array(list(ids))}
    shapes = {}
    for name, values in features.items():
        flat = np.ascontiguousarray(values).reshape(len(ids), -1)
        columns[name] = arrow.FixedSizeListArray.from_arrays(arrow.array(flat.reshape(-1)), flat.shape[1])
        shapes[name] = list(values.shape[1:])
    return arrow.table(columns).replace_schema_metadata({"shapes": json.dumps(shapes)})


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
