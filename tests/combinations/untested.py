"""What could not be had, and why it should hold."""

from __future__ import annotations

from combinations.case import UNTESTED, Case

WHY = {
    "CUDA, MPS, several devices": "nothing in the attachment depends on the device",
    "the kernels of flash-attn, SageAttention, aiter, xformers": "stand-ins in their places are controlled, or refused",
    "the inductor, CUDA graphs": "`aot_eager` has the same graphs; the kernels are torch's",
    "context parallelism, ring attention, tensor parallelism": "parallel attention is refused by its arguments",
    "bitsandbytes, torchao, quanto, SVDQuant (nunchaku)": "weights are never read, only what comes of them",
    "AnimateDiff, video UNets": "temporal layers are told by their names and left alone unless spelled out",
    "token merging (ToMe), DeepCache, other packages that rewrite forwards": "they were not tried",
    "`TextKVCache`": "for Nucleus-MoE-Image alone, whose image attends to image and text: not square",
}
CASES = [
    Case("Not tested", name, control=UNTESTED, diagnosis=UNTESTED, note=f"why it should hold: {why}"
         if "not tried" not in why else why)
    for name, why in WHY.items()
]  # fmt: skip
