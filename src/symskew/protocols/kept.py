"""From the folder of a study to evidence, and evidence small enough to be kept beside a page that is made from it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from symskew import ensemble
from symskew.files import replacing
from symskew.protocols.distances import COLUMN, measured
from symskew.protocols.evidence import Evidence
from symskew.study.frames import Results
from symskew.study.references import references_in
from symskew.table import need

TABLES = ("frame", "settings", "measures", "metrics", "pairs")
LONG = ("frame", "measures", "pairs")
"""Those of them whose numbers are many, and kept in single precision."""
MOST_BYTES = 1_000_000


def evidence_of(results: Results) -> Evidence:
    """What a study has found so far, in single precision: what it was scored in, and all that is kept of it.

    Raises:
        ValueError: nothing yet.
    """
    references = references_in(results)
    if results.study.model in ensemble.MODELS:
        from symskew.metrics.reference import load

        real = load().matching(sorted(results.frame["prompt"]))
        references[real.metadata["extractor"]] = real
    features = results.features if results.has_features else None
    frame, measures, pairs = (_single(each) for each in (results.frame, results.measures, results.pairs))
    return Evidence(
        frame, results.settings, measures, results.metrics, pairs, features, references, results.study.seeds
    )


def keep(evidence: Evidence, folder: str | Path) -> int:
    """Write evidence as five small Parquet files, without images and features; the same bytes for the same evidence.

    Of features the distances are kept that were measured in them, so that all tables but Table 8, which compares whole
    sets of features with real images', come out of it exactly as they come out of `evidence_of` a study.

    Returns:
        Their size together, in bytes.

    Raises:
        ValueError: they would take more than a megabyte; nothing is written.
    """
    arrow, parquet = need("pyarrow", "study"), need("pyarrow.parquet", "study")
    files = {}
    for name in TABLES:
        frame = getattr(evidence, name).drop(columns=["image_sha256", "noise_sha256", "seconds"], errors="ignore")
        if name == "frame" and evidence.features is not None:
            frame = frame.assign(**{COLUMN: measured(evidence)})
        for column in _numbers(frame) if name in LONG else ():
            frame[column] = frame[column].astype(np.float32)
        buffer = io.BytesIO()
        rows = arrow.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        parquet.write_table(rows, buffer, compression="zstd", compression_level=19)
        files[name] = buffer.getvalue()
    size = sum(map(len, files.values()))
    if size > MOST_BYTES:
        raise ValueError(f"symskew: the tables take {size} bytes, more than {MOST_BYTES}, which is too much to keep")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        with replacing(folder / f"{name}.parquet") as partial:
            partial.write_bytes(data)
    return size


def kept(folder: str | Path) -> Evidence:
    """The evidence that `keep` wrote; Table 8 cannot be made from it, and the claim that rests on it is not measured.

    Raises:
        ValueError: it is not there, or damaged.
    """
    pandas, folder = need("pandas", "study"), Path(folder)
    try:
        frames = {name: pandas.read_parquet(folder / f"{name}.parquet") for name in TABLES}
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no evidence that was kept: {error}") from error
    return Evidence(**{name: _single(frame) if name in LONG else frame for name, frame in frames.items()})


def _single(frame: Any) -> Any:
    """The same numbers in single precision, as they are kept, to be computed with in double precision."""
    return frame.assign(**{name: frame[name].astype(np.float32).astype(float) for name in _numbers(frame)})


def _numbers(frame: Any) -> list[str]:
    return list(frame.columns[[kind in (np.float32, np.float64) for kind in frame.dtypes]])
