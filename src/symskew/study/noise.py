"""Which noise an image began with, as a hash: proof that the images of two settings share it."""

from __future__ import annotations

import hashlib
from types import TracebackType
from typing import Any

from torch import Tensor

from symskew.layers import find_denoisers


class NoiseWatch:
    """Within its `with`, listens to what the denoiser is given first in each generation."""

    def __init__(self, pipe: Any) -> None:
        self._root = next(iter(find_denoisers(pipe).values()))
        self._first: Tensor | None = None
        self._hashes: list[str] = []
        self._batch = 0

    def __enter__(self) -> NoiseWatch:
        self._handle = self._root.register_forward_pre_hook(self._listen, with_kwargs=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.remove()

    def of(self, place: int, batch: int) -> str:
        """The hash of the noise of the image at this place of the batch that was generated last."""
        if place == 0 and self._first is not None:
            rows = self._first[:batch].float().cpu().contiguous().numpy()
            self._hashes = [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in rows]
            self._first = None
        return self._hashes[place]

    def _listen(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._first is None:
            latents = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
            if isinstance(latents, Tensor):
                self._first = latents.detach().clone()
