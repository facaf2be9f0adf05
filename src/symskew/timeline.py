"""When and for whom a forward of the denoiser was run: which generation, which step, which branch of guidance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from symskew.schedule import Clock, clock_time, listed
from symskew.vigilance import guidance_branches

PASSES = {"cond": "conditional", "uncond": "unconditional"}
"""What pipelines call the passes of single branches."""
_TOGETHER = "cond_uncond"  # one pass for the branches of guidance, stacked in its batch
_LISTENERS = "_symskew_listeners"


@dataclass(eq=False)
class Moment:
    """One forward of the denoiser, as it was seen: nothing of it waits for the device."""

    time: Any
    """The timestep it was given; None if it takes none."""
    timesteps: Any
    """The scheduler's timesteps at that moment; every generation has its own."""
    scheduler: Any
    clock: Clock
    """Of the denoiser that was run: a pipeline may have two."""
    context: str | None
    """What the pipeline called this pass, where it runs the branches one by one and names them."""
    branches: tuple[str, ...]
    """Those that are stacked in the batch, in their order; one where they are run one by one."""
    rows: int
    """Samples × branches."""


class Time(NamedTuple):
    """When a moment was: `step` counts the schedule from 0, `timestep` is what the denoiser was given."""

    step: int
    timestep: float
    branches: tuple[str, ...]
    """One for each block of the batch."""


class Timeline:
    """Takes notes of the forwards of a target's denoisers, and makes sense of them afterwards.

    The step comes from the denoiser's timestep, found in the scheduler's list: caches that skip a layer or a forward
    leave a gap, they do not shift what follows. A bare module has no list; its steps are the timesteps in the order in
    which they came, and one that comes back begins a new generation. Without a timestep the steps are the forwards.
    Branches are those that the pipeline says it stacks; of one that says nothing, as PixArt, two if its batch begins as
    the same latents twice. Two samples of one seed, unguided there, are therefore taken for the branches of one.
    """

    def __init__(self, target: object) -> None:
        self._target = None if isinstance(target, nn.Module) else target
        self._context: str | None = None
        self._doubled: tuple[Any, bool] | None = None

    @property
    def context(self) -> str | None:
        """What the pass that runs is called, where it is of one branch and the pipeline names it."""
        name = self._context or _guided_pass(getattr(self._target, "guider", None))
        return None if name == _TOGETHER else name

    def note(self, clock: Clock, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Moment:
        """The forward that begins, with the denoiser's arguments."""
        scheduler = getattr(self._target, "scheduler", None)
        time = clock.time(args, kwargs)
        batch = batch_of(args, kwargs)
        timesteps = getattr(scheduler, "timesteps", None)
        context = self.context
        branches = ("conditional",)
        if context is None and self._target is not None:
            doubled = ("unconditional", "conditional")
            branches = guidance_branches(self._target) or doubled[not self._is_doubled(batch, timesteps) :]
        rows = 1 if batch is None else batch.shape[0]
        kept = time.detach().clone() if isinstance(time, Tensor) else time
        branches = branches if rows % len(branches) == 0 else ("conditional",)
        return Moment(kept, timesteps, scheduler, clock, context, branches, rows)

    def starts(self, moment: Moment, before: Sequence[Moment]) -> bool:
        """Whether a generation begins with this moment, after those of the last one."""
        if not before:
            return True
        if moment.timesteps is not None or before[-1].timesteps is not None:
            return moment.timesteps is not before[-1].timesteps
        times = [clock_time(other.time) for other in before if other.time is not None]
        if moment.time is None:
            return False
        now = clock_time(moment.time)
        return now in times and now != times[-1]

    def times(self, moments: Sequence[Moment]) -> list[Time]:
        """The times of one generation's moments, in order; waits for the device."""
        steps = listed(moments[0].timesteps) if moments else []
        found = [_entry(moment, steps) for moment in moments]
        order: dict[Any, int] = {}
        entries = [order.setdefault(m if m.time is None else clock_time(m.time), len(order)) for m in moments]
        if steps and None not in found:
            entries = [entry for entry in found if entry is not None]
        alike: dict[int, list[int]] = {}
        for index, entry in enumerate(entries):
            alike.setdefault(entry, []).append(index)
        times: list[Time | None] = [None] * len(moments)
        for entry, indices in alike.items():
            # Samplers of second order list a time twice, one forward for each; more than that are passes for branches.
            same = [i for i, step in enumerate(steps) if step == steps[entry]] if steps and entry < len(steps) else []
            repeats = max(len(same), 1)
            passes = len(indices) // repeats if len(indices) % repeats == 0 else len(indices)
            least = min(moments[index].rows for index in indices)
            widest = max((moments[index] for index in indices), key=lambda moment: moment.rows)
            for number, index in enumerate(indices):
                moment, turn = moments[index], number // passes
                times[index] = Time(
                    same[turn] if turn < len(same) else entry,
                    float("nan") if moment.time is None else clock_time(moment.time),
                    _branches(moment, number % passes, passes, least, widest),
                )
        return [time for time in times if time is not None]

    @contextmanager
    def listening(self, root: nn.Module) -> Iterator[None]:
        """Listen to what the pipeline calls its passes through a denoiser, for as long as the block lasts."""
        naming: Callable[..., Any] | None = getattr(root, "cache_context", None)
        if naming is None:
            yield
            return
        if _LISTENERS not in vars(root):
            listeners: list[Timeline] = []

            @contextmanager
            def heard(name: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
                before = [(each, each._context) for each in listeners]
                for each, _ in before:
                    each._context = name
                try:
                    with naming(name, *args, **kwargs) as given:
                        yield given
                finally:
                    for each, context in before:
                        each._context = context

            vars(root)["cache_context"], vars(root)[_LISTENERS] = heard, (heard, listeners)
        ear, listeners = vars(root)[_LISTENERS]
        listeners.append(self)
        try:
            yield
        finally:
            listeners.remove(self)
            if not listeners:
                del vars(root)[_LISTENERS]
                if vars(root).get("cache_context") is ear:
                    del vars(root)["cache_context"]

    def _is_doubled(self, batch: Tensor | None, timesteps: Any) -> bool:
        # Pipelines that do not say whether they guide hand their denoiser the same latents twice over.
        if batch is None:
            return False
        if self._doubled is None or self._doubled[0] is not timesteps:
            self._doubled = timesteps, is_repeated(batch, 2)
        return self._doubled[1]


def batch_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """What a denoiser is given a row of for each sample and branch: its latents, by their place the first of all."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim > 1), None)


def is_repeated(batch: Tensor, times: int) -> bool:
    """Whether a batch is the same rows so many times over."""
    first, *others = batch.chunk(times) if batch.shape[0] % times == 0 else [batch]
    return len(others) == times - 1 and all(torch.equal(first, other) for other in others)


def _entry(moment: Moment, steps: list[float]) -> int | None:
    return None if moment.time is None else moment.clock.place(moment.time, steps, moment.scheduler)


def _branches(moment: Moment, number: int, passes: int, least: int, widest: Moment) -> tuple[str, ...]:
    if moment.context is not None:
        return (PASSES.get(moment.context, moment.context),)
    if passes == 1:
        return moment.branches
    if widest.rows == len(widest.branches) * least > least:  # one more pass, for the prompt, beside a batch of branches
        return ("perturbed",) if moment.rows == least else moment.branches
    return (f"pass {number}",)


def _guided_pass(guider: Any) -> str | None:
    """What a guider of Modular Diffusers has prepared the denoiser for."""
    count = getattr(guider, "_count_prepared", 0)
    if not count:
        return None
    return "uncond" if not guider.is_conditional else "cond" if count == 1 else "perturbed"
