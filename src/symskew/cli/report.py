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
HEADINGS = {"energy": "energy ↓", "instability": "instability ↓", "alignment": "alignment ↑"}
"""Of a diagnosis's measures, with the end at which they are stable."""


def summary(job: Job) -> str:
    """One sentence on how many images are entirely right; empty where nobody can tell."""
    if job.paired:
        pairs = job.pairs()
        return summarize(*([_right(done) for done in side] for side in zip(*pairs, strict=True)))
    return summarize([_right(done) for done in job.ordered()], [])


def _right(done: Done) -> bool | None:
    return done.opinion.right if done.opinion else None


def print_json(job: Job, **more: Any) -> None:
    """The whole run as one JSON object on stdout."""
    result = {"images": [done.row() for done in job.ordered()], "summary": summary(job), **more}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


def print_tables(job: Job, picture: Path | None) -> None:
    """A table of the images, a summary and where everything is, on stdout."""
    where = f"; the picture is {picture}" if picture else ""
    out().print(_paired(job) if job.paired else _plain(job))
    _close(job, where)


def print_diagnosis(job: Job, ranks: dict[str, dict[str, str]], where: str) -> None:
    """The same for a diagnosis: prompt by prompt, with the rank ("3/8") of each image, by its id, in each measure."""
    console, images = out(), job.ordered()[:MOST_ROWS]
    first = images[0].result.settings
    console.print(f"[bold]{escape(first['model'])} · {escape(describe_control(first))}[/]", soft_wrap=True)
    prompts = list(dict.fromkeys(done.result.settings["prompt"] for done in images))
    for prompt in prompts:
        # Tables of the same widths, so that a prompt has the whole line above its images.
        table = Table(box=None, padding=(0, 1), expand=True, show_header=prompt == prompts[0])
        table.add_column("seed", justify="right", width=6)
        for heading in HEADINGS.values():
            table.add_column(heading, justify="right", width=13)
        table.add_column("the judge read" if job.jury else "", ratio=1)
        table.title, table.title_justify, table.title_style = escape(prompt), "left", "bold"
        for done in images:
            if done.result.settings["prompt"] == prompt:
                cells = [_measure(done.more[name], ranks[done.result.id].get(name, "")) for name in HEADINGS]
                table.add_row(str(done.result.settings["seed"]), *cells, _read(done.opinion))
        console.print(table)
    if any(ranks.values()):
        console.print(
            "[dim]1/… is the most stable of a prompt's seeds: lowest energy and instability, highest alignment[/]",
            soft_wrap=True,
        )
    _close(job, where)


def _close(job: Job, where: str) -> None:
    console, images = out(), job.ordered()
    hidden = (len(images) // (2 if job.paired else 1)) - MOST_ROWS
    if hidden > 0:
        console.print(f"… and {hidden} more rows, in {job.folder.path}/metadata.jsonl", soft_wrap=True)
    if sentence := summary(job):
        console.print(escape(sentence), soft_wrap=True)
    seconds = sum(done.result.seconds for done in images)
    count = f"{len(images)} {'image' if len(images) == 1 else 'images'}"
    cost = f"{count} in {seconds:.1f} s ({seconds / len(images):.2f} s each)"
    console.print(f"{cost}, in {escape(str(job.folder.path))}{escape(where)}", soft_wrap=True)


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


def _measure(value: float, rank: str) -> str:
    number = f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
    if not rank:
        return number
    return f"{number}  [{'bold green' if rank.startswith('1/') else 'dim'}]{rank}[/]"


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
