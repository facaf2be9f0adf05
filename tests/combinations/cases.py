"""Every case there is."""

from __future__ import annotations

from combinations import adapters, caches, compiling, guidance, memory, packages, schedulers, untested, videos

CASES = [
    case
    for module in (adapters, guidance, videos, memory, packages, caches, compiling, schedulers, untested)
    for case in module.CASES
]
