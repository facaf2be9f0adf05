"""What control costs on one self-attention layer, as ratios to the vanilla layer measured in the same run.

    python benchmarks/attention.py                       SDXL's two layers, float32 and bfloat16
    python benchmarks/attention.py --layers all          SD3's and FLUX's too: minutes on a CPU
    python benchmarks/attention.py --write               put the tables into benchmarks/README.md

A layer is four projections and the attention core at a model's own size, with random weights, attached as on a real
pipeline. Each variant takes turns with the vanilla layer; the ratio is the median over the pairs, so a machine whose
speed drifts, or that is busy, does not favour either. Memory is the growth of the process's peak while the layer runs
once, in a process of its own.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import platform
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from symskew import Circulation, control
from symskew.files import write_section


class Size(NamedTuple):
    """One self-attention layer at 1024 × 1024 pixels."""

    name: str
    tokens: int
    width: int
    heads: int


SIZES = {
    "sdxl-64": Size("SDXL, 64×64 latents", 4096, 640, 10),
    "sdxl-32": Size("SDXL, 32×32 latents", 1024, 1280, 20),
    "sd3": Size("SD3, 4096 image + 333 text tokens", 4429, 1536, 24),
    "flux": Size("FLUX, 4096 image + 512 text tokens", 4608, 3072, 24),
}
ALPHA, BETA = 1.05, 5.0
VARIANTS = {
    "value": Circulation(ALPHA, BETA),
    "value, adaptive": Circulation(ALPHA, BETA, adaptive="sample"),
    "sketch": Circulation(ALPHA, BETA, space="sketch"),
    "input": Circulation(ALPHA, BETA, space="input"),
    "Sym-only": Circulation.sym_only(),
}
PRINTED = "Algorithm 2 as printed"


def as_printed(layer: Attention, x: Tensor, alpha: float, beta: float) -> Tensor:
    """The paper's appendix A.1, line by line: whole matrices, weights decomposed, norms in the input space."""
    heads, width = layer.heads, x.shape[-1]
    query, key, value = (getattr(layer, f"to_{name}").weight.view(heads, -1, width) for name in "qkv")
    head_dim = query.shape[1]
    weights = torch.einsum("hdi,hdj->hij", query, key)
    sym, skew = 0.5 * (weights + weights.mT), 0.5 * (weights - weights.mT)

    def probabilities(coupling: Tensor) -> Tensor:
        logits = torch.einsum("bti,hij,bsj->bhts", x, coupling, x)
        return torch.softmax(logits * (1.0 / math.sqrt(head_dim)), dim=-1)

    circulated = torch.einsum("bhts,bsc->bhtc", probabilities(sym + alpha * skew), x)
    vanilla = torch.einsum("bhts,bsc->bhtc", probabilities(sym + skew), x)
    blended = vanilla + beta * (circulated - vanilla)
    reference = torch.linalg.vector_norm(circulated, dim=-1, keepdim=True).clamp_min(1e-6)
    current = torch.linalg.vector_norm(blended, dim=-1, keepdim=True).clamp_min(1e-6)
    blended = blended * (reference / current).clamp(0.25, 4.0)
    assert layer.to_out is not None
    out = torch.einsum("bhtc,hdc->bthd", blended, value).flatten(2)
    return layer.to_out[0](out)


def floor(size: Size, variant: str) -> float:
    """The least work for a variant, as a ratio of multiply-adds to the vanilla layer's."""
    tokens, width, heads = size.tokens, size.width, size.heads
    projections, product = 8 * tokens * width**2, 2 * tokens**2 * width
    # q kᵀ and one retrieval are vanilla; k qᵀ and another retrieval make the controlled pair.
    core = {"Sym-only": 3, "input": 4 + 2 * heads, "sketch": 6, PRINTED: 4 * heads}.get(variant, 4)
    if variant == PRINTED:
        projections = (4 + 4 * heads) * tokens * width**2
    return (projections + core * product) / (8 * tokens * width**2 + 2 * product)


@contextmanager
def ready(size: Size, variant: str, dtype: torch.dtype) -> Iterator[Callable[[], Tensor]]:
    """The layer, prepared to run once per call."""
    torch.manual_seed(0)
    layer = Attention(size.width, heads=size.heads, dim_head=size.width // size.heads).to(dtype)
    model = nn.Sequential(layer)
    x = torch.randn(1, size.tokens, size.width).to(dtype)
    with torch.no_grad():
        if variant == "vanilla":
            yield lambda: model(x)
        elif variant == PRINTED:
            yield lambda: as_printed(layer, x, ALPHA, BETA)
        else:
            with control(model, VARIANTS[variant]):
                yield lambda: model(x)


def time_ratio(size: Size, variant: str, against: str, dtype: torch.dtype, pairs: int) -> float:
    """Median of variant ÷ against over interleaved pairs."""
    with ready(size, variant, dtype) as run, ready(size, against, dtype) as base:
        run()
        base()
        seconds = []
        for _ in range(pairs):
            for call in (base, run):
                begin = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - begin)
    return statistics.median(b / a for a, b in zip(seconds[::2], seconds[1::2], strict=True))


def _peak(size: Size, variant: str, dtype: torch.dtype, answer: multiprocessing.SimpleQueue[float]) -> None:
    with ready(size, variant, dtype) as run:
        page = resource.getpagesize() / 2**20

        def resident() -> float:
            return int(Path("/proc/self/statm").read_text().split()[1]) * page

        before, peak, done = resident(), 0.0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.002):
                peak = max(peak, resident())

        watcher = threading.Thread(target=watch)
        watcher.start()
        run()
        done.set()
        watcher.join()
    answer.put(max(peak - before, 0.0))


def peak_memory(size: Size, variant: str, dtype: torch.dtype) -> float:
    """Growth in MB of a fresh process's resident memory while the layer runs once."""
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=_peak, args=(size, variant, dtype, answer))
    process.start()
    process.join()
    return answer.get()


def table(size: Size, dtype: torch.dtype, pairs: int, budget: float) -> Iterator[str]:
    """Lines of one Markdown table."""
    base_memory = peak_memory(size, "vanilla", dtype)
    work = (8 * size.tokens * size.width**2 + 4 * size.tokens**2 * size.width) / 1e9
    yield f"### {size.name}: {size.tokens} tokens, width {size.width}, {size.heads} heads, {str(dtype)[6:]}\n"
    yield f"The vanilla layer: {work:.1f} GFLOP, {base_memory:.0f} MB above the idle layer.\n"
    yield "| variant | time ÷ vanilla | floor | × above floor | pairs | peak memory |"
    yield "|---|---|---|---|---|---|"
    for variant in [*VARIANTS, PRINTED]:
        least = floor(size, variant)
        if least * work > budget * 1000:
            yield f"| {variant} | not run: {least * work / 1000:.1f} TFLOP | {least:.2f} | | | |"
            continue
        repeat = max(2, min(pairs, int(600 / (least * work))))
        ratio = time_ratio(size, variant, "vanilla", dtype, repeat)
        memory = peak_memory(size, variant, dtype)
        yield f"| {variant} | {ratio:.2f} | {least:.2f} | {ratio / least:.2f} | {repeat} | {memory:.0f} MB |"
    adaptive = time_ratio(size, "value, adaptive", "value", dtype, pairs)
    yield f"\nMeasured against each other: adaptive ÷ static {adaptive:.3f}"
    if floor(size, PRINTED) * work < budget * 1000:
        yield f"and Algorithm 2 as printed ÷ input space {time_ratio(size, PRINTED, 'input', dtype, 2):.2f}."
    yield ""


def main() -> None:
    """Run, print, and on request write the tables between the markers of benchmarks/README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="sdxl-64,sdxl-32", help=f"all, or some of {','.join(SIZES)}")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--pairs", type=int, default=9, help="timed pairs per variant")
    parser.add_argument("--budget", type=float, default=2.0, help="leave out what needs more TFLOP per call than this")
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/README.md")
    arguments = parser.parse_args()
    names = list(SIZES) if arguments.layers == "all" else arguments.layers.split(",")
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"α = {ALPHA}, β = {BETA}, batch 1.\n"
    ]
    print(lines[0], flush=True)
    for name in names:
        for dtype in arguments.dtypes.split(","):
            for line in table(SIZES[name], getattr(torch, dtype), arguments.pairs, arguments.budget):
                print(line, flush=True)
                lines.append(line)
    if arguments.write:
        write_section(Path(__file__).with_name("README.md"), "attention", lines)


if __name__ == "__main__":
    main()
