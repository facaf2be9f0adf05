"""Every case there is."""

from __future__ import annotations

from combinations import adapters, caches, guidance

CASES = [*adapters.CASES, *guidance.CASES, *caches.CASES]
