"""The options that several commands have, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CONTROL, WHERE = "Control", "Where and when to control"

Prompts = Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="What to show.")]
PromptsFile = Annotated[
    Path | None, typer.Option("--prompts", metavar="FILE", help="More prompts, one a line; # begins a comment.")
]
Model = Annotated[str, typer.Option(help="A shipped model's name, a hub id, or a folder.")]
Seeds = Annotated[str, typer.Option("--seed", "--seeds", metavar="0-7|1,5,9", help="One or several seeds.")]
Steps = Annotated[int | None, typer.Option(help="Of the sampler.  [default: the model's]")]
Guidance = Annotated[float | None, typer.Option(help="Scale of guidance.  [default: the model's]")]
Negative = Annotated[str | None, typer.Option(metavar="TEXT", help="What not to show.")]
Size = Annotated[str | None, typer.Option(metavar="N|WxH", help="In pixels.  [default: the model's]")]

Alpha = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER|A..B|down=…,mid=…,up=…",
        help="Scale of the skew part; 1 is vanilla. 2..1 goes from 2 at the first step to 1 at the last, 2..1:cosine "
        "gently, 2..1:depth from the first layer to the last; down=1,mid=3,up=5..1 has its own for each stage.",
        rich_help_panel=CONTROL,
    ),
]
Beta = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER|A..B|down=…,mid=…,up=…",
        help="Step towards the circulated retrieval, given as α is.  [default: 1]",
        rich_help_panel=CONTROL,
    ),
]
Branch = Annotated[
    str | None,
    typer.Option(
        metavar="conditional|unconditional",
        help="Control this branch of guidance alone.  [default: both]",
        rich_help_panel=CONTROL,
    ),
]
Tokens = Annotated[
    str | None,
    typer.Option(
        metavar="all|image",
        help="Which logits of joint attention to change, all or those between image tokens.  [default: all]",
        rich_help_panel=CONTROL,
    ),
]
Sym = Annotated[float | None, typer.Option(help="Scale of the symmetric part.  [default: 1]", rich_help_panel=CONTROL)]
Adaptive = Annotated[
    str | None,
    typer.Option(metavar="call|sample|head", help="Adapt α and β to the measured symmetry.", rich_help_panel=CONTROL),
]
Norm = Annotated[
    str | None,
    typer.Option(
        metavar="perturbed|baseline|none", help="Whose norm to keep.  [default: perturbed]", rich_help_panel=CONTROL
    ),
]
Space = Annotated[
    str | None,
    typer.Option(
        metavar="value|input|sketch", help="Where the norm is taken.  [default: value]", rich_help_panel=CONTROL
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN", help="down, mid, up, a glob, re:…, or a range of depth as 0.2-0.6.", rich_help_panel=WHERE
    ),
]
Start = Annotated[
    float | None, typer.Option(help="From this fraction of the steps on.  [default: 0]", rich_help_panel=WHERE)
]
Stop = Annotated[float | None, typer.Option(help="Up to this fraction.  [default: 1]", rich_help_panel=WHERE)]

Arguments = Annotated[
    list[str] | None,
    typer.Option("--argument", metavar="NAME=VALUE", help="One more of the pipeline's, such as max_sequence_length."),
]

Dtype = Annotated[str, typer.Option(metavar="auto|float32|float16|bfloat16", help="Number format.")]
Device = Annotated[str, typer.Option(help="As torch names it.")]
BatchSize = Annotated[
    int | None, typer.Option(metavar="N", help="Images at a time.  [default: 8 for shipped models, else 1]")
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the images go.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")]
