"""`symskew metrics`: what images can be judged by, with which weights; and whether these say here what they should."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from symskew.cli import options
from symskew.cli.say import BAD_INPUT, FAILED, err, fail, out, refusing

if TYPE_CHECKING:
    from symskew.metrics import Site
    from symskew.metrics.verification import Record

app = typer.Typer(
    name="metrics",
    help="What images are judged by: a list, with weights, sizes and licences.",
    invoke_without_command=True,
    rich_markup_mode="markdown",
)

VERIFY_EXAMPLES = """
Examples:

`symskew metrics verify` (all whose weights are here)

`symskew metrics verify hps clip-l --record scores.json`, then elsewhere `symskew metrics verify --against scores.json`

`symskew metrics verify imagereward --images ImageReward/assets/images` (a clone of github.com/THUDM/ImageReward)
"""

REFERENCE_EXAMPLES = """
Examples:

`symskew metrics reference val2014 --features dinov2-l --limit 10000 --out coco-dinov2.safetensors`

`symskew study reference runs/mine coco-dinov2.safetensors` then makes it what the sets of a study are compared with
"""

Weights = Annotated[
    list[str] | None,
    typer.Option("--weights", metavar="NAME=PLACE", help="A file, a folder or a hub id; may be given again."),
]


@app.callback()
def metrics(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print every metric as JSON.")] = False,
) -> None:
    """List all metrics, and the published weights that they need, with sizes, licences, and whether they are here."""
    if context.invoked_subcommand is not None:
        if as_json:
            fail(f"--json lists metrics; it is nothing to {context.invoked_subcommand}", BAD_INPUT)
        return
    rows, sources = _rows(_site(None, "cpu"))
    if as_json:
        sys.stdout.write(json.dumps({"metrics": rows, "weights": sources}, indent=1) + "\n")
        return
    table = Table("metric", "what it is; ↑: more is better", "of", "weights", box=SIMPLE, padding=0)
    table.columns[0].no_wrap = True
    for row in rows:
        if row["dtype"] == "fp16":
            continue
        title = f"{row['title']} {'↑' if row['higher_is_better'] else '↓'}"
        table.add_row(row["short"] or row["metric"], title, row["kind"], " + ".join(row["needs"]) or "-")
    console = out()
    console.print(table)
    table = Table("weights", "size", "here", "licence, and where they are published", box=SIMPLE, padding=(0, 1))
    for name, row in sources.items():
        table.add_row(name, _size(row["bytes"]), "yes" if row["here"] else "no", f"{row['licence']}\n{row['page']}")
    table.columns[-1].overflow = "fold"
    console.print(table)
    console.print(
        "In half precision: clip-l/fp16 and so on, which are other metrics. symskew metrics verify says how to get the "
        "weights that are not here.",
        soft_wrap=True,
    )


@app.command(epilog=VERIFY_EXAMPLES)
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="METRIC", help="Of single images.")] = None,
    weights: Weights = None,
    record: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the scores down.")] = None,
    against: Annotated[Path | None, typer.Option(metavar="FILE", help="Compare with scores written down.")] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The authors' own images, for scores that they published.")
    ] = None,
    device: options.Device = "cpu",
) -> None:
    """Score six pictures that come with symskew, and compare with recorded scores, or with published ones."""
    from symskew.metrics import verification
    from symskew.models import find_device

    fine = True
    with refusing():
        site = _site(weights, find_device() if device == "auto" else device)
        chosen = names or _here(site)
        reference = verification.Record.read(against) if against else None
        found = verification.record(chosen, site)
        _print_scores(found)
        if record:
            found.save(record)
            out().print(f"recorded: {record}", soft_wrap=True, markup=False)
        if reference:
            fine &= _print_differences(verification.compare(found, reference))
        if images:
            fine &= _print_published(images, site, found)
    if not (reference or images):
        out().print(
            "Nothing to compare with was given. No record comes with symskew: nobody has made one with the published "
            "weights yet. Published scores are known of ImageReward alone (--images).",
            soft_wrap=True,
        )
    if not fine:
        raise typer.Exit(FAILED)


@app.command(epilog=REFERENCE_EXAMPLES)
def reference(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="With real images: PNG, JPEG or WebP.")],
    features: Annotated[str, typer.Option(metavar="NAME", help="dinov2-l, inception-tf1 or inception-clean.")],
    file: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the features go (safetensors).")],
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Only N images, drawn by their names.  [default: all]")
    ] = None,
    weights: Weights = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Look at real images once; sets of generated ones are then compared with what was found."""
    from symskew.cli.progress import Progress
    from symskew.metrics import real
    from symskew.metrics.spaces import networks
    from symskew.models import find_device

    with refusing():
        known = {eye.name: eye for eye in networks(_site(weights, find_device() if device == "auto" else device))}
        if features not in known:
            raise ValueError(f"--features: there is no {features!r}; there are {', '.join(known)}")
        if not file.absolute().parent.is_dir():
            raise FileNotFoundError(f"--out: there is no folder {file.absolute().parent}")
        with Progress(len(real.pictures_in(folder, limit)), quiet=quiet, doing="looking") as bar:
            found = real.look(folder, known[features], limit=limit, tell=bar.advance)
        real.save(found, file)
    if not quiet:
        out().print(f"{file}: {found.told}", soft_wrap=True, markup=False)


def _site(weights: list[str] | None, device: str) -> Site:
    from symskew.metrics import Site, every_source

    places = {}
    for each in weights or []:
        name, sign, place = each.partition("=")
        if not sign:
            raise ValueError(f"--weights takes NAME=PLACE, got {each!r}")
        if name not in every_source():
            raise ValueError(f"--weights: there is no {name!r}; there are {', '.join(every_source())}")
        places[name] = place
    return Site.of(places, device=device)


def _rows(site: Site) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    from symskew.metrics import describe, every_source, find, sources
    from symskew.metrics.weights import is_there

    rows = describe()
    for row in rows:
        [metric] = find([row["metric"]])
        row["short"] = next(each.short for each in metric.quantities if each.id == row["metric"])
        row["needs"] = [source.name for source in sources(metric)]
    known = {
        source.name: {
            "bytes": source.size,
            "licence": source.licence,
            "here": is_there(source, site),
            "page": source.page,
            "remedy": source.remedy,
        }
        for source in every_source().values()
    }
    return rows, known


def _here(site: Site) -> list[str]:
    """The metrics of single images whose published weights are all here; says how to get all that are not."""
    rows, known = _rows(site)
    wanted = [row for row in rows if row["kind"] == "sample" and row["needs"] and row["dtype"] == "fp32"]
    there = [row["metric"] for row in wanted if all(known[name]["here"] for name in row["needs"])]
    for name, source in known.items():
        if not source["here"]:
            err().print(f"not here: {name}: {source['remedy']}", soft_wrap=True, markup=False)
    if not there:
        raise FileNotFoundError("verify: of no metric of single images are all published weights on this machine")
    return there


def _print_scores(found: Record) -> None:
    from symskew.metrics.verification import own_captions, pictures

    captions = [each.caption for each in pictures()]
    console, best = out(), own_captions(found)
    for name, values in found.scores.items():
        own = [values[place][place] for place in range(len(captions))]
        console.print(f"[bold]{escape(name)}[/]  " + "  ".join(f"{value:.4f}" for value in own), soft_wrap=True)
        if name in best:
            console.print(f"  own caption best: {best[name]} of {len(captions)} pictures (by chance 1)", soft_wrap=True)
    for name, digest in found.weights.items():
        console.print(f"weights {name}: SHA-256 {digest}", soft_wrap=True, markup=False)


def _print_differences(rows: list[Any]) -> bool:
    for row in rows:
        verdict = "agrees" if row.agrees else f"[red]differs[/] {escape(row.why)}"
        text = f"{escape(row.metric)}: {verdict}, by at most {row.largest:.2g} ({row.spreads:.1%} of the spread)"
        out().print(text, soft_wrap=True)
    return all(row.agrees for row in rows)


def _print_published(folder: Path, site: Site, found: Record) -> bool:
    from symskew.metrics.verification import PUBLISHED, published

    cases = [case for case in PUBLISHED if case.metric in found.scores]
    if not cases:
        raise ValueError(
            f"--images: published scores are known of {', '.join(case.metric for case in PUBLISHED)} alone"
        )
    fine = True
    for case in cases:
        for name, score, known in published(case, folder, site):
            agrees = abs(score - known) <= case.tolerance
            verdict = "agrees" if agrees else "[red]differs[/]"
            out().print(f"{escape(case.metric)} {name}: {score:.4f}, published {known:.4f}: {verdict}", soft_wrap=True)
            fine &= agrees
    return fine


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count > 1e8 else f"{count / 1e6:.1f} MB"
