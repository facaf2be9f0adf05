"""`symskew generate`: prompts in, images out, with the settings that made them inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from symskew.cli.say import FAILED, INTERRUPTED, err, fail, refusing, warn

EXAMPLES = """
Examples:

`symskew generate 'a red three' --seeds 0-7`

`symskew generate 'a red three and a blue seven' --alpha 2 --compare`

`symskew generate --prompts prompts.txt --alpha 1.2 --layers up --stop 0.5 --out up`

`symskew generate --from symskew-out/a-red-three-s0-1a2b3c4d.png --out again`
"""

CONTROL, WHERE = "Control", "Where and when to control"


def generate(
    context: typer.Context,
    prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="What to show.")] = None,
    prompts_file: Annotated[
        Path | None, typer.Option("--prompts", metavar="FILE", help="More prompts, one a line; # begins a comment.")
    ] = None,
    model: Annotated[str, typer.Option(help="A shipped model's name, a hub id, or a folder.")] = "ensemble-sdxl",
    source: Annotated[
        Path | None, typer.Option("--from", metavar="IMAGE", help="Make this image of symskew's again, exactly.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Vanilla beside controlled, same seeds, in one picture: compare.png.")
    ] = False,
    alpha: Annotated[
        float | None, typer.Option(help="Scale of the skew part; 1 is vanilla.", rich_help_panel=CONTROL)
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Step towards the circulated retrieval.  [default: 1]", rich_help_panel=CONTROL)
    ] = None,
    sym: Annotated[
        float | None, typer.Option(help="Scale of the symmetric part.  [default: 1]", rich_help_panel=CONTROL)
    ] = None,
    adaptive: Annotated[
        str | None,
        typer.Option(
            metavar="call|sample|head", help="Adapt α and β to the measured symmetry.", rich_help_panel=CONTROL
        ),
    ] = None,
    norm: Annotated[
        str | None,
        typer.Option(
            metavar="perturbed|baseline|none", help="Whose norm to keep.  [default: perturbed]", rich_help_panel=CONTROL
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="value|input|sketch", help="Where the norm is taken.  [default: value]", rich_help_panel=CONTROL
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="down, mid, up, a glob, re:…, or a range of depth as 0.2-0.6.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    start: Annotated[
        float | None, typer.Option(help="From this fraction of the steps on.  [default: 0]", rich_help_panel=WHERE)
    ] = None,
    stop: Annotated[
        float | None, typer.Option(help="Up to this fraction.  [default: 1]", rich_help_panel=WHERE)
    ] = None,
    seeds: Annotated[str, typer.Option("--seed", "--seeds", metavar="0-7|1,5,9", help="One or several seeds.")] = "0",
    steps: Annotated[int | None, typer.Option(help="Of the sampler.  [default: the model's]")] = None,
    guidance: Annotated[float | None, typer.Option(help="Scale of guidance.  [default: the model's]")] = None,
    negative: Annotated[str | None, typer.Option(metavar="TEXT", help="What not to show.")] = None,
    size: Annotated[str | None, typer.Option(metavar="N|WxH", help="In pixels.  [default: the model's]")] = None,
    dtype: Annotated[str, typer.Option(metavar="auto|float32|float16|bfloat16", help="Number format.")] = "auto",
    device: Annotated[str, typer.Option(help="As torch names it.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Images at a time.  [default: 8 for shipped models, else 1]")
    ] = None,
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the images go.")] = Path("symskew-out"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Generate images, vanilla or controlled, or both side by side."""
    from symskew.cli.again import make_again
    from symskew.cli.inputs import choose_control, gather_prompts, parse_layers, parse_seeds, parse_size
    from symskew.cli.job import Job

    settings = {"alpha": alpha, "beta": beta, "sym": sym, "adaptive": adaptive, "norm": norm, "space": space}
    settings |= {"layers": parse_layers(layers), "start": start, "stop": stop}
    if source is not None:
        allowed = {"source", "folder", "device", "as_json", "quiet", "model"}
        given = [p for p in context.params if p not in allowed and _typed(context, p)]
        if given:
            fail(f"--from makes an image again as it was: leave out {', '.join(map(_flag, given))}", 2)
        job = make_again(source, model if _typed(context, "model") else None, folder, device)
    else:
        with refusing():
            wanted, numbers = gather_prompts(prompts or [], prompts_file), parse_seeds(seeds)
            job = Job.prepare(
                model, wanted, numbers, lambda fallback: choose_control(settings, fallback, compare=compare),
                compare=compare, folder=folder, dtype=dtype, device=device, batch=batch_size,
                steps=steps, guidance=guidance, negative=negative, size=parse_size(size),
            )  # fmt: skip
    for warning in job.warnings:
        warn(warning)
    try:
        with refusing(FAILED):
            job.run(quiet=quiet)
    except KeyboardInterrupt:
        kept = f"{len(job.done)} of {len(job.requests)} images were finished and kept in {folder}"
        err().print(f"stopped: {kept}", soft_wrap=True, markup=False)
        raise typer.Exit(INTERRUPTED) from None
    with refusing(FAILED):
        job.report(as_json=as_json, quiet=quiet)


def _typed(context: typer.Context, name: str) -> bool:
    return getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"


def _flag(name: str) -> str:
    special = {"prompts": "PROMPT", "prompts_file": "--prompts", "seeds": "--seeds"}
    return special.get(name, f"--{name.replace('_', '-')}")
