"""Which part of the denoising schedule a step belongs to, read from the denoiser's own timestep."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_TIME_NAMES = ("timestep", "timesteps", "time", "t")
# Pipelines that hand their denoiser 1 − t/1000 where the others hand it t or t/1000.
_REVERSED = ("Lumina2", "ZImage")
# Those whose time rises to 1, which is clean: parts that are ahead of the image, sound or given frames, have more.
_RISING = "MiniMaxH3"


class Clock:
    """Reads the timestep from a denoiser's arguments, and finds it in a schedule."""

    def __init__(self, root: nn.Module) -> None:
        self._read = _time_reader(root)
        self._reversed = type(root).__name__.startswith(_REVERSED)
        self._rising = type(root).__name__.startswith(_RISING)
        self._scale: float | None = None

    @property
    def readable(self) -> bool:
        """Whether the denoiser takes a timestep at all."""
        return self._read is not None

    def time(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The timestep among the denoiser's arguments, as given; None if there is none."""
        given = self._read(args, kwargs) if self._read else None
        return given.min() if self._rising and isinstance(given, Tensor) else given

    def place(self, time: Any, steps: list[float], scheduler: Any) -> int | None:
        """The first place of a timestep among a scheduler's, or None; waits for the device."""
        value = clock_time(time)
        count = getattr(getattr(scheduler, "config", None), "num_train_timesteps", 1000)
        # Models in half precision are given a rounded time.
        dtype = time.dtype if isinstance(time, Tensor) and time.is_floating_point() else torch.float32
        near = max(2 * torch.finfo(dtype).eps, 1e-4)
        if isinstance(time, Tensor) and not time.is_floating_point():  # cut off from a time that may not be whole
            near = 0.999 / max(abs(value), 1.0)
        # Some models are given the time as scheduled, others as a fraction. A time of 1 may be either, the last step or
        # the first of all; what the other steps of a generation were tells which.
        scales = [1.0, float(count)] if self._scale is None else [self._scale]
        matches = {}
        for scale in scales:
            known = (1 - value) * count if self._reversed else value * scale
            gaps = [abs(known - step) / max(abs(known), 1.0) for step in steps]
            if gaps and min(gaps) <= near:
                matches[scale] = min(gaps), gaps.index(min(gaps))
        if len(matches) == 1:
            (self._scale,) = matches
        return min(matches.values())[1] if matches else None


class Window:
    """A part of the schedule, from fraction `start` (included) to `stop` (left out), of one denoiser.

    The fraction of a step is its place among the scheduler's timesteps divided by their number, so image-to-image at
    strength ½ begins at ½.

    Raises:
        ValueError: limits outside [0, 1], out of order or not numbers; no scheduler or no timestep to read.
    """

    def __init__(self, root: nn.Module, scheduler: Callable[[], Any], start: float, stop: float) -> None:
        check_window(start, stop)
        self.start, self.stop = float(start), float(stop)
        self._scheduler = scheduler
        self.whole = self.start == 0 and self.stop == 1
        self.clock = Clock(root)
        self._known: tuple[Any, list[float]] | None = None
        self._model = type(root).__name__
        if not self.whole:
            self.require(f"start={start:g}, stop={stop:g}", "leave start and stop out")

    def require(self, what: str, remedy: str) -> None:
        """Refuse what needs to know the step, where that cannot be known.

        Raises:
            ValueError: there is no scheduler, or no timestep to read.
        """
        if not hasattr(self.scheduler, "timesteps"):
            raise ValueError(
                f"symskew: {what} needs a schedule, and a bare {self._model} has none; give the whole pipeline, or "
                f"{remedy}."
            )
        if not self.clock.readable:
            raise ValueError(
                f"symskew: {what} needs a timestep, and the forward of {self._model} takes none of "
                f"{', '.join(_TIME_NAMES)}; {remedy}."
            )

    @property
    def scheduler(self) -> Any:
        """The pipeline's scheduler of the moment: people change it between generations."""
        return self._scheduler()

    def contains(self, time: Any) -> bool:
        """Whether a step at this timestep lies within; waits for the device, unless the window is the whole.

        Raises:
            ValueError: if no step of the schedule lies within, or the timestep is not of the schedule.
        """
        if self.whole:
            return True
        steps = self._steps()
        return self._holds(self._place(time, steps) / len(steps))

    def progress(self, time: Any) -> float:
        """How far the run is at a timestep: 0 at the first time of the schedule, 1 at the last; waits for the device.

        Raises:
            ValueError: the timestep is not of the schedule, or there is none.
        """
        self.require("alpha or beta that changes with the steps", "take its value at one, circulation.at(progress=…)")
        steps = self._steps()
        # Samplers of second order visit a time twice.
        times = list(dict.fromkeys(steps))
        return times.index(steps[self._place(time, steps)]) / max(len(times) - 1, 1)

    def describe(self, time: Any) -> str:
        """The step at this timestep, in words."""
        if time is None:
            return "at an unknown step"
        steps = self._steps() if hasattr(self.scheduler, "timesteps") else []
        place = self.clock.place(time, steps, self.scheduler)
        known = "" if place is None else f"step {place + 1} of {len(steps)}, "
        return f"{known}timestep {clock_time(time):g}"

    def _place(self, time: Any, steps: list[float]) -> int:
        place = self.clock.place(time, steps, self.scheduler)
        if place is None:
            ends = " … ".join(f"{step:g}" for step in steps[:1] + steps[-1:])
            raise ValueError(
                f"symskew: the denoiser was given timestep {clock_time(time):g}, which is not in the schedule of "
                f"{type(self.scheduler).__name__} ({ends}), "
                "so start, stop and what changes with the steps have no meaning here; leave them out."
            )
        return place

    def _steps(self) -> list[float]:
        timesteps = self.scheduler.timesteps
        if timesteps is None:  # some schedulers have none before their first use
            return []
        if self._known is None or self._known[0] is not timesteps:
            steps = listed(timesteps)
            if not any(self._holds(index / len(steps)) for index in range(len(steps))):
                raise ValueError(
                    f"symskew: no step lies between start={self.start:g} and stop={self.stop:g}: the {len(steps)} "
                    f"steps begin at multiples of {1 / len(steps):.3g}; widen the window or take more steps."
                )
            self._known = timesteps, steps
        return self._known[1]

    def _holds(self, fraction: float) -> bool:
        # Ten steps and start=0.3: 3/10 must count as within, whatever the last bit of either.
        return self.start - 1e-9 <= fraction < self.stop - 1e-9


def clock_time(time: Any) -> float:
    """A timestep as a number; waits for the device."""
    # Video models give each frame its own time, zero for those that are given: the step is the largest.
    return float(time.double().max()) if isinstance(time, Tensor) else float(time)


def listed(timesteps: Any) -> list[float]:
    """A scheduler's timesteps as numbers; empty for one that was never used."""
    return [] if timesteps is None else [float(step) for step in torch.as_tensor(timesteps).double().cpu()]


def check_window(start: float, stop: float) -> None:
    """Refuse limits that are no part of a schedule."""
    for name, value in (("start", start), ("stop", stop)):
        if not (isinstance(value, (int, float)) and 0 <= value <= 1):
            raise ValueError(f"symskew: {name} is a fraction of the schedule between 0 and 1, got {value!r}.")
    if start >= stop:
        raise ValueError(f"symskew: start must come before stop, got start={start:g}, stop={stop:g}.")


def _time_reader(root: nn.Module) -> Any:
    names = list(inspect.signature(type(root).forward).parameters)[1:]
    name = next((name for name in _TIME_NAMES if name in names), None)
    if name is None:
        return None
    index = names.index(name)

    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return kwargs[name] if name in kwargs else (args[index] if len(args) > index else None)

    return read
