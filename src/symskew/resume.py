"""A generation broken off and taken up again: what its denoisers gave is kept by image, and not computed twice."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from symskew.layers import find_denoisers
from symskew.record import Record
from symskew.schedule import Clock, clock_time, listed
from symskew.timeline import batch_of


class Stop(BaseException):
    """Breaks a generation off; nothing that pipelines catch."""


class Forward(NamedTuple):
    """One forward of a denoiser, for one image, on the CPU."""

    name: str
    """Of the denoiser."""
    glimpse: Tensor | None
    """The first numbers of its input, by which to know it again; (blocks of guidance, numbers)."""
    device: torch.device
    output: Any


class Beginning:
    """Answers a pipeline's denoisers: computes and keeps what lies before `after`, and stops there."""

    record: Record

    def __init__(self, pipe: Any, after: float, images: int) -> None:
        self.scheduler, self.after, self.images = pipe.scheduler, after, images
        self.clocks = {name: Clock(root) for name, root in find_denoisers(pipe).items()}
        self.forwards: list[list[Forward]] = [[] for _ in range(images)]
        self.rows = 0

    def __call__(self, name: str, compute: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute a forward and keep it; Stop at the first that lies after."""
        part = self._part(self.clocks[name].time(args, kwargs), self.clocks[name])
        if part >= self.after - 1e-9:  # 3/10 is not before 0.3, whatever the last bit of either
            if not self.rows:
                raise ValueError(
                    f"symskew: screen found no step before after={self.after:g}: this generation begins at {part:g} of "
                    "its schedule, as image-to-image does; take a larger after."
                )
            raise Stop
        output = compute(*args, **kwargs)
        glimpses, device = _split(_glimpse(args, kwargs), self.images), _device(output)
        for kept, glimpse, own in zip(self.forwards, glimpses, _split(output, self.images), strict=True):
            kept.append(Forward(name, glimpse, device, own))
        self.rows += _rows(output)
        return output

    def _part(self, time: Any, clock: Clock) -> float:
        steps = listed(self.scheduler.timesteps)
        place = None if time is None else clock.place(time, steps, self.scheduler)
        if place is None:
            given = "no timestep" if time is None else f"timestep {clock_time(time):g}, which is not in the schedule"
            raise ValueError(
                f"symskew: screen cannot tell how far this generation is: its denoiser was given {given} of "
                f"{type(self.scheduler).__name__}."
            )
        return place / len(steps)


class Ending:
    """Answers a pipeline's denoisers: by what was kept of these images while there is any, then computes."""

    def __init__(self, images: Sequence[list[Forward]]) -> None:
        self.waiting = iter(list(zip(*images, strict=True)))
        self.rows = 0

    def __call__(self, name: str, compute: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What was kept of this forward; RuntimeError where it is not the same one."""
        kept = next(self.waiting, None)
        if kept is None:
            output = compute(*args, **kwargs)
            self.rows += _rows(output)
            return output
        before = _join([each.glimpse for each in kept], torch.device("cpu"))
        if kept[0].name != name or not _alike(before, _glimpse(args, kwargs)):
            raise RuntimeError(
                "symskew: called again with the same seeds, the pipeline gave its denoiser something else, so what was "
                "begun cannot be finished: it does not draw all of its noise from generator=, changes between calls, "
                "or mixes the images of its batch (then batch=1 helps)."
            )
        return _join([each.output for each in kept], kept[0].device)


@contextmanager
def answering(pipe: Any, answer: Callable[..., Any]) -> Iterator[None]:
    """Have `answer(name, compute, args, kwargs)` stand between a pipeline and its denoisers, and undo all traces."""
    with ExitStack() as stack:
        for name in find_denoisers(pipe):
            denoiser = getattr(pipe, name)
            stack.callback(_restore_processors, _processors(denoiser))
            stack.enter_context(_called_through(denoiser, functools.partial(answer, name)))
        try:
            yield
        except BaseException:
            # What a pipeline does at the end of its call, where its parts take turns on the device.
            getattr(pipe, "maybe_free_model_hooks", lambda: None)()
            raise


@contextmanager
def _called_through(module: nn.Module, answer: Callable[..., Any]) -> Iterator[None]:
    # Where torch puts compiled calls. `forward` is no place to stand: offloading wraps it anew after each image, and
    # compiled code would have to be compiled again.
    slot = "_compiled_call_impl"
    before = vars(module).get(slot)
    compute = before or module._call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        return answer(compute, args, kwargs)

    vars(module)[slot] = call
    try:
        yield
    finally:
        vars(module).pop(slot)
        if before is not None:
            vars(module)[slot] = before


def _processors(denoiser: nn.Module) -> list[tuple[Any, Any]]:
    return [(module, module.processor) for module in denoiser.modules() if hasattr(module, "set_processor")]


def _restore_processors(known: Iterable[tuple[Any, Any]]) -> None:
    # Perturbed attention guidance swaps them for the length of a call.
    for module, processor in known:
        if module.processor is not processor:
            module.set_processor(processor)


def _split(value: Any, images: int) -> list[Any]:
    """The part of each image, on the CPU; the batch is made of blocks, each of all images."""
    if isinstance(value, tuple):
        return list(zip(*(_split(part, images) for part in value), strict=True))
    if isinstance(value, Mapping):  # the output classes of diffusers
        parts = [_split(part, images) for part in value.values()]
        return [type(value)(**dict(zip(value, own, strict=True))) for own in zip(*parts, strict=True)]  # type: ignore
    if not isinstance(value, (Tensor, list)):
        return [value] * images
    if len(value) % images:
        raise ValueError(
            f"symskew: screen cannot tell which image is whose: the denoiser works on {len(value)} rows for {images} "
            "images, and that is no multiple; take batch=1."
        )
    if isinstance(value, list):  # one tensor per row
        return [[row.detach().to("cpu", copy=True) for row in value[image::images]] for image in range(images)]
    return [own.detach().to("cpu", copy=True) for own in value.unflatten(0, (-1, images)).unbind(1)]


def _join(parts: Sequence[Any], device: torch.device) -> Any:
    """The inverse of `_split`."""
    one = parts[0]
    if isinstance(one, tuple):
        return tuple(_join(some, device) for some in zip(*parts, strict=True))
    if isinstance(one, Mapping):
        return type(one)(**{name: _join([part[name] for part in parts], device) for name in one})  # type: ignore
    if isinstance(one, list):
        return [row.to(device) for block in zip(*parts, strict=True) for row in block]
    return torch.stack(list(parts), 1).flatten(0, 1).to(device) if isinstance(one, Tensor) else one


def _first(value: Any) -> Any:
    while isinstance(value, (tuple, Mapping)):
        value = next(iter(value.values() if isinstance(value, Mapping) else value))
    return value


def _rows(output: Any) -> int:
    return len(_first(output))


def _device(output: Any) -> torch.device:
    first = _first(output)
    return (first[0] if isinstance(first, list) else first).device


def _glimpse(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    batch = batch_of(args, kwargs)
    return None if batch is None else batch.detach().flatten(1)[:, :16].float()


def _alike(before: Tensor | None, now: Tensor | None) -> bool:
    if before is None or now is None:
        return before is now
    # Other noise is nowhere near; guidance may round otherwise in a batch of another size.
    return before.shape == now.shape and torch.allclose(before, now.cpu(), rtol=1e-2, atol=1e-2, equal_nan=True)
