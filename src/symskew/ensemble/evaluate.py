"""Test what is shipped: `python -m symskew.ensemble.evaluate` prints a table and writes a JSON file.

Without a command it tests a model on its prompts; `judge` and `autoencoder` test those on MNIST's test digits.

Every number of `docs/ensemble.md` comes from here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from symskew.ensemble.data import objects_of
from symskew.ensemble.judge import Judge
from symskew.ensemble.mnist import load_mnist
from symskew.ensemble.prompts import Prompt, make_prompts
from symskew.ensemble.proportion import Proportion
from symskew.ensemble.verdict import FAILURES, Verdict, compare, failure_counts
from symskew.files import write_section

__all__ = ["Summary", "evaluate", "page_lines", "summarise"]


@dataclass(frozen=True)
class Summary:
    """What a group of images got right.

    The failures are counts per kind; `log_likelihood` is the mean over images of the log-probability (nats) of the
    prompt's set.
    """

    all_right: Proportion
    objects_right: Proportion
    failures: dict[str, int]
    log_likelihood: float


def summarise(verdicts: list[Verdict]) -> Summary:
    """The summary of at least one verdict."""
    return Summary(
        Proportion.of(sum(v.all_right for v in verdicts), len(verdicts)),
        Proportion.of(sum(len(v.right) for v in verdicts), sum(len(v.wanted) for v in verdicts)),
        failure_counts(verdicts),
        float(np.mean([v.log_likelihood for v in verdicts])),
    )


def evaluate(
    pipeline: Any,
    prompts: list[Prompt],
    *,
    steps: int,
    guidance: float,
    first_seed: int = 0,
    batch: int = 50,
    judge: Judge | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> tuple[np.ndarray, list[Verdict]]:
    """Generate an image per prompt (the n-th with seed `first_seed` + n) and have each judged; see `iterate_images`.

    Returns:
        The 8-bit images (count, 64, 64, 3) and their verdicts.
    """
    from symskew.ensemble.generate import iterate_images

    judge = judge or Judge.load()
    texts, seeds = [p.text for p in prompts], range(first_seed, first_seed + len(prompts))
    batches = iterate_images(pipeline, texts, seeds, steps=steps, guidance=guidance, batch=batch, arguments=arguments)
    total = -(-len(prompts) // batch)
    images = np.concatenate(list(track(batches, description=f"guidance {guidance:g}", total=total)))
    return images, [compare(r, p.objects) for r, p in zip(judge.read(images), prompts, strict=True)]


app = typer.Typer(add_completion=False)
Mnist = Annotated[Path | None, typer.Option(help="Folder with MNIST's four .gz files.")]


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="A shipped model's name, or a folder.")] = "ensemble-sdxl",
    count: Annotated[int, typer.Option(help="Prompts of pairs seen in training, balanced over 1 to 4 objects.")] = 1000,
    held_out: Annotated[int, typer.Option(help="Further prompts with a held-out pair, over 2 to 4 objects.")] = 300,
    guidance: Annotated[list[float] | None, typer.Option(help="May be repeated; default: the model's own.")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps; default: the model's own.")] = None,
    seed: Annotated[int, typer.Option(help="Of the prompts, and of the first image.")] = 0,
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 50,
    out: Annotated[Path, typer.Option(help="Folder for evaluation.json and contact-sheet.png.")] = Path(
        "ensemble-evaluation"
    ),
    write: Annotated[Path | None, typer.Option(help="A page to write the tables into, between the markers.")] = None,
) -> None:
    """Generate and judge; print a table by number of objects; write evaluation.json and a contact sheet."""
    if context.invoked_subcommand:
        return
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from symskew.ensemble import MODELS, defaults, path
    from symskew.ensemble.contact import contact_sheet

    folder = path(model) if model in MODELS else Path(model)
    own = defaults(folder)
    chosen_steps: int = steps or own["steps"]
    pipeline = DiffusionPipeline.from_pretrained(folder)
    groups = [("seen", make_prompts(count, seed=seed))] if count else []
    if held_out:
        groups.append(("held out", make_prompts(held_out, seed=seed + 1, objects=(2, 3, 4), held_out=True)))
    out.mkdir(parents=True, exist_ok=True)
    report: list[dict[str, Any]] = []
    for scale in guidance or [own["guidance"]]:
        began = time.monotonic()
        table = _table(f"{model} · guidance {scale:g} · {chosen_steps} steps")
        for name, prompts in groups:
            first = seed if name == "seen" else seed + 1_000_000
            images, verdicts = evaluate(
                pipeline, prompts, steps=chosen_steps, guidance=scale, first_seed=first, batch=batch,
                arguments=own.get("arguments"),
            )  # fmt: skip
            if name == "seen":
                contact_sheet(images, prompts, verdicts).save(out / "contact-sheet.png")
            for number in [None, *sorted({len(p.objects) for p in prompts})]:
                chosen = [v for v in verdicts if number in (None, len(v.wanted))]
                summary = summarise(chosen)
                report.append(
                    {"pairs": name, "objects": number, "guidance": scale, "steps": chosen_steps, **asdict(summary)}
                )
                table.add_row(name, str(number or "all"), str(len(chosen)), str(summary.all_right),
                              str(summary.objects_right), f"{summary.log_likelihood:.2f}",
                              *(str(n) for n in summary.failures.values()))  # fmt: skip
            table.add_section()
        Console(width=200).print(table)
        Console().print(f"{time.monotonic() - began:.0f} s")
    (out / "evaluation.json").write_text(json.dumps({"model": model, "seed": seed, "results": report}, indent=1) + "\n")
    if write and len(guidance or ()) > 1:  # a choice of guidance has a section of its own
        write_section(write, f"{folder.name}-guidance", page_lines([row for row in report if row["objects"] is None]))
    elif write:
        write_section(write, folder.name, page_lines(report))


@app.command(name="judge")
def judge_command(mnist: Mnist = None, count: Annotated[int, typer.Option(help="Images.")] = 4000) -> None:
    """Test the shipped judge on clean images of MNIST's test digits."""
    from symskew.ensemble.train.judge import judge_accuracy

    rates = judge_accuracy(Judge.load(), load_mnist("test", mnist), count=count)
    for name, rate in rates.items():
        Console().print(f"{name}: {rate}", soft_wrap=True)


@app.command()
def autoencoder(
    mnist: Mnist = None,
    model: Annotated[str, typer.Option(help="A shipped model's name, or a folder.")] = "ensemble-sdxl",
    count: Annotated[int, typer.Option(help="Images.")] = 1000,
) -> None:
    """Mean absolute error (on the scale −1 to 1) of a model's autoencoder, and what the judge reads after it."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from symskew.ensemble import MODELS, path
    from symskew.ensemble.data import make_scenes
    from symskew.ensemble.train.judge import round_trip

    scenes = make_scenes(count, load_mnist("test", mnist), seed=6, held_out=None)
    folder = path(model) if model in MODELS else Path(model)
    decoded = round_trip(AutoencoderKL.from_pretrained(folder / "vae"), scenes.images)
    error = np.abs(decoded.astype(float) - scenes.images).mean() / 127.5
    verdicts = [compare(r, objects_of(row)) for r, row in zip(Judge.load().read(decoded), scenes.labels, strict=True)]
    read = Proportion.of(sum(v.all_right for v in verdicts), count)
    Console().print(f"mean absolute error {error:.4f}; all right after a round trip {read} of {count}", soft_wrap=True)


def page_lines(report: list[dict[str, Any]]) -> list[str]:
    """What an evaluation found, as two tables in Markdown: what is right, and the shares of the kinds of failure."""
    kinds = list(FAILURES)
    right = ["| pairs | objects | guidance | images | entirely right (95%) | objects right (95%) |", "|---" * 6 + "|"]
    wrong = [f"| pairs | objects | guidance | {' | '.join(kinds)} | failures in all |", "|---" * (len(kinds) + 4) + "|"]
    for row in report:
        images, objects = Proportion(**row["all_right"]), Proportion(**row["objects_right"])
        start = f"| {row['pairs']} | {row['objects'] or 'all'} | {row['guidance']:g} |"
        right.append(f"{start} {images.trials} | {images} | {objects} |")
        counts = [row["failures"][kind] for kind in kinds]
        shares = " | ".join(f"{count / max(1, sum(counts)):.0%}" for count in counts)
        wrong.append(f"{start} {shares} | {sum(counts)} |")
    return [*right, "", "Shares of all failures in the row, of which an image may have several:", "", *wrong]


def _table(title: str) -> Table:
    table = Table(
        "pairs", "objects", "images", "all right (95%)", "objects right (95%)", "log-lik.", *FAILURES, title=title
    )
    for column in table.columns[2:]:
        column.justify = "right"
    return table


if __name__ == "__main__":
    app()
