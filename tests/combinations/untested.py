"""What could not be had, why, and why it should hold."""

from __future__ import annotations

from combinations.case import UNTESTED, Case

WHY = {
    "CUDA, MPS, several devices": "not to be had here; nothing in the attachment depends on the device",
    "kernels of flash-attn, SageAttention, aiter, xformers": "they want a GPU; stand-ins are controlled, or refused",
    "CUDA graphs, the inductor's kernels for a GPU": "they want a GPU; for a CPU the inductor's are tested",
    "tensor parallelism": "it wants several devices; attention goes head by head",
    "bitsandbytes and SVDQuant (nunchaku) by diffusers' configurations": "these want a GPU; weights are never read",
    "optimum-quanto: four bits": "it compiles an extension for minutes; weights are never read",
    "other packages that rewrite forwards": "who calls an attention module is seen, who does not is an error",
}
CASES = [Case("Not tested", name, control=UNTESTED, diagnosis=UNTESTED, note=why) for name, why in WHY.items()]
