"""FreeU (Si et al. 2024, CVPR): the decoder of a UNet leans on its backbone and less on its skip connections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any, ClassVar

from symskew.baselines.base import Attached, Baseline, number

_NAMES = ("b1", "b2", "s1", "s2")
_BLOCKS = ("UpBlock2D", "CrossAttnUpBlock2D")


@dataclass(frozen=True)
class FreeU(Baseline):
    """FreeU, as diffusers has it: `pipe.enable_freeu`.

    In the first (1) and second (2) block of the decoder, half of the backbone's channels are scaled by b, and the low
    frequencies of the skip connections by s. Numbers above 0 (diffusers turns all of it off where one is 0).

    Raises:
        ValueError: numbers out of range, or all of them 1, which would do nothing.

    >>> FreeU(1.3, 1.4, 0.9, 0.2).to_dict()
    {'name': 'freeu', 'b1': 1.3, 'b2': 1.4, 's1': 0.9, 's2': 0.2}
    """

    name: ClassVar[str] = "freeu"
    passes: ClassVar[int] = 2
    b1: float
    b2: float
    s1: float
    s2: float

    def __post_init__(self) -> None:
        for name in _NAMES:
            object.__setattr__(self, name, number("FreeU", name, getattr(self, name)))
        if set(astuple(self)) == {1.0}:
            raise ValueError("FreeU: b1, b2, s1 and s2 are all 1, which would do nothing")

    def check(self, pipe: Any) -> None:
        """A UNet with decoder blocks that know FreeU, where the settings do something; else TypeError."""
        unet = getattr(pipe, "unet", None)
        if unet is None or not hasattr(pipe, "enable_freeu"):
            raise TypeError(f"FreeU is for pipelines with a UNet; {type(pipe).__name__} has none")
        acts = {0: (self.b1, self.s1) != (1, 1), 1: (self.b2, self.s2) != (1, 1)}
        blocks = [block for block in getattr(unet, "up_blocks", ()) if type(block).__name__ in _BLOCKS]
        reached = {getattr(block, "resolution_idx", None) for block in blocks}
        if missed := [str(index + 1) for index, does in acts.items() if does and index not in reached]:
            raise TypeError(
                f"FreeU would do nothing in stage {' and '.join(missed)} of this {type(unet).__name__}: its decoder "
                f"has no such block of type {' or '.join(_BLOCKS)}"
            )

    @contextmanager
    def attach(self, pipe: Any, seeds: Sequence[int] = (0,)) -> Iterator[Attached]:
        """The same pipeline with FreeU on."""
        self.check(pipe)
        before = [(block, {name: vars(block)[name] for name in _NAMES if name in vars(block)})
                  for block in pipe.unet.up_blocks]  # fmt: skip
        try:
            pipe.enable_freeu(s1=self.s1, s2=self.s2, b1=self.b1, b2=self.b2)
            yield Attached(pipe, {})
        finally:
            for block, values in before:
                for name in _NAMES:
                    vars(block).pop(name, None)
                vars(block).update(values)
