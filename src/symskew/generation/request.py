"""What is asked for: one image, all that changes it, and whether the model can do it."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from symskew.attach import control
from symskew.baselines import Baseline
from symskew.circulate import Circulation
from symskew.diagnose import diagnose
from symskew.layers import find_denoisers
from symskew.models import Model
from symskew.selection import Selector
from symskew.silence import SilentControlError, SilentProbeError

Plain = bool | int | float | str
OWN = re.compile(
    r"(negative_)?prompt\w*|num_inference_steps|guidance_scale|width|height|output_type|return_dict|callback\w*|"
    r"num_images_per_prompt"
)
"""Arguments of pipelines that a request has fields for, or that decide what comes back rather than what is shown."""


@dataclass(frozen=True)
class Request:
    """One image that is asked for. What is None is the model's own default.

    Args:
        prompt: what to show.
        seed: of its noise, which comes from a generator of its own on the CPU: neither the device nor other images
            have a part in it.
        circulation: the control; the identity by default.
        layers, start, stop: where and when to control, as for `control`.
        steps: of the sampler.
        guidance: the scale of classifier-free guidance.
        negative: what not to show.
        size: (width, height) in pixels.
        baseline: another method, in the place of the control or beside it.
        arguments: more numbers, words and switches for the pipeline's call, by name: a mapping, kept as sorted pairs.

    Example:
        >>> Request("a red three", seed=4, circulation=Circulation(1.2, 5), layers="up").layers
        'up'
    """

    prompt: str
    seed: int = 0
    circulation: Circulation = field(default_factory=Circulation)
    layers: Selector = None
    start: float = 0.0
    stop: float = 1.0
    steps: int | None = None
    guidance: float | None = None
    negative: str | None = None
    size: tuple[int, int] | None = None
    baseline: Baseline | None = None
    arguments: tuple[tuple[str, Plain], ...] | Mapping[str, Plain] = ()

    def __post_init__(self) -> None:
        if isinstance(self.layers, list):  # requests are compared and hashed
            object.__setattr__(self, "layers", tuple(self.layers))
        given = dict(self.arguments)
        for name, value in given.items():
            if not isinstance(name, str) or not isinstance(value, Plain):
                raise ValueError(f"arguments: expected names with numbers, words or switches, got {name}: {value!r}")
        object.__setattr__(self, "arguments", tuple(sorted(given.items())))


def complete(model: Model, request: Request) -> Request:
    """The request with the model's defaults filled in, so that it says all that changes the image."""
    accepted = arguments_of(model.pipe)
    own = dict(model.files.info.get("defaults", {}))

    def default(name: str, argument: str) -> Any:
        return own.get(name, accepted[argument].default if argument in accepted else None)

    arguments = {**own.get("arguments", {}), **dict(request.arguments)}
    kinds = _plain_arguments(model.pipe) if arguments else {}
    return replace(
        request,
        # One spelling for each setting, since its hash names the image.
        arguments={n: float(v) if kinds.get(n) == (float,) else v for n, v in arguments.items()},
        steps=request.steps if request.steps is not None else default("steps", "num_inference_steps"),
        guidance=request.guidance if request.guidance is not None else default("guidance", "guidance_scale"),
        size=request.size or _default_size(model.pipe),
    )


def check(model: Model, requests: Sequence[Request], diagnosis: Mapping[str, Any] | None = None) -> None:
    """Refuse what cannot be met before time is spent on it: requests, and the settings to diagnose them with.

    Raises:
        TypeError: settings that `symskew.diagnose` does not have, or a model of a kind that the baseline is not for.
        ValueError: those it refuses; an empty prompt, a seed, number of steps or size out of range, a layer pattern
            that matches nothing, a window without a step in it, an argument that the model's pipeline does not take, or
            a baseline that it cannot have, or not beside the control or diagnosis.
    """
    accepted = arguments_of(model.pipe)
    for request in {replace(request, prompt="", seed=0) for request in requests}:
        if not request.circulation.is_identity:
            # A control of nothing refuses what one of something would.
            where: dict[str, Any] = {"layers": request.layers, "start": request.start, "stop": request.stop}
            with suppress(SilentControlError), control(model.pipe, request.circulation, **where):
                pass
            _check_step_within(request.start, request.stop, request.steps, model)
        if not isinstance(request.steps, int) or request.steps < 1:
            raise ValueError(f"steps must be a whole number of at least 1, got {request.steps}")
        if request.guidance is not None and not math.isfinite(request.guidance):
            raise ValueError(f"guidance must be a finite number, got {request.guidance}")
        for name, value in (("guidance_scale", request.guidance), ("negative_prompt", request.negative)):
            if value is not None and name not in accepted:
                raise ValueError(f"{type(model.pipe).__name__} takes no {name}; leave it out")
        for name, value in dict(request.arguments).items():
            _check_argument(model, name, value)
        if request.baseline is not None:
            _check_baseline(model, request, request.baseline, diagnosis)
        multiple = int(getattr(model.pipe, "vae_scale_factor", 8))
        if request.size and any(side < multiple or side % multiple for side in request.size):
            width, height = request.size
            raise ValueError(f"width and height must be multiples of {multiple} for this model, got {width}x{height}")
    for request in requests:
        if not request.prompt.strip():
            raise ValueError("a prompt is empty")
        if not 0 <= request.seed < 2**63:
            raise ValueError(f"a seed must be between 0 and 2⁶³ − 1, got {request.seed}")
    if diagnosis is not None:
        # Likewise.
        with suppress(SilentProbeError), diagnose(model.pipe, **diagnosis):
            pass


def arguments_of(pipe: Any) -> Mapping[str, inspect.Parameter]:
    """The arguments a pipeline's call takes, by name."""
    return inspect.signature(type(pipe).__call__).parameters


def _check_argument(model: Model, name: str, value: Plain) -> None:
    kinds, pipeline = _plain_arguments(model.pipe), type(model.pipe).__name__
    if name not in kinds:
        near = difflib.get_close_matches(name, kinds, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(kinds) or 'none'}"
        raise ValueError(f"arguments: {pipeline} takes no {name} beside what a request has; {hint}")
    if type(value) not in kinds[name] or (isinstance(value, float) and not math.isfinite(value)):
        names = " or ".join(kind.__name__ for kind in kinds[name])
        raise ValueError(f"arguments: {name} of {pipeline} must be {names}, got {value!r}")


def _plain_arguments(pipe: Any) -> dict[str, tuple[type, ...]]:
    """The arguments of a pipeline's call that are numbers, words or switches, and which of these they are."""
    try:
        hints = get_type_hints(type(pipe).__call__)
    except NameError:  # of a class that is imported for type checkers only
        return {}
    found = {}
    for name in arguments_of(pipe):
        if not OWN.fullmatch(name) and name in hints:
            several = get_args(hints[name]) if get_origin(hints[name]) in (Union, UnionType) else (hints[name],)
            kinds = tuple(kind for kind in several if kind in get_args(Plain))
            found |= {name: kinds} if kinds else {}
    return found


def _check_baseline(model: Model, request: Request, baseline: Baseline, diagnosis: Mapping[str, Any] | None) -> None:
    baseline.check(model.pipe)
    _check_step_within(*baseline.window, request.steps, model)
    if not (baseline.circulates or request.circulation.is_identity):
        raise ValueError(f"the baseline {baseline.name} takes the place of a circulation; ask for one of the two")
    if baseline.blind and diagnosis is not None:
        raise ValueError(
            f"under the baseline {baseline.name} a diagnosis would not see what acts; leave one of them out"
        )


def _check_step_within(start: float, stop: float, steps: int | None, model: Model) -> None:
    # Samplers of a higher order visit more times than there are steps, where only the run can tell.
    steps, order = steps or 1, getattr(model.pipe.scheduler, "order", 1)
    if order == 1 and not any(start - 1e-9 <= i / steps < stop - 1e-9 for i in range(steps)):
        raise ValueError(
            f"no step lies between start={start:g} and stop={stop:g}: the {steps} steps begin at "
            f"multiples of {1 / steps:.3g}; widen the window or take more steps"
        )


def _default_size(pipe: Any) -> tuple[int, int]:
    sample = getattr(pipe, "default_sample_size", None)
    if sample is None:
        sample = getattr(next(iter(find_denoisers(pipe).values())), "config", {}).get("sample_size")
    if sample is None:
        raise ValueError(f"{type(pipe).__name__} does not say how large its images are; give a size")
    height, width = (sample, sample) if isinstance(sample, int) else sample
    scale = int(getattr(pipe, "vae_scale_factor", 8))
    return width * scale, height * scale
