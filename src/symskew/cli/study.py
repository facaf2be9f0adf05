"""`symskew study …`: run a study, see how it stands, check its folder, make its tables and its report."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from symskew.cli import options
from symskew.cli.say import FAILED, INTERRUPTED, err, fail, out, refusing

app = typer.Typer(
    name="study",
    help="Studies: prompts × seeds × settings, resumable, with every table of the paper.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="What to do.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a study.")]

RUN_EXAMPLES = """
Examples:

`symskew study run studies/quick.yaml`

`symskew study run studies/sdxl-coco.yaml --captions captions_val2014.json --dry-run`

`symskew study run study.yaml --out /data/study --shard 3/16` (one of sixteen jobs, started by any launcher)

`symskew study run study.yaml --out /data/study --ray` (on the Ray cluster that this machine belongs to)
"""


class RunCommand(TyperCommand):
    """A command with `--ray [ADDRESS]`: typer has no options whose value may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the address that is meant in its place."""
        if "--ray" in args and (args[args.index("--ray") + 1 :] or ["-"])[0].startswith("-"):
            args.insert(args.index("--ray") + 1, "auto")
        return super().parse_args(ctx, args)


@app.command(cls=RunCommand, epilog=RUN_EXAMPLES)
def run(
    file: StudyFile,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="Where it goes.  [default: runs/NAME]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes.  [default: one a core, or one for an accelerator]")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch-size", metavar="N", help="Images at a time.  [default: 16 if shipped, else 1]"),
    ] = None,
    threads: Annotated[int, typer.Option(help="Of each worker on a CPU.")] = 1,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Only every N-th unit, beginning at 0.")] = "0/1",
    retry: Annotated[bool, typer.Option("--retry", help="Also what was given up earlier.")] = False,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="[ADDRESS]", help="On a Ray cluster: of RAY_ADDRESS, or of this machine."),
    ] = None,
    scorer_gpus: Annotated[
        float, typer.Option(metavar="SHARE", help="Of a GPU, for a scorer on a cluster; the largest take 5 GB.")
    ] = 0.25,
    report_to: Annotated[
        list[str] | None,
        typer.Option("--report-to", metavar="NAME", help="tensorboard, wandb, trackio or mlflow; may be given again."),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", envvar="SYMSKEW_CAPTIONS", help="COCO's captions, for prompts that are chosen of them."
        ),
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what it costs, which tables it allows and what is missing; no more.")
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds-per-image", metavar="S", help="Of a vanilla image, for --dry-run.  [default: a guess]"),
    ] = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Run a study, or go on with it: what is there is not made again."""
    if dry:
        from symskew.cli.dry_run import dry_run

        with refusing():
            able = dry_run(file, captions, folder, seconds)
        raise typer.Exit(0 if able else FAILED)
    from symskew.cli.studying import Watch, summary
    from symskew.models import quiet_bars
    from symskew.study import Ledger, Options, Study, run_study
    from symskew.study.trackers import Reports, open_tracker

    with refusing():
        index, slash, count = shard.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise ValueError(f"--shard takes I/N such as 0/4, got {shard!r}")
        if seconds is not None:
            raise ValueError("--seconds-per-image is for --dry-run, and changes nothing of a run")
        study = Study.read(file, captions)
        chosen = Options("auto" if ray else device, workers, batch, threads, (int(index), int(count)), retry)
        quiet_bars()
        executor = None
        if ray:
            from symskew.study.cluster import Cluster, connect

            connect(ray)
            executor = partial(Cluster, workers=workers, device=device, scorer_gpus=scorer_gpus)
        where = folder or Path("runs") / study.name
        reports = Reports([open_tracker(name, study, where) for name in report_to or []], where)
    with Watch(quiet=quiet) as watch, closing(reports):

        def tell(ledger: Ledger) -> None:
            watch.tell(ledger)
            reports.tell(ledger)

        try:
            with refusing(FAILED):
                ledger = run_study(study, where, chosen, on_progress=tell, executor=executor)
        except KeyboardInterrupt:
            err().print(f"stopped; what is finished is in {where}, run again to go on", soft_wrap=True, markup=False)
            raise typer.Exit(INTERRUPTED) from None
    if not quiet:
        out().print(summary(ledger, where), soft_wrap=True, markup=False)
    for failure in ledger.failures[:10]:
        err().print(f"given up: {failure}", soft_wrap=True, markup=False)
    if ledger.failures:
        raise typer.Exit(FAILED)


@app.command()
def status(folder: RunFolder, as_json: options.AsJson = False) -> None:
    """How far a study is, setting by setting."""
    from symskew.cli.studying import print_status

    with refusing():
        print_status(folder, as_json=as_json)


@app.command()
def verify(
    folder: RunFolder,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put damaged files aside, so that running the study makes them anew.")
    ] = False,
) -> None:
    """Read every file back and check it: checksums, hashes, ids, nothing twice, nothing without an owner."""
    from symskew.study.verify import ASIDE
    from symskew.study.verify import verify as check

    with refusing():
        found = check(folder, repair=repair)
    say = out()
    for path, reason in found.damaged.items():
        say.print(f"damaged: {path.relative_to(folder)}: {reason}", soft_wrap=True, markup=False)
    for key in found.twice:
        say.print(f"twice: {key}", soft_wrap=True, markup=False)
    for path, reason in found.strays.items():
        say.print(f"without an owner: {path.relative_to(folder)}: {reason}", soft_wrap=True, markup=False)
    if found.leftovers:
        done = "deleted" if repair else "harmless"
        say.print(f"{len(found.leftovers)} leftovers of interrupted runs, {done}", soft_wrap=True, markup=False)
    say.print(f"{found.files} files, {found.samples} samples, digest {found.digest[:16]}", soft_wrap=True, markup=False)
    if not found.sound:
        remedy = f"moved to {folder / ASIDE}; run the study again" if repair else "verify --repair puts them aside"
        fail(
            f"{len(found.damaged) + len(found.strays)} files and {len(found.twice)} samples are not sound: {remedy}",
            FAILED,
        )


@app.command()
def reference(
    folder: RunFolder,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Made by symskew metrics reference.")],
) -> None:
    """Say which real images the sets of a study are compared with; a file for each network is copied to the study."""
    from symskew.study.frames import Results
    from symskew.study.references import keep_reference

    with refusing():
        results = Results.of(folder)
        for file in files:
            out().print(f"{folder}: compared with {keep_reference(results, file).told}", soft_wrap=True, markup=False)


TABLE_EXAMPLES = """
Examples:

`symskew study table runs/ensemble` (which there are)

`symskew study table runs/ensemble table-3b --prompts heldout --format tex`

`symskew study table runs/ensemble table-1 --set within=true`
"""


@app.command(epilog=TABLE_EXAMPLES)
def table(
    folder: RunFolder,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Of the table; without one, a list.")] = None,
    prompts: Annotated[str | None, typer.Option(metavar="SET", help="Only these prompts.")] = None,
    form: Annotated[str, typer.Option("--format", metavar="md|tex|csv|json", help="How it is written.")] = "md",
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the table.")
    ] = None,
) -> None:
    """One table of the paper, or of the comparison with other methods, from a study's results."""
    from symskew.cli.studying import list_tables, make_tables

    with refusing():
        if name is None:
            list_tables()
            return
        for text in make_tables(folder, name, prompts, form, given or []):
            typer.echo(text)


@app.command()
def results(
    folder: RunFolder,
    page: Annotated[Path, typer.Option("--write", metavar="PAGE.md", help="With a pair of markers for each table.")],
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="For the small tables that the page is made from.")
    ] = None,
) -> None:
    """Write every table into its place in a page; RUN may also be a folder that `--keep` wrote."""
    from symskew.cli.studying import write_page

    with refusing():
        write_page(folder, page, keep)


@app.command()
def report(
    folder: RunFolder,
    where: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="[default: RUN-report]")] = None,
) -> None:
    """A folder with a page that opens from disk, offline: tables, plots, and a gallery of all samples."""
    from symskew.cli.reporting import make_report

    with refusing():
        page = make_report(folder, where or folder.with_name(f"{folder.resolve().name}-report"))
    out().print(f"the report is {page}", soft_wrap=True, markup=False)


@app.command()
def export(
    folder: RunFolder,
    where: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="[default: RUN-dataset]")] = None,
) -> None:
    """A dataset folder, images and scores, that `datasets.load_dataset` opens and that can be put on a hub."""
    from symskew.study.export import export_dataset
    from symskew.study.frames import Results

    with refusing():
        made = export_dataset(Results.of(folder), where or folder.with_name(f"{folder.resolve().name}-dataset"))
    out().print(f"the dataset is {made}; open it with datasets.load_dataset", soft_wrap=True, markup=False)


@app.command()
def gate(
    folder: RunFolder,
    prompts: Annotated[str, typer.Option(metavar="SET", help="Whose vanilla samples.")] = "tuning",
    measure: Annotated[
        str, typer.Option(metavar="alignment|instability|energy", help="What the gate asks.")
    ] = "alignment",
    quantile: Annotated[float, typer.Option(help="The part of all retrievals that falls short of it.")] = 0.3,
) -> None:
    """Thresholds of a gate, layer by layer, from vanilla samples: lines for a study's file."""
    from symskew.cli.studying import write_thresholds

    with refusing():
        write_thresholds(folder, prompts, measure, quantile)
