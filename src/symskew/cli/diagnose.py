"""`symskew diagnose`: prompts in, images out, with pictures and numbers of where the model was in conflict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from symskew.cli import options
from symskew.cli.say import refusing

EXAMPLES = """
Examples:

`symskew diagnose 'a red three and a blue seven' --seeds 0-7`

`symskew diagnose 'a red three and a blue seven' --alpha 2 --layers up --animate --out controlled`

`symskew diagnose 'a photo of a cat' --model stabilityai/stable-diffusion-xl-base-1.0 --features all`
"""

MEASURING = "What to measure"


def diagnose(
    prompts: options.Prompts = None,
    prompts_file: options.PromptsFile = None,
    model: options.Model = "ensemble-sdxl",
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Which layers, also of a control: down, mid, up, a glob, re:…, or a range of depth as 0.2-0.6.",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    features: Annotated[
        str, typer.Option(metavar="N|all", help="How many of the retrieved features.", rich_help_panel=MEASURING)
    ] = "64",
    states: Annotated[
        str | None,
        typer.Option(
            metavar="input|value",
            help="Retrieved input features (the paper's) or values.  [default: input where known]",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    animate: Annotated[
        bool, typer.Option("--animate", help="Also a GIF of the maps over the steps.", rich_help_panel=MEASURING)
    ] = False,
    alpha: options.Alpha = None,
    beta: options.Beta = None,
    sym: options.Sym = None,
    adaptive: options.Adaptive = None,
    norm: options.Norm = None,
    space: options.Space = None,
    branch: options.Branch = None,
    tokens: options.Tokens = None,
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
    """Generate images and see how stable they were: maps of conflict, measures over the steps, ranks among seeds."""
    from symskew.cli.inputs import (
        choose_control,
        gather_prompts,
        parse_arguments,
        parse_control,
        parse_features,
        parse_layers,
        parse_seeds,
        parse_size,
    )
    from symskew.cli.job import carry_out
    from symskew.table import need

    with refusing():
        need("matplotlib.figure", "plots")
        from symskew.cli.diagnosis import Diagnosis, Records

        where = parse_layers(layers)
        control = parse_control(alpha, beta, sym=sym, adaptive=adaptive, norm=norm, space=space, branch=branch,
                                tokens=tokens, start=start, stop=stop)  # fmt: skip
        control = choose_control(control, None, compare=False)
        lens = {"layers": where, "features": parse_features(features), "states": states, "maps": True}
        wanted, numbers = gather_prompts(prompts or [], prompts_file), parse_seeds(seeds)
        records = Records(folder, lens["features"])
        job = Diagnosis.prepare(
            model, wanted, numbers, lambda _: control | ({"layers": where} if control else {}),
            compare=False, folder=folder, dtype=dtype, device=device, batch=batch_size, diagnosis=lens,
            steps=steps, guidance=guidance, negative=negative, size=parse_size(size),
            arguments=parse_arguments(arguments),
        )  # fmt: skip
        job.records, job.animated = records, animate
    carry_out(job, as_json=as_json, quiet=quiet)
