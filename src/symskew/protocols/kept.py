"""From the folder of a study to evidence, and evidence small enough to be kept beside a page that is made from it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from symskew import ensemble
from symskew.files import replacing
from symskew.protocols.evidence import Evidence
from symskew.study.frames import Results
from symskew.study.references import references_in
from symskew.table import need

TABLES = ("frame", "settings", "measures", "metrics", "pairs")
MOST_BYTES = 1_000_000


def evidence_of(results: Results) -> Evidence:
    """What a study has found so far.

    Raises:
        ValueError: nothing yet.
    """
    references = references_in(results)
    if results.study.model in ensemble.MODELS:
        from symskew.metrics.reference import load

        real = load().matching(sorted(results.frame["prompt"]))
        references[real.metadata["extractor"]] = real
    return Evidence(
        results.frame, results.settings, results.measures, results.metrics, results.pairs, results.features, references
    )


def keep(evidence: Evidence, folder: str | Path) -> int:
    """Write evidence as five small Parquet files, without images and features; the same bytes for the same evidence.

    Returns:
        Their size together, in bytes.

    Raises:
        ValueError: they would take more than a megabyte; nothing is written.
    """
    arrow, parquet = need("pyarrow", "study"), need("pyarrow.parquet", "study")
    files = {}
    for name in TABLES:
        frame = getattr(evidence, name).drop(columns=["image_sha256", "noise_sha256", "seconds"], errors="ignore")
        for column in frame.columns[[kind == np.float64 for kind in frame.dtypes]]:
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
    """The evidence that `keep` wrote. Tables that are made from features cannot be made from it.

    Raises:
        ValueError: it is not there, or damaged.
    """
    pandas, folder = need("pandas", "study"), Path(folder)
    try:
        frames = {name: pandas.read_parquet(folder / f"{name}.parquet") for name in TABLES}
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no evidence that was kept: {error}") from error
    return Evidence(**frames)
