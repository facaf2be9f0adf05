"""`symskew generate`: prompts in, images out, with the settings that made them inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from symskew.cli import options
from symskew.cli.say import fail, refusing

EXAMPLES = """
Examples:

`symskew generate 'a red three' --seeds 0-7`

`symskew generate 'a red three and a blue seven' --alpha 2 --compare`

`symskew generate 'a red three' --alpha 3..1:cosine --beta down=1,mid=3,up=5 --branch conditional`

`symskew generate --prompts prompts.txt --alpha 1.2 --layers up --stop 0.5 --out up`

`symskew generate --from symskew-out/a-red-three-s0-1a2b3c4d.png --out again`
"""


def generate(
    context: typer.Context,
    prompts: options.Prompts = None,
    prompts_file: options.PromptsFile = None,
    model: options.Model = "ensemble-sdxl",
    source: Annotated[
        Path | None, typer.Option("--from", metavar="IMAGE", help="Make this image of symskew's again, exactly.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Vanilla beside controlled, same seeds, in one picture: compare.png.")
    ] = False,
    alpha: options.Alpha = None,
    beta: options.Beta = None,
    sym: options.Sym = None,
    adaptive: options.Adaptive = None,
    norm: options.Norm = None,
    space: options.Space = None,
    branch: options.Branch = None,
    tokens: options.Tokens = None,
    layers: options.Layers = None,
    start: options.Start = None,
    stop: options.Stop = None,
    seeds: options.Seeds = "0",
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    negative: options.Negative = None,
    size: options.Size = None,
    arguments: options.Arguments = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
    folder: options.Out = Path("symskew-out"),
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Generate images, vanilla or controlled, or both side by side."""
    from symskew.cli.again import make_again
    from symskew.cli.inputs import (
        choose_control,
        gather_prompts,
        parse_arguments,
        parse_control,
        parse_layers,
        parse_seeds,
        parse_size,
    )
    from symskew.cli.job import Job, carry_out

    if source is not None:
        allowed = {"source", "folder", "device", "as_json", "quiet", "model"}
        given = [p for p in context.params if p not in allowed and _typed(context, p)]
        if given:
            fail(f"--from makes an image again as it was: leave out {', '.join(map(_flag, given))}", 2)
        job = make_again(source, model if _typed(context, "model") else None, folder, device)
    else:
        with refusing():
            settings = parse_control(alpha, beta, sym=sym, adaptive=adaptive, norm=norm, space=space, branch=branch,
                                     tokens=tokens, layers=parse_layers(layers), start=start, stop=stop)  # fmt: skip
            wanted, numbers = gather_prompts(prompts or [], prompts_file, "--from IMAGE.png"), parse_seeds(seeds)
            job = Job.prepare(
                model, wanted, numbers, lambda fallback: choose_control(settings, fallback, compare=compare),
                compare=compare, folder=folder, dtype=dtype, device=device, batch=batch_size,
                steps=steps, guidance=guidance, negative=negative, size=parse_size(size),
                arguments=parse_arguments(arguments),
            )  # fmt: skip
    carry_out(job, as_json=as_json, quiet=quiet)


def _typed(context: typer.Context, name: str) -> bool:
    return getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"


def _flag(name: str) -> str:
    special = {"prompts": "PROMPT", "prompts_file": "--prompts", "seeds": "--seeds", "arguments": "--argument"}
    return special.get(name, f"--{name.replace('_', '-')}")
