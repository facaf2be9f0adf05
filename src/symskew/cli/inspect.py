"""`symskew inspect`: how symmetric and how directional the attention weights of a checkpoint are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from symskew.cli.say import BAD_INPUT, fail, out, refusing

EXAMPLES = "Examples: symskew inspect ensemble-sdxl --part unet; symskew inspect ./bert --plot bert.png"


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A shipped model's name, a folder, a .safetensors file, or a hub id on this disk."
        ),
    ],
    part: Annotated[str | None, typer.Option(metavar="NAME", help="Of a pipeline: unet, text_encoder, …")] = None,
    heads: Annotated[int | None, typer.Option(metavar="N", help="Heads of every layer, where no config says.")] = None,
    head_dim: Annotated[int | None, typer.Option(metavar="N", help="Or how wide they are.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the scores by depth.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every layer and head as JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every layer and head as CSV.")] = False,
) -> None:
    """Say how symmetric the learned W = W_Q W_Kᵀ of every self-attention layer and head is; loads no model."""
    from symskew.ensemble import MODELS, path
    from symskew.inspection import inspect_weights

    if as_json and as_csv:
        fail("give --json or --csv, not both", BAD_INPUT)
    with refusing():
        source = path(model) if model in MODELS else model
        found = inspect_weights(source, part=part, heads=heads, head_dim=head_dim)
        if plot is not None:
            found.plot(plot)
    if as_json or as_csv:
        sys.stdout.write(found.to_json() if as_json else found.to_csv())
        return
    console = out()
    console.print(str(found), soft_wrap=True, markup=False)
    if plot is not None:
        console.print(f"drawn: {plot}", soft_wrap=True, markup=False)
