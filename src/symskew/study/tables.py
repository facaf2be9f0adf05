"""The rows that a unit's images become: samples, measures, maps."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from PIL import Image

from symskew.generation import Result, versions
from symskew.study.plan import Sample
from symskew.table import need

Done = Sequence[tuple[Sample, Result, str]]
"""Samples with what was generated, and the hash of the noise each began with."""


def samples_of(done: Done, setting_id: str, unit: str) -> Any:
    """The table `samples`: `sample_id` is its key; `image` is as Hugging Face's datasets keep images."""
    arrow = need("pyarrow", "study")
    pictures = [png_of(result.image) for _, result, _ in done]
    now, computed = datetime.now(timezone.utc), json.dumps(versions(), sort_keys=True)
    columns: dict[str, Any] = {
        "sample_id": [sample.id for sample, *_ in done],
        "setting_id": [setting_id] * len(done),
        "prompt_id": [sample.prompt_id for sample, *_ in done],
        "seed": arrow.array([sample.seed for sample, *_ in done], arrow.int64()),
        "image": [
            {"bytes": data, "path": f"{sample.id}.png"} for data, (sample, *_) in zip(pictures, done, strict=True)
        ],
        "image_sha256": [hashlib.sha256(data).hexdigest() for data in pictures],
        "noise_sha256": [noise for *_, noise in done],
        "unit": [unit] * len(done),
        "batch": arrow.array([result.run["batch"] for _, result, _ in done], arrow.int32()),
        "place": arrow.array([result.run["place"] for _, result, _ in done], arrow.int32()),
        "device": [result.run["device"] for _, result, _ in done],
        "versions": [computed] * len(done),
        "seconds": arrow.array([result.seconds for _, result, _ in done], arrow.float32()),
        "created_at": arrow.array([now] * len(done), arrow.timestamp("ms", "UTC")),
    }
    return arrow.table(columns)


def measures_of(done: Done) -> Any:
    """The table `measures`: a row for each sample, step, layer, branch and retrieval, as records have them."""
    arrow = need("pyarrow", "study")
    compute = need("pyarrow.compute", "study")
    parts = []
    for record, ids in _records(done):
        table = record.table.to_arrow()
        places = arrow.array(ids)
        table = table.add_column(0, "sample_id", compute.take(places, table["sample"]))
        drop = ("generation", "sample", "index", "depth", "timestep")
        parts.append(table.drop_columns([name for name in drop if name in table.column_names]))
    return arrow.concat_tables(parts).unify_dictionaries().replace_schema_metadata(None)


def maps_of(done: Done) -> Any:
    """The table `maps`: for each sample and stage, where its retrievals were in conflict and where in agreement."""
    arrow = need("pyarrow", "study")
    rows: list[dict[str, Any]] = []
    for record, ids in _records(done):
        for stage in dict.fromkeys(layer.stage for layer in record.layers):
            for place, sample in enumerate(ids):
                row: dict[str, Any] = {"sample_id": sample, "stage": stage}
                for measure in ("conflict", "agreement"):
                    found = record.map(measure, stage=stage, sample=place)
                    row |= {measure: found.flatten().tolist(), "height": found.shape[-2], "width": found.shape[-1]}
                rows.append(row)
    return arrow.Table.from_pylist(rows, arrow.schema([
        ("sample_id", arrow.string()), ("stage", arrow.string()), ("height", arrow.int32()), ("width", arrow.int32()),
        ("conflict", arrow.list_(arrow.float32())), ("agreement", arrow.list_(arrow.float32())),
    ]))  # fmt: skip


def png_of(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _records(done: Done) -> list[tuple[Any, list[str]]]:
    """Each batch's record, with the ids of its samples by their places."""
    found: dict[int, tuple[Any, dict[int, str]]] = {}
    for sample, result, _ in done:
        found.setdefault(id(result.diagnosis), (result.diagnosis, {}))[1][result.run["place"]] = sample.id
    return [(record, [ids[place] for place in sorted(ids)]) for record, ids in found.values()]
