"""Write a report: what is given is checked before work starts, and the folder is there whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symskew.files import becoming
from symskew.protocols.evidence import Evidence
from symskew.protocols.render import csv_text, latex, markdown
from symskew.protocols.table import ResultTable
from symskew.report.findings import correlations, quantiles, settings_by_metric
from symskew.report.front import Claim, Front, render
from symskew.report.pictures import check_names, write_pictures
from symskew.report.samples import KEYS, sample_columns
from symskew.report.script import script
from symskew.table import need

if TYPE_CHECKING:
    import pandas as pd

PAGE = Path(__file__).parent / "page"
MARK = '<meta name="generator" content="symskew report">'
"""By which a folder is known as a report, which another one may replace."""


def write_report(
    folder: str | Path,
    evidence: Evidence,
    tables: Sequence[ResultTable],
    images: Callable[[str], bytes],
    *,
    title: str,
    provenance: Mapping[str, Any],
    claims: Sequence[Claim] = (),
    failures: pd.DataFrame | None = None,
    maps: Callable[[str], Mapping[str, Any]] | None = None,
) -> Path:
    """Write a study as a folder with a page that opens from disk, offline.

    Args:
        folder: where to; an earlier report that is there is replaced when the new one is complete.
        evidence: what was found.
        tables: in the order they are shown.
        images: the bytes of a sample's PNG file, by its id; asked once for each sample of `evidence.frame`, in order.
        title: of the page.
        provenance: what made it: names with words, numbers, lists or mappings of these. "model" and "weights" are also
            shown on the first page.
        claims: what it all comes to.
        failures: samples that could not be made: the columns `sample_id, setting_id, prompts, prompt_id, prompt, seed,
            role` as in `evidence.frame`, and `error`.
        maps: of a sample, by its id, for each stage where its retrievals are in conflict: {stage: (height, width)}, a
            share of features with λ < 0; empty where no map was kept.

    Returns:
        The path of the page, `folder/index.html`.

    Raises:
        ValueError: ids that cannot name files or occur twice, failures without a column or of an unknown setting, an
            image that is no PNG, a map that is not (height, width).
        FileExistsError: the folder has something in it that is no report.
    """
    folder = Path(folder).resolve()
    failed = _checked(evidence, failures)
    if folder.exists() and not _is_report(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"write_report: {folder} has files that are no report; give another folder, or empty it")
    with becoming(folder) as partial:
        shutil.copytree(PAGE, partial / "page", ignore=shutil.ignore_patterns("index.html"))
        pictures, stages = write_pictures(partial, evidence.frame["sample_id"], images, maps)
        (partial / "data").mkdir()
        study, samples = study_of(evidence, tables), sample_columns(evidence, pictures, failed, stages)
        (partial / "data" / "study.js").write_text(script("study", study), encoding="utf-8")
        (partial / "data" / "samples.js").write_text(script("samples", samples), encoding="utf-8")
        front = Front(title, evidence, pictures, tables, claims, len(failed), provenance)
        template = (PAGE / "index.html").read_text(encoding="utf-8")
        (partial / "index.html").write_text(render(template, front), encoding="utf-8")
    return folder / "index.html"


def study_of(evidence: Evidence, tables: Sequence[ResultTable]) -> dict[str, Any]:
    """All that the page knows but for the samples."""
    # Vanilla first: it has the first colour, and is what others are compared with.
    families = sorted(dict.fromkeys(evidence.settings["family"]), key=lambda family: family != "vanilla")
    return {
        "settings": [
            {"id": row["setting_id"], "name": row["setting"], "family": row["family"],
             "colour": families.index(row["family"]), "alpha": row["alpha"], "beta": row["beta"],
             "passes": row["passes"]}
            for row in evidence.settings.to_dict("records")
        ],
        "families": families,
        "metrics": [
            {"id": row["metric"], "title": row["title"], "unit": row["unit"], "kind": row["kind"],
             "higher": bool(row["higher_is_better"])}
            for row in evidence.metrics.to_dict("records")
        ],
        "tables": [
            {"name": table.name, "texts": {"csv": csv_text(table), "tex": latex(table), "md": markdown(table)}}
            for table in tables
        ],
        "means": settings_by_metric(evidence),
        "correlations": correlations(evidence),
        "quantiles": quantiles(evidence),
    }  # fmt: skip


def _checked(evidence: Evidence, given: pd.DataFrame | None) -> pd.DataFrame:
    columns = [*KEYS, "error"]
    failures: pd.DataFrame = need("pandas", "study").DataFrame(columns=columns) if given is None else given
    if absent := [name for name in columns if name not in failures]:
        raise ValueError(f"write_report: failures need the columns {', '.join(columns)}; {absent[0]} is not there")
    known = set(evidence.settings["setting_id"])
    if unknown := [name for name in failures["setting_id"] if name not in known]:
        raise ValueError(f"write_report: a failure is of the setting {unknown[0]!r}, which the evidence does not know")
    ids = [*evidence.frame["sample_id"], *failures["sample_id"]]
    check_names(ids)
    if len(set(ids)) < len(ids):
        raise ValueError("write_report: a sample of failures is also among those that were made, or is there twice")
    return failures


def _is_report(folder: Path) -> bool:
    page = folder / "index.html"
    return page.is_file() and MARK in page.read_text(encoding="utf-8", errors="replace")[:2000]
