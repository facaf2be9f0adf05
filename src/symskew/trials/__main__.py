"""`python -m symskew.trials`: measure, then test screening and gating, and print what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from symskew.ensemble import MODELS, defaults, path
from symskew.ensemble.prompts import make_prompts
from symskew.files import write_section
from symskew.layers import find_layers
from symskew.models import hash_folder
from symskew.trials.collect import Arm, collect, over_prompts
from symskew.trials.gating import ALPHA, BETA, arms, change, split, thresholds
from symskew.trials.screening import PAPER, Outcome, Rule, choose, correlations, outcome

CHOOSE, REPORT = 101, 202
"""Seeds of the prompts that a rule is chosen on, and of those that it is reported on."""
OBJECTS = (2, 3, 4)
AFTER = 0.3
QUANTILE = 0.3

app = typer.Typer(add_completion=False)


@app.command()
def main(
    model: Annotated[str, typer.Option(help="A shipped model's name, or a folder.")] = "ensemble-sdxl",
    prompts: Annotated[int, typer.Option(help="To choose on, and again as many to report on.")] = 24,
    chosen_on: Annotated[int, typer.Option(help="Seeds of each prompt that is chosen on.")] = 32,
    seeds: Annotated[int, typer.Option(help="Seeds of each prompt that is reported on.")] = 48,
    keep: Annotated[int, typer.Option(help="Of these seeds.")] = 6,
    gating_seeds: Annotated[
        int, typer.Option(help="Fresh seeds of each prompt for the controls; 0 leaves them out.")
    ] = 8,
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 24,
    out: Annotated[Path, typer.Option(help="Folder of what was measured; a second run goes on from it.")] = Path(
        "ensemble-trials"
    ),
    write: Annotated[Path | None, typer.Option(help="A page to put the tables into, between its markers.")] = None,
) -> None:
    """Measure, choose, report; resumable at any time."""
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    folder = path(model) if model in MODELS else Path(model)
    pipe: Any = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    settings = defaults(folder)
    how: dict[str, Any] = {"settings": settings, "batch": batch}
    revision = hash_folder(folder)
    out = out / revision.removeprefix("sha256:")
    choosing = make_prompts(prompts, seed=CHOOSE, objects=OBJECTS)
    reporting = make_prompts(prompts, seed=REPORT, objects=OBJECTS)
    first = collect(pipe, Arm("choose", measured=True), choosing, range(chosen_on), out, **how)
    second = collect(pipe, Arm("report", measured=True), reporting, range(seeds), out, **how)
    steps = round(AFTER * settings["steps"])
    facts = f"{model} ({revision}), {settings['steps']} steps, guidance {settings['guidance']:g}"
    lines = [f"Made by `python -m symskew.trials`: {facts}.", ""]
    lines += _screening(choose(first, steps), first, second, keep, steps, settings["steps"])
    if gating_seeds:
        hard, easy = split(second, 1 / 3)
        numbers = sorted(hard + easy)
        some = [reporting[number] for number in numbers]
        gate = thresholds(first, [layer.name for layer in find_layers(pipe.unet)], QUANTILE)
        fresh = range(10_000, 10_000 + gating_seeds)
        found = {arm.name: collect(pipe, arm, some, fresh, out, **how) for arm in arms(gate)}
        again = range(20_000, 20_000 + gating_seeds)
        found["another seed (placebo)"] = collect(pipe, Arm("placebo"), some, again, out, **how)
        groups = {"hard": [numbers.index(n) for n in hard], "easy": [numbers.index(n) for n in easy]}
        lines += _gating(found, groups, len(fresh), gate)
    for line in lines:
        Console().print(line, soft_wrap=True, markup=False, highlight=False)
    if write:
        write_section(write, "trials", lines)


def _screening(best: Rule, first: list[Any], second: list[Any], keep: int, steps: int, total: int) -> Iterable[str]:
    seeds = len(second[0].seeds)
    share = steps / total
    spent = seeds * share + keep * (1 - share)
    yield "### Screening"
    yield ""
    yield (
        f"Chosen on {len(first)} prompts × {len(first[0].seeds)} seeds, by rank correlation with the judge's "
        f"log-likelihood within prompts: **{best}** "
        f"({over_prompts(correlations(best, first)).text(sign=True)} there, flattered by the choice). "
        f"Reported on {len(second)} other prompts × {seeds} seeds, {keep} of which are kept."
    )
    yield ""
    columns = "rank correlation | entirely right, kept | at random | gain | objects right, gain | log-likelihood, gain"
    yield f"| rank by | {columns} | spread of the kept ÷ of all |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, rule in (("chosen", best), (f"the paper's: {PAPER}", PAPER)):
        found: Outcome = outcome(rule, second, keep)
        cells = [
            name, found.correlation.text(sign=True), found.right.text(".1%"), found.right_random.text(".1%"),
            found.right_gain.text(".1%", sign=True), found.objects_gain.text(".1%", sign=True),
            found.likelihood_gain.text(".2f", sign=True), found.diversity_ratio.text(".3f"),
        ]  # fmt: skip
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield (
        f"Means over prompts, with 95% bootstrap intervals over prompts. Compute, in whole images: {keep} at random "
        f"{keep}; screening {spent:.1f}; finishing all {seeds}."
    )
    yield ""
    yield (
        "Rank correlation of the measures with the log-likelihood within prompts, over all steps and both branches, "
        "input states (reported prompts; energy with its sign turned, so that a plus means: more stable, more right):"
    )
    yield ""
    yield "| measure | down | mid | up | all |"
    yield "|---|---|---|---|---|"
    for measure, sign in (("energy", -1), ("instability", 1), ("alignment", 1), ("symmetry", 1)):
        cells = [
            over_prompts(correlations(Rule("input", measure, stage, 0, total, "both", sign), second)).text(sign=True)
            for stage in ("down", "mid", "up", "all")
        ]
        yield f"| {'−' if sign < 0 else ''}{measure} | {' | '.join(cells)} |"
    yield ""


def _gating(found: dict[str, Any], groups: dict[str, list[int]], seeds: int, gate: dict[str, float]) -> Iterable[str]:
    yield "### Gating"
    yield ""
    yield (
        f"α = {ALPHA:g}, β = {BETA:g}, all layers, all steps. The hardest and the easiest third of the reported "
        f"prompts, by the mean log-likelihood of the screening's seeds; measured on {seeds} fresh seeds of each "
        f"prompt, the same for every arm but the placebo. The gate opens below the {QUANTILE:.0%} quantile of each "
        "layer's alignment (value states, vanilla, on the prompts that were chosen on), "
        f"{min(gate.values()):.3f} to {max(gate.values()):.3f}."
    )
    yield ""
    yield "| prompts | arm | entirely right | change | objects right, change | log-likelihood, change | mean α |"
    yield "|---|---|---|---|---|---|---|"
    for group, prompts in groups.items():
        for name, samples in found.items():
            result = change(samples, found["vanilla"], prompts)
            changes = [result.right_change.text(".1%", sign=True), result.objects_change.text(".1%", sign=True),
                       result.likelihood_change.text(".2f", sign=True)]  # fmt: skip
            alpha = sum(samples[index].alpha for index in prompts) / len(prompts)
            cells = [f"{group} ({len(prompts)})", name, result.right.text(".1%")]
            cells += ["", "", ""] if name == "vanilla" else changes
            yield f"| {' | '.join(cells)} | {alpha:.3f} |"
    yield ""
    yield "Means over prompts, with 95% bootstrap intervals over prompts."
    yield ""


if __name__ == "__main__":
    app()
