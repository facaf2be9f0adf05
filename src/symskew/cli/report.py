"""Print what a run came to: a table for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from symskew.cli.judging import Opinion, summarize
from symskew.cli.say import out
from symskew.images import describe_control

if TYPE_CHECKING:
    from symskew.cli.job import Done, Job

MOST_ROWS = 32


def summary(job: Job) -> str:
    """One sentence on how many images are entirely right; empty where nobody can tell."""
    if job.paired:
        pairs = job.pairs()
        return summarize(*([_right(done) for done in side] for side in zip(*pairs, strict=True)))
    return summarize([_right(done) for done in job.ordered()], [])


def _right(done: Done) -> bool | None:
    return done.opinion.right if done.opinion else None


def print_json(job: Job, picture: Path | None) -> None:
    """The whole run as one JSON object on stdout."""
    result: dict[str, Any] = {"images": [done.row() for done in job.ordered()], "summary": summary(job)}
    if picture:
        result["compare"] = str(picture)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


def print_tables(job: Job, picture: Path | None) -> None:
    """A table of the images, a summary and where everything is, on stdout."""
    console, images = out(), job.ordered()
    table = _paired(job) if job.paired else _plain(job)
    console.print(table)
    hidden = (len(images) // (2 if job.paired else 1)) - MOST_ROWS
    if hidden > 0:
        console.print(f"… and {hidden} more rows, in {job.folder.path}/metadata.jsonl", soft_wrap=True)
    if sentence := summary(job):
        console.print(escape(sentence), soft_wrap=True)
    seconds = sum(done.result.seconds for done in images)
    where = escape(str(job.folder.path)) + (f"; the picture is {escape(str(picture))}" if picture else "")
    console.print(
        f"{len(images)} images in {seconds:.1f} s ({seconds / len(images):.2f} s each), in {where}", soft_wrap=True
    )


def _plain(job: Job) -> Table:
    images = job.ordered()
    first = images[0].result.settings
    table = _table(f"{first['model']} · {describe_control(first)}")
    table.add_column("prompt", ratio=3)
    table.add_column("seed", justify="right")
    if job.jury:
        table.add_column("the judge read", ratio=3)
    table.add_column("s", justify="right")
    for done in images[:MOST_ROWS]:
        settings = done.result.settings
        cells = [escape(settings["prompt"]), str(settings["seed"])]
        cells += [_read(done.opinion)] if job.jury else []
        table.add_row(*cells, f"{done.result.seconds:.2f}")
    return table


def _paired(job: Job) -> Table:
    pairs = job.pairs()
    control = describe_control(pairs[0][1].result.settings)
    title = f"{pairs[0][0].result.settings['model']} · vanilla beside {control}, same seeds"
    table = _table(f"{title}: what the judge read" if job.jury else title)
    table.add_column("prompt", ratio=3)
    table.add_column("seed", justify="right")
    for name in ("vanilla", "controlled") if job.jury else ():
        table.add_column(name, ratio=3)
    table.add_column("s", justify="right")
    for pair in pairs[:MOST_ROWS]:
        settings = pair[0].result.settings
        cells = [escape(settings["prompt"]), str(settings["seed"])]
        cells += [_read(done.opinion) for done in pair] if job.jury else []
        table.add_row(*cells, "+".join(f"{done.result.seconds:.2f}" for done in pair))
    return table


def _table(title: str) -> Table:
    return Table(title=escape(title), title_justify="left", title_style="bold", expand=True, box=None, padding=(0, 1))


def _read(opinion: Opinion | None) -> str:
    if opinion is None or opinion.right is None:
        return escape(opinion.read) if opinion else ""
    return f"[green]✓[/] {escape(opinion.read)}" if opinion.right else f"[red]✗[/] {escape(', '.join(opinion.wrong))}"
