"""The matched null perturbation: a control of the same size, without the mechanism."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from symskew.baselines.base import Attached, Baseline, hashable, number
from symskew.baselines.displacement import displaced
from symskew.circulation import Adaptive, Circulation, Norm
from symskew.grid import Grid, find_grids, locate
from symskew.layers import Layer
from symskew.ramp import Changing, changes, constant
from symskew.schedule import Window, check_window
from symskew.seam import Call
from symskew.selection import Selector, choose_layers
from symskew.steer import Arm, Settings, Steer
from symskew.weak import kept


@dataclass(frozen=True)
class NullPerturbation(Baseline):
    """What `Circulation(alpha, beta)` would do if only its size mattered: same layers, same steps, no mechanism.

    In every controlled call the skew part comes from elsewhere in the image, and the step away from the vanilla
    retrieval is as long as the circulation's, per sample and head; see `displaced`. The image's tokens are moved around
    by a quarter to three quarters of its height and width (as on a torus), the same way in all layers and steps of an
    image, drawn from `seed` and the image's own. A shift, unlike any permutation, leaves the skew part as smooth over
    the image as it was, so that the step is as coarse as the circulation's and need not be lengthened as much. Text
    tokens in joint attention stay.

    Args:
        alpha, beta, adaptive, norm: as of the `Circulation` that this is the null of: numbers, or ramps and values for
            stages, by which the steps are then as long as those of that schedule.
        strength: length of each step, in units of the circulation's. Steps of one length need not take an image
            equally far (on ensemble-sdxl 0.9 to 2.4 times, by alpha and layers): compare what comes out, and match it
            by this if it matters.
        layers, start, stop: as for `symskew.control`.
        seed: of the displacements.

    Raises:
        ValueError: settings that `Circulation` refuses, or with which it would do nothing.

    >>> NullPerturbation(2, 1, layers="up").to_dict()
    {'name': 'null', 'alpha': 2.0, 'layers': 'up'}
    """

    name: ClassVar[str] = "null"
    passes: ClassVar[int] = 2
    blind: ClassVar[bool] = True
    circulates: ClassVar[bool] = False
    alpha: float | Changing
    beta: float | Changing = 1.0
    _: KW_ONLY
    adaptive: Adaptive | None = None
    norm: Norm | None = "perturbed"
    strength: float = 1.0
    layers: Selector = None
    start: float = 0.0
    stop: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("alpha", "beta", "adaptive", "norm")}
        known = Circulation.from_dict(given)
        known.to_dict()  # refuses functions, which cannot be written down
        for name in ("alpha", "beta", "start", "stop"):
            value = getattr(known, name, getattr(self, name))
            changing = name in given and changes(value)
            if isinstance(getattr(self, name), bool) or not (changing or isinstance(value, int | float)):
                orelse = ", a ramp or a value for each stage" if name in given else ""
                raise ValueError(f"NullPerturbation: {name} must be a number{orelse}, got {getattr(self, name)!r}")
            object.__setattr__(self, name, value if changing else float(value))
        object.__setattr__(self, "strength", number("NullPerturbation", "strength", self.strength))
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | float) or self.seed % 1:
            raise ValueError(f"NullPerturbation: seed must be a whole number, got {self.seed!r}")
        object.__setattr__(self, "seed", int(self.seed))
        object.__setattr__(self, "layers", hashable(self.layers))
        check_window(self.start, self.stop)
        if self.circulation.is_identity or constant(self.beta) == 0:
            raise ValueError("NullPerturbation: alpha = 1 or beta = 0 circulates nothing, so its null does nothing")

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))  # values for stages are a dictionary

    @property
    def circulation(self) -> Circulation:
        """What this is the null of."""
        return Circulation(self.alpha, self.beta, adaptive=self.adaptive, norm=self.norm)

    @property
    def alone(self) -> bool:
        """Whether the circulation adapts to the whole call."""
        return self.adaptive == "call"

    @property
    def window(self) -> tuple[float, float]:
        """From `start` to `stop`."""
        return self.start, self.stop

    def check(self, pipe: Any) -> None:
        """Layers, a window and a schedule that this pipeline has."""
        self._arms(pipe, [0])

    @contextmanager
    def attach(self, pipe: Any, seeds: Sequence[int] = (0,)) -> Iterator[Attached]:
        """The same pipeline with the null perturbation in its layers."""
        with kept(self._arms(pipe, seeds)):
            yield Attached(pipe, {})

    def _arms(self, pipe: Any, seeds: Sequence[int]) -> list[_Arm]:
        moves, settings, arms = [_draw(self.seed, seed) for seed in seeds], Settings(self.circulation), []
        for root, layers in choose_layers(pipe, self.layers):
            window = Window(root, lambda: getattr(pipe, "scheduler", None), self.start, self.stop)
            taps: list[Steer] = [_Displace(layer, settings, moves, self.strength) for layer in layers]
            arms.append(_Arm(root, taps, window, pipe))
        return arms


def _draw(seed: int, image: int) -> tuple[float, float]:
    """How far to move an image, in parts of its height and width: from ¼ to ¾ each."""
    source = random.Random(f"{seed} {image}")
    return source.uniform(0.25, 0.75), source.uniform(0.25, 0.75)


class _Displace(Steer):
    """Replaces the attention of one layer by the null of its circulation."""

    def __init__(self, layer: Layer, settings: Settings, moves: list[tuple[float, float]], strength: float) -> None:
        super().__init__(layer, settings)
        self.moves, self.strength = moves, strength
        self.grids: list[Grid] = []

    def attend(self, call: Call, inner: Callable[[], Tensor]) -> Tensor:
        """The displaced attention, whatever would be there without."""
        self.acted = True
        if self.idle:
            return call.vanilla()
        if call.mask is not None or call.causal:
            raise ValueError(
                f"symskew: {self.layer.name} attends under a mask, and a displaced skew part would be that of hidden "
                "tokens; leave the layer out with layers=."
            )
        order = self._order(call).to(call.q.device)
        out = displaced(call.q, call.k, call.v, self.settings.plain, order, scale=call.scale, strength=self.strength)
        self.note(out)
        return out

    def _order(self, call: Call) -> Tensor:
        """(rows, tokens): whose place each token takes."""
        rows, tokens, images = call.q.shape[0], call.q.shape[2], len(self.moves)
        guided = self.settings.guided
        if rows % images or (images > 1 and guided is not None and rows > images * guided):
            raise ValueError(
                f"symskew: there are seeds for {images} images, but {self.layer.name} attends for {rows} rows; give "
                "one seed for each image of the call, or one for all."
            )
        place, grid = locate(self.layer, tokens, call.streams, self.grids)
        order = torch.arange(tokens).repeat(images, 1)
        image = torch.arange(tokens)[place].view(grid)
        for own, parts in zip(order, self.moves, strict=True):
            # At least by one token, and not all the way round.
            shifts = [min(max(round(part * side), 1), side - 1) for part, side in zip(parts, grid[-2:], strict=True)]
            own[place] = image.roll(shifts, (-2, -1)).flatten()
        return order.repeat(rows // images, 1)


class _Arm(Arm):
    """As a control's, with the grids of each forward."""

    def wants(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Act on this forward if its step lies within the window."""
        grids = find_grids(self.root, args, kwargs)
        for tap in self.taps:
            assert isinstance(tap, _Displace)
            tap.grids = grids
        return super().wants(args, kwargs)
