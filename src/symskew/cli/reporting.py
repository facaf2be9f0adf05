"""`symskew study report`: everything that is known of a study, handed to the report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from symskew.protocols import MissingError, protocols, run
from symskew.protocols.kept import evidence_of
from symskew.protocols.table import ResultTable
from symskew.report import Claim, write_report
from symskew.study.frames import Results
from symskew.study.plan import plan
from symskew.study.run import describe_settings
from symskew.study.store import digest, read_file
from symskew.table import need


def make_report(folder: Path, where: Path) -> Path:
    """Write the report of a study, with every table that its samples allow.

    Raises:
        ValueError: there are no results yet, or files are damaged.
        FileExistsError: `where` has files that are no report.
    """
    results = Results.of(folder)
    evidence = evidence_of(results)
    tables: list[ResultTable] = []
    for name in protocols():
        try:
            tables += run(name, evidence)
        except MissingError:
            continue
    return write_report(
        where, evidence, tables, results.images, title=results.study.name, provenance=_provenance(results),
        claims=[claim for table in tables if table.name == "claims" for claim in _claims(table)],
        failures=_failures(results),
        maps=lambda key: {stage: maps["conflict"] for stage, maps in results.maps(key).items()},
    )  # fmt: skip


def _claims(table: ResultTable) -> list[Claim]:
    places = {column.name: place for place, column in enumerate(table.columns)}
    found = []
    for row in table.rows:
        said, verdict, number, why = (
            table.columns[places[name]].text(row[places[name]])
            for name in ("the paper says", "verdict", "number", "decided by")
        )
        found.append(Claim(said, verdict, f"{number} {why}".strip()))
    return found


def _provenance(results: Results) -> dict[str, Any]:
    """What made the samples, and what they can be checked by."""
    rows = need("pandas", "study").concat(
        read_file(path, ["versions", "device", "batch", "created_at"]).to_pandas()
        for path in results.store.files("samples")
    )
    first = json.loads(results.settings["json"].iloc[0])
    return {
        "model": results.study.model,
        "weights": first["revision"],
        "number format": first["dtype"],
        "sampler": first["scheduler"]["name"],
        "device": ", ".join(sorted(rows["device"].unique())),
        "versions": [json.loads(text) for text in sorted(rows["versions"].unique())],
        "made": f"{rows['created_at'].min():%Y-%m-%d %H:%M} to {rows['created_at'].max():%Y-%m-%d %H:%M} UTC",
        "digest of all samples": digest(
            dict(zip(results.frame["sample_id"], results.frame["image_sha256"], strict=True))
        ),
        "metrics": {
            row["metric"]: f"version {row['version']}, {row['dtype']}, weights {_short(str(row['weights']))}"
            for row in results.metrics.to_dict("records")
        },
        "command": "symskew study run study.yaml; symskew study report",
        "study.yaml": results.store.folder.joinpath("study.yaml").read_text(encoding="utf-8"),
    }


def _short(text: str) -> str:
    """A text with hashes of sixteen digits."""
    return re.sub(r"\b([0-9a-f]{16})[0-9a-f]{48}\b", r"\1", text)


def _failures(results: Results) -> Any:
    """The samples that were given up, as the report wants them."""
    there = set(results.frame["sample_id"])  # of these, some metrics may be missing
    given_up = {key: reason for key, reason in results.store.given_up().items() if key not in there}
    rows = []
    if given_up:
        descriptions = describe_settings(results.study, results.store)
        sets = {text: name for name, some in results.study.prompts.items() for text in some.texts}
        roles = {seed: role for role, seeds in results.study.seeds.items() for seed in seeds}
        for unit in plan(results.study, descriptions):
            for sample in unit.samples:
                if sample.id in given_up:
                    rows.append((sample.id, unit.setting_id, sets[sample.prompt], sample.prompt_id, sample.prompt,
                                 sample.seed, roles[sample.seed], given_up[sample.id]))  # fmt: skip
    columns = ["sample_id", "setting_id", "prompts", "prompt_id", "prompt", "seed", "role", "error"]
    return need("pandas", "study").DataFrame(rows, columns=columns)
