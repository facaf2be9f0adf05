"""`symskew study run … --dry-run`: what a study is, whether its settings can be met, what it costs, what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from textwrap import indent

from rich.box import SIMPLE
from rich.table import Table

from symskew.cli.say import out
from symskew.study.definition import Study
from symskew.study.forecast import GIGA, Forecast, figure


def dry_run(file: Path, captions: Path | None, folder: Path | None, seconds: float | None) -> bool:
    """Check and foretell; nothing is downloaded, loaded or written.

    Returns:
        Whether the study can be run: nothing is missing.

    Raises:
        ValueError: the study makes no sense, or has a setting that its model cannot meet.
    """
    from symskew import metrics
    from symskew.protocols.rehearsal import rehearse
    from symskew.study.forecast import forecast
    from symskew.study.missing import find_quietly, missing
    from symskew.study.run import check_setting
    from symskew.study.scorers import metric_names
    from symskew.study.skeleton import skeleton, stages_of
    from symskew.study.store import Store

    study = Study.read(file, captions, stand_in=True)
    files, why = find_quietly(study.model)
    model = skeleton(files or study.model)
    if model is not None:
        for setting in study.settings.values():
            check_setting(model, study, setting)
    found = metrics.find(metric_names(study))
    where, cost, unknown = folder or Path("runs") / study.name, None, []
    extractors = len({metric.extractor for metric in found if metric.extractor})
    try:
        cost = forecast(study, model, extractors, seconds, Store(where))
        _print_cost(study, cost)
    except ValueError as error:
        unknown = [str(error)]
    lacking = [*unknown, *missing(study, why, where, cost.bytes if cost else 0.0)]
    if model is None:
        _say([f"settings: not checked, since the parts of {study.model} are not known without its files"])
    else:
        _say([f"settings: {len(study.settings)} can be met by {type(model.pipe).__name__}"])
    tables = rehearse(study) if model is None else rehearse(study, stages_of(model))
    _say(["", "tables that it allows: " + (", ".join(each.name for each in tables if not each.missing) or "none")])
    _say(f"no {each.name}: {indent(each.missing, '    ').strip()}" for each in tables if each.missing)
    _say(["", *(f"missing: {each}" for each in lacking)] if lacking else ["", "nothing is missing"])
    return not lacking


def _print_cost(study: Study, cost: Forecast) -> None:
    prompts = ", ".join(f"{len(some.texts):,} {name}" for name, some in study.prompts.items())
    there = f", of which {cost.there:,} are there" if cost.there else ""
    _say([f"{study.name}: {cost.planned:,} images of {len(cost.rows)} settings{there}; prompts: {prompts}"])
    table = Table("setting", "images", "diagn.", "steps", "passes", "TFLOP", "GPU h", box=SIMPLE, padding=(0, 1))
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for row in cost.rows:
        table.add_row(
            row.setting, f"{row.images:,}", f"{row.diagnosed:,}", str(row.steps), f"{row.passes:g}",
            figure(row.operations), figure(row.hours),
        )  # fmt: skip
    table.add_row("scoring", "", "", "", "", "", figure(cost.scoring))
    table.add_row("left" if cost.there else "altogether", f"{cost.images:,}", "", "", "", "", figure(cost.hours))
    out().print(table)
    parts = ", ".join(f"{what} {figure(size / GIGA)}" for what, size in cost.disk.items())
    _say([*cost.told, f"disk: {figure(cost.bytes / GIGA)} GB ({parts})"])


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        out().print(line, soft_wrap=True, markup=False)
