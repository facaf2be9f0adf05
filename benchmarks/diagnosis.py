"""What a diagnosis costs on SDXL's UNet with random weights, as ratios to the vanilla forward of the same run.

    python benchmarks/diagnosis.py             512 × 512 pixels, batch 1
    python benchmarks/diagnosis.py --write     put the table into benchmarks/README.md

Each way of looking takes turns with the vanilla forward; the ratio is the median over the pairs, so a machine whose
speed drifts, or that is busy, does not favour either.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from symskew import diagnose
from symskew.files import write_section
from symskew.layers import find_layers

WAYS: dict[str, dict[str, Any] | None] = {
    "vanilla again": None,
    "attached, on a step that is left out (every=2)": {"every": 2},
    "values, 64 features": {"states": "value", "features": 64},
    "values, 64 features, with maps": {"states": "value", "features": 64, "maps": True},
    "input, 64 features": {"states": "input", "features": 64},
    "input, all features": {"states": "input", "features": None},
    "input, all features, with maps": {"states": "input", "features": None, "maps": True},
}


def build(dtype: torch.dtype) -> UNet2DConditionModel:
    """SDXL's UNet, 2.6 billion random weights."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        unet = UNet2DConditionModel(
            sample_size=128, block_out_channels=(320, 640, 1280), layers_per_block=2, cross_attention_dim=2048,
            attention_head_dim=(5, 10, 20), transformer_layers_per_block=(1, 2, 10), use_linear_projection=True,  # pyright: ignore
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
        )  # fmt: skip
    finally:
        torch.set_default_dtype(before)
    return unet.eval()


def inputs(side: int, dtype: torch.dtype) -> dict[str, Any]:
    """One forward's arguments, batch 1."""
    return {
        "sample": torch.randn(1, 4, side, side, dtype=dtype),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": torch.randn(1, 77, 2048, dtype=dtype),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(1, 1280, dtype=dtype),
            "time_ids": torch.zeros(1, 6, dtype=dtype),
        },
        "return_dict": False,
    }


def floor(unet: UNet2DConditionModel, side: int, total: float, way: dict[str, Any] | None) -> float:
    """The least work of a way of looking, as a ratio of operations to the vanilla forward's `total`.

    Measuring F features of a head takes 8 · tokens · head_dim · F operations; retrieving them, tokens² · 2 · F, and
    q kᵀ once more. Means, norms and comparisons are not counted, which on a CPU take about as long again.
    """
    if way is None or way.get("every"):
        return 1.0
    extra = 0.0
    for layer in find_layers(unet):
        width, heads = layer.module.get_submodule("to_q").weight.shape[0], layer.heads or 1  # pyright: ignore
        tokens = (side * 320 // width) ** 2
        head_dim = width // heads
        own = head_dim if way["states"] == "value" else width
        features = min(way["features"] or own, own)
        extra += heads * 8 * tokens * head_dim * features
        if way["states"] == "input":
            extra += heads * 2 * tokens**2 * (features + head_dim)
    return float(1 + extra / total)


def operations(unet: UNet2DConditionModel, arguments: dict[str, Any]) -> float:
    """Of one vanilla forward, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        unet(**arguments)
    return float(counter.get_total_flops())


def timed(unet: UNet2DConditionModel, arguments: dict[str, Any], way: dict[str, Any] | None) -> float:
    """Seconds of one forward, looked at or not; attaching and reading the record are not in it."""
    looking: AbstractContextManager[Any] = nullcontext() if way is None else diagnose(unet, **way)
    with torch.no_grad(), looking:
        if way is not None and way.get("every"):
            unet(**arguments)  # step 0, which is looked at
            arguments = {**arguments, "timestep": torch.tensor(400)}
        began = time.perf_counter()
        unet(**arguments)
        return time.perf_counter() - began


def table(side: int, dtype: torch.dtype, pairs: int) -> Iterator[str]:
    """Lines of one Markdown table."""
    unet, arguments = build(dtype), inputs(side, dtype)
    total = operations(unet, arguments)
    yield f"### SDXL's UNet, {len(find_layers(unet))} self-attention layers, {side}×{side} latents, {str(dtype)[6:]}\n"
    yield f"The vanilla forward: {total / 1e12:.2f} TFLOP, {timed(unet, arguments, None):.1f} s.\n"
    yield "| diagnosis | time ÷ vanilla | floor | pairs |"
    yield "|---|---|---|---|"
    for name, way in WAYS.items():
        ratios = []
        for _ in range(pairs):
            base = timed(unet, arguments, None)
            ratios.append(timed(unet, arguments, way) / base)
        yield f"| {name} | {statistics.median(ratios):.2f} | {floor(unet, side, total, way):.2f} | {pairs} |"
    yield ""


def main() -> None:
    """Run, print, and on request write the table between the markers of benchmarks/README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64, help="of the latents: an eighth of the pixels")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--pairs", type=int, default=3, help="timed pairs per way")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    arguments = parser.parse_args()
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        "batch 1.\n"
    ]
    print(lines[0], flush=True)
    for line in table(arguments.side, getattr(torch, arguments.dtype), arguments.pairs):
        print(line, flush=True)
        lines.append(line)
    if arguments.write:
        write_section(Path(__file__).with_name("README.md"), "diagnosis", lines)


if __name__ == "__main__":
    main()
