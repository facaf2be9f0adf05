"""Every case there is."""

from __future__ import annotations

from combinations import adapters, caches, compiling, guidance, memory, schedulers, untested

CASES = [
    case for module in (adapters, guidance, memory, caches, compiling, schedulers, untested) for case in module.CASES
]
