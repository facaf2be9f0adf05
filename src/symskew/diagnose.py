"""Diagnose a generation: `with diagnose(pipe) as record: pipe(...)`, then read the record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from symskew.grid import Grid, find_grids
from symskew.layers import Layer
from symskew.probe import Lens, Probe
from symskew.reading import MEASURES, STATES, Generation, Reading
from symskew.record import Record
from symskew.schedule import Clock
from symskew.selection import Selector, choose_layers
from symskew.silence import SilentProbeError
from symskew.timeline import Moment, Timeline
from symskew.uninterrupted import uninterrupted
from symskew.vigilance import Watch


@contextmanager
def diagnose(
    target: object,
    *,
    layers: Selector = None,
    features: int | None = 64,
    states: str | None = None,
    heads: bool = False,
    maps: bool = False,
    every: int = 1,
    seed: int = 0,
) -> Iterator[Record]:
    """Measure every self-attention retrieval of a pipeline or module for the length of a `with` block.

    Results stay the same, bit for bit. Energy, instability and alignment of the retrieved states (Eqs. 21, 28, 29),
    the symmetry η (Eq. 36) and, under a control, what it did are measured for each layer, denoising step, sample and
    branch of guidance; within `control` both the vanilla and the controlled states are. Measures stay on their device
    until a generation is over: nothing waits for it on the way, and nothing as large as tokens × tokens is ever there.

    Args:
        target: a diffusers pipeline, or any module with attention layers in it.
        layers: which layers, as for `control`.
        features: how many of the retrieved features to measure, the same random subset at every step, without bias to
            the means; None for all of them.
        states: "input": the retrieved input features Ξ = P X, as in the paper; "value": the retrieved values, which are
            there at no cost; None: input features in the layers where they are known. The record says which.
        heads: keep every head of a layer apart.
        maps: also keep where in the image the retrieval is in conflict (`Record.map`), or at which tokens of a text
            (`Record.tokens`).
        every: measure only the steps 0, every, 2·every, …; reading the timestep then costs one wait for the device per
            forward of the denoiser.
        seed: of the subset of features.

    Raises:
        TypeError, ValueError: before anything is attached, an unusable target, pattern or setting; in the first
            forward, input features or places in the image that were asked for and cannot be known.
        SilentProbeError: layers that were chosen attended out of reach, or nothing was generated within the block.
        FloatingPointError: a measure is not finite, naming layer and step; at the end of the generation. The record
            keeps it.

    Example:
        >>> with diagnose(pipe, maps=True) as record:                    # doctest: +SKIP
        ...     image = pipe("a red seven").images[0]
        >>> record.mean("alignment", by=["stage"], branch="conditional") # doctest: +SKIP
        {'down': 0.61, 'mid': 0.55, 'up': 0.58}
        >>> where = record.map("conflict", stage="up")                   # doctest: +SKIP
    """
    survey = _Survey(target, layers, Lens(features, states, maps, seed), heads, every)
    try:
        survey.attach()
        yield survey.record
        survey.close()
    except BaseException:
        survey.detach()
        survey.settle(check=False)
        raise
    finally:
        survey.record._settle = _nothing  # and let go of the model


def _nothing() -> None:
    pass


class _Pending(NamedTuple):
    """A reading that is still on its device."""

    into: list[Reading]
    layer: int
    states: int
    given: int
    numbers: Tensor
    maps: Tensor | None
    grid: Grid | None


class _Survey:
    """A diagnosis at work: probes on every denoiser of a target, and the record they fill."""

    def __init__(self, target: object, layers: Selector, lens: Lens, heads: bool, every: int) -> None:
        _check(lens, every)
        chosen = choose_layers(target, layers)
        self.timeline = Timeline(target)
        self.every = every
        self.sessions = [_Probes(root, some, lens, self, first) for root, some, first in _numbered(chosen)]
        settings = {
            "target": type(target).__name__,
            "features": "all" if lens.features is None else lens.features,
            "states": lens.states or "input where known, else value",
            "every": every,
            "seed": lens.seed,
            "heads": heads,
        }
        self.record = Record([layer for _, some in chosen for layer in some], settings)
        self.record._settle = self.settle
        self.current: Generation | None = None
        self.pending: list[_Pending] = []
        self._stack = ExitStack()

    def attach(self) -> None:
        """Attach the probes."""
        with uninterrupted():
            for session in self.sessions:
                self._stack.enter_context(session)
                self._stack.enter_context(self.timeline.listening(session.root))

    def detach(self) -> None:
        """Let go of the model."""
        with uninterrupted():
            self._stack.close()

    def begin(self, moment: Moment) -> bool:
        """Take note of a forward; whether to measure it."""
        starts = self.current is None or self.timeline.starts(moment, self.current.moments)
        if starts:
            self.settle()
        with uninterrupted():
            if self.current is None or starts:
                self.current = Generation(0 if self.current is None else self.current.number + 1)
                self.record.generations.append(self.current)
            self.current.moments.append(moment)
            self.current.readings.append([])
        return self.every == 1 or self.timeline.times(self.current.moments)[-1].step % self.every == 0

    def take(self, first: int, probes: Sequence[Probe]) -> None:
        """Keep what the probes of one forward have seen, on the device."""
        assert self.current is not None
        into = self.current.readings[-1]
        for place, probe in enumerate(probes):
            if (seen := probe.latest) is not None:
                self.pending.append(_Pending(into, first + place, *seen))

    def settle(self, *, check: bool = True) -> None:
        """Bring what is pending into the record, by one transfer per device, and see that it is finite."""
        pending, self.pending = self.pending, []
        for reading, numbers, maps in zip(pending, *_fetched(pending), strict=True):
            reading.into.append(Reading(*reading[1:4], numbers, maps, reading.grid))
        for generation in self.record.generations:
            if len(generation.times) < len(generation.moments):
                generation.times = self.timeline.times(generation.moments)
        if check:
            self._check_finite(pending)

    def close(self) -> None:
        """The end of a block that went well: everything is in the record, finite, and every layer was reached."""
        for session in self.sessions:
            session.settle()
        self.settle()
        self.detach()
        if not any(session.acted for session in self.sessions):
            raise SilentProbeError(
                "symskew: the diagnosis ended without having seen anything: nothing was generated within its block."
            )

    def _check_finite(self, pending: Sequence[_Pending]) -> None:
        fresh = {id(reading.into) for reading in pending}
        for generation in self.record.generations:
            for time, readings in zip(generation.times, generation.readings, strict=True):
                for reading in readings if id(readings) in fresh else ():
                    bad = ~reading.numbers.isfinite().flatten(0, -2).all(0)
                    names = [name for name, is_bad in zip(MEASURES, bad.tolist(), strict=True) if is_bad]
                    if names:
                        raise FloatingPointError(
                            f"symskew: {', '.join(names)} of {self.record.layers[reading.layer].name} at step "
                            f"{time.step} (timestep {time.timestep:g}) are not finite: its queries, keys or states "
                            "were not, or half precision overflowed; the record keeps them as they are."
                        )


class _Probes(Watch[Probe]):
    """The probes on one denoiser."""

    silence = SilentProbeError
    purpose = "nothing would have been measured there"

    def __init__(self, root: nn.Module, layers: list[Layer], lens: Lens, survey: _Survey, first: int) -> None:
        super().__init__(root, [Probe(layer, lens) for layer in layers])
        self._survey, self._first, self._maps = survey, first, lens.maps
        self._clock = Clock(root)

    def wants(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Measure every so many steps."""
        wanted = self._survey.begin(self._survey.timeline.note(self._clock, args, kwargs))
        if wanted and self._maps:
            grids = find_grids(self.root, args, kwargs)
            for tap in self.taps:
                tap.grids = grids
        return wanted

    def finish(self) -> None:
        """Hand on what was measured; by calls that went past the root, as a step of its own."""
        if not self.running:
            if all(tap.latest is None for tap in self.taps):
                return
            if not self._survey.begin(self._survey.timeline.note(self._clock, (), {})):
                return
        self._survey.take(self._first, self.taps)

    def over(self) -> None:
        """Be there for calls that go past the root, of which it is known afterwards whether their step is wanted."""
        super().over()
        self.activate(True)


def _numbered(chosen: Sequence[tuple[nn.Module, list[Layer]]]) -> Iterator[tuple[nn.Module, list[Layer], int]]:
    first = 0
    for root, some in chosen:
        yield root, some, first
        first += len(some)


def _fetched(pending: Sequence[_Pending]) -> tuple[list[Tensor], list[Tensor | None]]:
    """The numbers and the maps on the CPU, by one transfer for each device and dtype."""
    numbers = _to_cpu([each.numbers for each in pending])
    maps = iter(_to_cpu([each.maps for each in pending if each.maps is not None]))
    return numbers, [None if each.maps is None else next(maps) for each in pending]


def _to_cpu(tensors: list[Tensor]) -> list[Tensor]:
    kinds: dict[Any, list[int]] = {}
    for index, tensor in enumerate(tensors):
        kinds.setdefault((tensor.device, tensor.dtype), []).append(index)
    out: list[Tensor] = list(tensors)
    for indices in kinds.values():
        flat = torch.cat([tensors[index].flatten() for index in indices]).cpu()
        sizes = [tensors[index].numel() for index in indices]
        for index, part in zip(indices, flat.split(sizes), strict=True):
            out[index] = part.view(tensors[index].shape).clone()
    return out


def _check(lens: Lens, every: int) -> None:
    """Refuse settings that mean nothing."""
    if lens.features is not None and (not isinstance(lens.features, int) or lens.features < 1):
        raise ValueError(f"symskew: features is a number of at least 1, or None for all, got {lens.features!r}.")
    if lens.states not in (None, *STATES):
        raise ValueError(f"symskew: states must be 'input', 'value' or None, got {lens.states!r}.")
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"symskew: every is a number of steps of at least 1, got {every!r}.")
