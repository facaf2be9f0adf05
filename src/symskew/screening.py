"""Many seeds begun, the most stable finished: `screen(pipe, "a red seven", seeds=64, keep=8).images`."""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from symskew.diagnose import diagnose
from symskew.layers import find_denoisers
from symskew.record import COLUMNS, Record
from symskew.resume import Beginning, Ending, Forward, Stop, answering
from symskew.schedule import Clock
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
    begun: dict[int, list[Forward]] = {}
    first, rest = 0, 0
    for some in _batches(drawn, batch):
        beginning = Beginning(pipe, after, len(some))
        with suppress(Stop), diagnose(pipe, **how) as beginning.record, answering(pipe, beginning):
            pipe(**_call(prompt, arguments, some))
            raise Stop  # a diagnosis that ends well refuses what is not finite; here it ranks last
        scores |= zip(some, _scored(beginning.record, measure, filters, len(some)), strict=True)
        first += beginning.rows
        begun |= zip(some, beginning.forwards, strict=True)
        begun = {seed: begun[seed] for seed in _ranked(scores, largest)[:keep]}
    _warn(name, scores)

    images: dict[int, Any] = {}
    for some in _batches([seed for seed in drawn if seed in begun], batch):
        ending = Ending([begun[seed] for seed in some])
        with answering(pipe, ending):
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
