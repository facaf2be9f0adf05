"""Many seeds begun, the most stable finished: `screen(pipe, "a red seven", seeds=64, keep=8).images`."""

from __future__ import annotations

import functools
import inspect
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from symskew.diagnose import diagnose
from symskew.layers import find_denoisers
from symskew.record import COLUMNS, Record
from symskew.schedule import Clock, clock_time, listed
from symskew.selection import Selector
from symskew.vigilance import caches

STABLE = {"alignment": max, "energy": min, "instability": min, "symmetry": max, "skew_ratio": min}
"""The measures that may rank images, and the end at which they are stable."""


@dataclass(frozen=True, eq=False)
class Screening:
    """What `screen` found; printed as a few lines."""

    images: list[Any]
    """The finished images, best first, each as the pipeline gives it."""
    scores: dict[int, float]
    """The score of every seed, in the order they were given."""
    order: list[int]
    """All seeds, best first; those whose score is not finite come last."""
    measure: str
    largest: bool
    """Whether the largest score is the best."""
    denoised: int
    """What it took: rows of the denoiser's batch, summed over its forwards; guidance counts twice."""
    denoised_if_all: int
    """What finishing every seed would have taken."""
    denoised_if_random: int
    """What as many seeds taken at random would have."""

    @property
    def seeds(self) -> list[int]:
        """The seeds of the images."""
        return self.order[: len(self.images)]

    def __str__(self) -> str:
        end = "largest" if self.largest else "smallest"
        scored = [f"{seed} ({self.scores[seed]:.4g})" for seed in self.order]
        shown = scored if len(scored) < 6 else [*scored[:4], "…", scored[-1]]
        return (
            f"{len(self.images)} of {len(self.scores)} seeds finished, those of {end} {self.measure}\n"
            f"seeds from best to worst: {', '.join(shown)}\n"
            f"denoiser rows: {self.denoised} spent, {self.denoised / self.denoised_if_all:.0%} of the "
            f"{self.denoised_if_all} for all of them; {len(self.images)} at random take {self.denoised_if_random}"
        )


def screen(
    pipe: Any,
    prompt: str | None = None,
    *,
    seeds: int | Sequence[int] = 64,
    keep: int = 8,
    after: float = 0.3,
    measure: str | Callable[[Record], Tensor] = "alignment",
    largest: bool | None = None,
    layers: Selector = None,
    where: Mapping[str, Any] | None = None,
    batch: int = 8,
    **arguments: Any,
) -> Screening:
    """Begin many seeds of a prompt, rank them by how stable their retrieval is, and finish only the best.

    Every seed is run for the first part of the schedule, under `diagnose`, and broken off there. To finish the best,
    the pipeline is called again; what its denoiser gave in the first part is handed to it and not computed again. So
    the images are those of an ordinary call with these seeds, and within `control` the controlled ones, ranked by the
    controlled retrieval. They are the same bit for bit in batches of the same seeds, else as far as a batch's size
    changes the rounding; a control that adapts to the whole call needs batch=1. In memory there are, on the CPU, the
    denoiser's outputs for keep + batch seeds. What else a pipeline runs, text encoders, a ControlNet, is run again.

    Args:
        pipe: a diffusers pipeline; whatever sampler, guidance, offloading or compilation it has.
        prompt: one text; None for pipelines that are given `prompt_embeds=` instead.
        seeds: how many, for 0, 1, 2, …; or which. Each has a generator of its own, on the CPU.
        keep: how many to finish.
        after: the part of the schedule after which to rank, above 0; image-to-image at strength ½ begins at ½.
        measure: what to rank by: alignment, energy, instability, symmetry or skew_ratio, averaged as by
            `Record.scores`; or a function from the record of a batch to one number per image, (images,).
        largest: whether the largest is the best; by default the stable end of the measure, and True for a function.
        layers: which layers to measure, as for `control`.
        where: which rows of the record to average, as in `Record.mean`: `{"branch": "conditional", "step": range(3)}`.
        batch: images at a time.
        arguments: of the pipeline's call, unchanged, but for those about the prompt (`negative_prompt="…"`,
            `prompt_embeds` and masks of one row, lists of one item), which are repeated for every image of a batch.

    Returns:
        A `Screening`: the images, best first, the scores of all seeds, and what was spent.

    Raises:
        TypeError, ValueError: before anything is run, settings or a pipeline that cannot be used; in the first batch,
            no step before `after`, a filter that leaves nothing, outputs that cannot be told apart by image.
        FloatingPointError: the score of no seed is finite. Where some are not, a RuntimeWarning names them.
        RuntimeError: the pipeline did not repeat itself when called again, so that it cannot be continued.

        Whatever is raised, Ctrl-C included, the pipeline is left as it was; nothing is returned then.

    Example:
        >>> found = screen(pipe, "a red seven", seeds=64, keep=4, guidance_scale=5.0)  # doctest: +SKIP
        >>> print(found)                                                              # doctest: +SKIP
        4 of 64 seeds finished, those of largest alignment
        seeds from best to worst: 41 (0.6123), 3 (0.611), 17 (0.6094), 8 (0.6077), …, 22 (0.5482)
        denoiser rows: 2200 spent, 34% of the 6400 for all of them; 4 at random take 400
        >>> found.images[0].save(f"{found.seeds[0]}.png")                             # doctest: +SKIP
    """
    drawn = range(seeds) if isinstance(seeds, int) else list(seeds) if isinstance(seeds, Iterable) else [seeds]
    filters = dict(where or {})
    _check_pipe(pipe, arguments)
    _check(drawn, keep, after, measure, filters, batch)
    _call(prompt, arguments, drawn[:1])
    name = measure if isinstance(measure, str) else getattr(measure, "__name__", type(measure).__name__)
    if largest is None:
        largest = not isinstance(measure, str) or STABLE[measure] is max
    how: dict[str, Any] = {"layers": layers, "heads": "head" in filters}

    scores: dict[int, float] = {}
    begun: dict[int, list[_Forward]] = {}
    first, rest = 0, 0
    for some in _batches(drawn, batch):
        beginning = _Beginning(pipe, after, len(some))
        with suppress(_Stop), diagnose(pipe, **how) as beginning.record, _answering(pipe, beginning):
            pipe(**_call(prompt, arguments, some))
            raise _Stop  # a diagnosis that ends well refuses what is not finite; here it ranks last
        scores |= zip(some, _scored(beginning.record, measure, filters, len(some)), strict=True)
        first += beginning.rows
        begun |= zip(some, beginning.forwards, strict=True)
        begun = {seed: begun[seed] for seed in _ranked(scores, largest)[:keep]}
    _warn(name, scores)

    images: dict[int, Any] = {}
    for some in _batches([seed for seed in drawn if seed in begun], batch):
        ending = _Ending([begun[seed] for seed in some])
        with _answering(pipe, ending):
            made = list(pipe(**_call(prompt, arguments, some))[0])
        if len(made) != len(some):
            raise ValueError(f"symskew: screen makes one image of each seed, but of {len(some)} came {len(made)}.")
        images |= zip(some, made, strict=True)
        rest += ending.rows
    order = _ranked(scores, largest)
    each = first // len(drawn) + rest // keep
    return Screening(
        [images[seed] for seed in order[:keep]], scores, order, name, largest,
        denoised=first + rest, denoised_if_all=len(drawn) * each, denoised_if_random=keep * each,
    )  # fmt: skip


class _Stop(BaseException):
    """Breaks a generation off; nothing that pipelines catch."""


class _Forward(NamedTuple):
    """One forward of a denoiser, for one image, on the CPU."""

    name: str
    """Of the denoiser."""
    glimpse: Tensor | None
    """The first numbers of its input, by which to know it again; (blocks of guidance, numbers)."""
    device: torch.device
    output: Any


class _Beginning:
    """Answers a pipeline's denoisers: computes and keeps what lies before `after`, and stops there."""

    record: Record

    def __init__(self, pipe: Any, after: float, images: int) -> None:
        self.scheduler, self.after, self.images = pipe.scheduler, after, images
        self.clocks = {name: Clock(root) for name, root in find_denoisers(pipe).items()}
        self.forwards: list[list[_Forward]] = [[] for _ in range(images)]
        self.rows = 0

    def __call__(self, name: str, compute: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        part = self._part(self.clocks[name].time(args, kwargs), self.clocks[name])
        if part >= self.after - 1e-9:  # 3/10 is not before 0.3, whatever the last bit of either
            if not self.rows:
                raise ValueError(
                    f"symskew: screen found no step before after={self.after:g}: this generation begins at {part:g} of "
                    "its schedule, as image-to-image does; take a larger after."
                )
            raise _Stop
        output = compute(*args, **kwargs)
        glimpses, device = _split(_glimpse(args, kwargs), self.images), _device(output)
        for kept, glimpse, own in zip(self.forwards, glimpses, _split(output, self.images), strict=True):
            kept.append(_Forward(name, glimpse, device, own))
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


class _Ending:
    """Answers a pipeline's denoisers: by what was kept of these images while there is any, then computes."""

    def __init__(self, images: Sequence[list[_Forward]]) -> None:
        self.waiting = iter(list(zip(*images, strict=True)))
        self.rows = 0

    def __call__(self, name: str, compute: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
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
def _answering(pipe: Any, answer: Callable[..., Any]) -> Iterator[None]:
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
    batch = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.ndim > 1), None)
    return None if batch is None else batch.detach().flatten(1)[:, :16].float()


def _alike(before: Tensor | None, now: Tensor | None) -> bool:
    if before is None or now is None:
        return before is now
    # Other noise is nowhere near; guidance may round otherwise in a batch of another size.
    return before.shape == now.shape and torch.allclose(before, now.cpu(), rtol=1e-2, atol=1e-2, equal_nan=True)


def _call(prompt: str | None, arguments: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    """The arguments of the pipeline's call for these seeds."""
    call = {**({} if prompt is None else {"prompt": prompt}), **arguments}
    call = {name: _repeated(name, value, len(seeds)) for name, value in call.items()}
    return {**call, "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds]}


def _repeated(name: str, value: Any, images: int) -> Any:
    if isinstance(value, str):
        return [value] * images if re.fullmatch(r"(negative_)?prompt(_\d+)?", name) else value
    if "prompt" not in name or not isinstance(value, (Tensor, list)):
        return value
    if len(value) != 1:
        raise ValueError(f"symskew: screen is for one prompt, but {name} has {len(value)} rows; give one.")
    return value * images if isinstance(value, list) else value.repeat_interleave(images, 0)


def _check_pipe(pipe: Any, arguments: Mapping[str, Any]) -> None:
    """Refuse what cannot be begun from seeds, broken off, or finished later."""
    kind = type(pipe).__name__
    if isinstance(pipe, nn.Module) or not callable(pipe):
        raise TypeError(f"symskew: screen runs a whole diffusers pipeline, got {kind}; give the pipeline itself.")
    roots = find_denoisers(pipe)
    timed = all(Clock(root).readable for root in roots.values())
    if not timed or not hasattr(getattr(pipe, "scheduler", None), "timesteps"):
        raise ValueError(
            f"symskew: screen needs a scheduler and a denoiser that takes its timesteps; {kind} lacks one."
        )
    accepted = inspect.signature(type(pipe).__call__).parameters.values()
    if not any(each.name == "generator" or each.kind is each.VAR_KEYWORD for each in accepted):
        raise ValueError(f"symskew: {kind} takes no generator=, so its noise cannot be chosen by a seed.")
    if any(caches(root) for root in roots.values()):
        raise ValueError(
            "symskew: a cache on the denoiser remembers earlier steps, which are not run again to finish an image; "
            "switch it off with disable_cache() before screen."
        )
    for name in ("generator", "latents"):
        if arguments.get(name) is not None:
            raise ValueError(f"symskew: screen draws the noise from its seeds; give seeds=[…] in place of {name}=.")
    for name, value in arguments.items():
        if re.fullmatch(r"num_\w+_per_prompt", name) and value != 1:
            raise ValueError(f"symskew: screen makes one image of each seed; more seeds in place of {name}={value}.")


def _check(
    seeds: Sequence[int], keep: int, after: float, measure: object, filters: Mapping[str, Any], batch: int
) -> None:
    """Refuse settings that mean nothing."""
    if not all(isinstance(seed, int) for seed in seeds):
        raise TypeError(f"symskew: seeds is a number of seeds or a list of whole numbers, got {list(seeds)!r}.")
    twice = [seed for seed, count in Counter(seeds).items() if count > 1]
    if twice:
        raise ValueError(f"symskew: each seed gives one image, but {', '.join(map(str, twice))} came more than once.")
    if not isinstance(keep, int) or not 1 <= keep <= len(seeds):
        raise ValueError(f"symskew: keep must be between 1 and the number of seeds, {len(seeds)}, got {keep!r}.")
    if not isinstance(after, (int, float)) or not 0 < after <= 1:
        raise ValueError(f"symskew: after is a part of the schedule, above 0 and at most 1, got {after!r}.")
    if not isinstance(batch, int) or batch < 1:
        raise ValueError(f"symskew: batch is a number of images of at least 1, got {batch!r}.")
    if not callable(measure) and measure not in STABLE:
        raise ValueError(
            f"symskew: measure must be one of {', '.join(STABLE)}, or a function from a Record to one number per "
            f"image, got {measure!r}."
        )
    if callable(measure) and filters:
        raise ValueError("symskew: where= is for measures by name; a function filters the record itself.")
    allowed = [name for name in COLUMNS if name not in ("generation", "sample")]  # those tell the images apart
    for name in filters:
        if name not in allowed:
            raise ValueError(f"symskew: where= cannot filter by {name!r}; there are {', '.join(allowed)}.")


def _scored(record: Record, measure: Any, filters: dict[str, Any], images: int) -> list[float]:
    named = isinstance(measure, str)
    scores = record.scores(measure, **filters) if named else torch.as_tensor(measure(record))
    if scores.shape != (images,):
        source = "the record of its batch, where batch=1 may help," if named else "the measure"
        raise ValueError(
            f"symskew: screen needs one score per image, ({images},), but {source} gave {tuple(scores.shape)}."
        )
    return scores.tolist()


def _ranked(scores: Mapping[int, float], largest: bool) -> list[int]:
    def key(seed: int) -> tuple[bool, float]:
        finite = math.isfinite(scores[seed])
        return not finite, (-scores[seed] if largest else scores[seed]) if finite else 0.0

    return sorted(scores, key=key)


def _warn(measure: str, scores: Mapping[int, float]) -> None:
    bad = [seed for seed, score in scores.items() if not math.isfinite(score)]
    if not bad:
        return
    names = ", ".join(map(str, bad[:8])) + (f" and {len(bad) - 8} more" if len(bad) > 8 else "")
    reason = "half precision overflowed, say; bfloat16 or float32 may help"
    if len(bad) == len(scores):
        raise FloatingPointError(f"symskew: the {measure} of no seed is finite, so none can be chosen: {reason}.")
    warnings.warn(
        f"symskew: the {measure} of these seeds is not finite, and they rank last: {names} ({reason}).",
        RuntimeWarning,
        stacklevel=3,
    )


def _batches(seeds: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (seeds[first : first + size] for first in range(0, len(seeds), size))
