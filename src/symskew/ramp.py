"""Values that change along the way: with the steps of a run, from stage to stage of a model, with its depth."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

from torch import Tensor

STAGES = ("down", "mid", "up")
"""The parts of a model: by the block's name in a UNet, by thirds of the depth elsewhere."""

Shape = Literal["linear", "cosine"]
Over = Literal["steps", "depth"]


class Point:
    """Where in a model, and when in its run: what changing values are functions of.

    Args:
        progress: 0 at the first of the times that the sampler visits, 1 at the last, equal steps between; also a
            function that finds it out, called when it is asked for. Image-to-image at strength ½ begins at ½.
        stage: "down", "mid" or "up".
        depth: of the layer, strictly between 0 and 1, as `layers="0.2-0.6"` counts it.

    Raises:
        ValueError: out of range; or, when it is asked for, what is not known.

    >>> Point(progress=0.5, stage="mid").progress
    0.5
    """

    def __init__(
        self,
        progress: float | Callable[[], float] | None = None,
        stage: str | None = None,
        depth: float | None = None,
    ) -> None:
        for name, value in (("progress", progress), ("depth", depth)):
            if not (value is None or callable(value) or 0 <= value <= 1):
                raise ValueError(f"Point: {name} is between 0 and 1, got {value!r}")
        if stage not in (None, *STAGES):
            raise ValueError(f"Point: stage must be {', '.join(map(repr, STAGES))} or None, got {stage!r}")
        self._progress, self._stage, self._depth = progress, stage, depth

    @property
    def progress(self) -> float:
        """How far the run is."""
        return self._progress() if callable(self._progress) else self._known("progress", self._progress)

    @property
    def stage(self) -> str:
        """The part of the model."""
        return self._known("stage", self._stage)

    @property
    def depth(self) -> float:
        """How deep in the model."""
        return self._known("depth", self._depth)

    def _known(self, name: str, value: Any) -> Any:
        if value is None:
            raise ValueError(
                f"Circulation: alpha or beta depends on the {name}, which is not known here; give it, as in "
                "circulation.at(progress=0.5, stage='mid', depth=0.5)"
            )
        return value

    def __repr__(self) -> str:
        progress = "…" if callable(self._progress) else self._progress
        return f"Point(progress={progress!r}, stage={self._stage!r}, depth={self._depth!r})"


@dataclass(frozen=True, repr=False)
class Ramp:
    """A value that goes from `start` to `stop`, over the steps of a run or over the depth of a model.

        value       (1 − w) · start + w · stop        w = t ("linear"),  (1 − cos πt)/2 ("cosine")

    Over the steps t is the progress of `Point`: the first step has exactly `start`, the last exactly `stop`, and a
    window (`control(…, start=…, stop=…)`) cuts the ramp off where it ends, without squeezing it. Over the depth t is
    the layer's, so the first and last layers are half a layer short of the ends.

    Raises:
        ValueError: numbers that are not finite, or the same twice; an unknown shape or course.

    >>> calming = Ramp(2.0, 1.0)
    >>> [calming(Point(progress)) for progress in (0, 0.5, 1)]
    [2.0, 1.5, 1.0]
    >>> Ramp(2, 1, "cosine", over="depth")
    Ramp(2.0, 1.0, shape='cosine', over='depth')
    """

    start: float
    stop: float
    shape: Shape = "linear"
    over: Over = "steps"

    def __post_init__(self) -> None:
        for name in ("start", "stop"):
            # As plain floats: settings are written as JSON, and equal ones hash alike.
            object.__setattr__(self, name, _number(f"Ramp: {name}", getattr(self, name)))
        for name, choices in (("shape", Shape), ("over", Over)):
            if getattr(self, name) not in get_args(choices):
                known = " or ".join(map(repr, get_args(choices)))
                raise ValueError(f"Ramp: {name} must be {known}, got {getattr(self, name)!r}")
        if self.start == self.stop:
            raise ValueError(f"Ramp: start and stop are both {self.start:g}; give the number itself")

    def __call__(self, point: Point) -> float:
        """The value at a point."""
        t = point.progress if self.over == "steps" else point.depth
        weight = t if self.shape == "linear" else (1 - math.cos(math.pi * t)) / 2
        return (1 - weight) * self.start + weight * self.stop

    def to_dict(self) -> dict[str, Any]:
        """As plain values, without what is a default: `Ramp(**d)` gives it back."""
        known = {"shape": (self.shape, "linear"), "over": (self.over, "steps")}
        given = {name: value for name, (value, default) in known.items() if value != default}
        return {"start": self.start, "stop": self.stop, **given}

    def __repr__(self) -> str:
        start, stop, *rest = self.to_dict().items()
        return f"Ramp({start[1]!r}, {stop[1]!r}{''.join(f', {name}={value!r}' for name, value in rest)})"


Changing = Ramp | Mapping[str, Any] | Callable[[Point], float]
"""A value that changes: a ramp, one for each stage, or any function of a `Point`."""


def changes(value: object) -> bool:
    """Whether a value changes along the way; numbers and tensors do not."""
    return isinstance(value, Mapping) or callable(value)


def checked(name: str, value: Any) -> Any:
    """A changing value as it is kept: stages in their order, numbers as floats; ValueError for what is none."""
    if not isinstance(value, Mapping):
        return value if callable(value) else _number(f"Circulation: {name}", value)
    if not value or value.keys() - set(STAGES):
        got = ", ".join(map(str, value)) or "none"
        raise ValueError(f"Circulation: {name} takes a value for each of the stages {', '.join(STAGES)}, got {got}")
    if any(isinstance(part, Mapping) for part in value.values()):
        raise ValueError(f"Circulation: {name} takes a number or a ramp for each stage, got {value!r}")
    return {stage: checked(f"{name} of {stage}", value[stage]) for stage in STAGES if stage in value}


def numbers_in(value: Any) -> Iterator[float]:
    """The numbers between which a changing value stays, as far as they are known."""
    if isinstance(value, Mapping):
        for part in value.values():
            yield from numbers_in(part)
    elif isinstance(value, Ramp):
        yield from (value.start, value.stop)
    elif isinstance(value, Real):
        yield float(value)


def constant(value: Any) -> float | None:
    """The number that a value is wherever it is given; None where it differs, or is a tensor or a function."""
    if isinstance(value, Mapping):
        parts = {constant(part) for part in value.values()}
        return parts.pop() if len(parts) == 1 else None
    return float(value) if isinstance(value, (int, float)) else None  # torch 2.6 compiles no `int | float`


def over_steps(value: Any) -> bool:
    """Whether a value is known to change from step to step."""
    if isinstance(value, Mapping):
        return any(map(over_steps, value.values()))
    return isinstance(value, Ramp) and value.over == "steps"


def over_places(value: Any) -> bool:
    """Whether a value is known to be the same at every step."""
    if isinstance(value, Mapping):
        return all(map(over_places, value.values()))
    return value.over == "depth" if isinstance(value, Ramp) else not callable(value)


def by_layer(value: Any) -> bool:
    """Whether a value may differ between the layers of one forward."""
    return changes(value) and not (isinstance(value, Ramp) and value.over == "steps")


def resolve(name: str, value: Any, point: Point) -> float | Tensor:
    """What a value, changing or not, is at a point.

    Raises:
        ValueError: it depends on what is not known there, has none for the stage, or came to no finite number.
    """
    if isinstance(value, Mapping):
        if point.stage not in value:
            raise ValueError(
                f"Circulation: {name} has a value for {', '.join(value)}, but none for the stage {point.stage}; "
                "give one, or leave its layers out with layers="
            )
        return resolve(name, value[point.stage], point)
    return _number(f"Circulation: {name} at {point}", value(point)) if callable(value) else value


def plain(value: Any) -> Any:
    """A value as plain values for JSON; functions stay what they are."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {stage: plain(part) for stage, part in value.items()}
    return value.to_dict() if isinstance(value, Ramp) else value


def from_plain(value: Any) -> Any:
    """The inverse of `plain`, lists left as they are; also of `spell`, for values that people wrote."""
    if isinstance(value, str):
        return parse(value)
    if isinstance(value, Mapping) and not value.keys() & {"start", "stop"}:
        return {stage: _one_from_plain(part) for stage, part in value.items()}
    return _one_from_plain(value)


def parse(text: str) -> float | Ramp | dict[str, float | Ramp]:
    """A value as it is written in a command or a study.

    A number; a ramp as `2..1`, `2..1:cosine`, `2..1:depth` or `2..1:cosine:depth`; or one of these for each stage, as
    `down=1,mid=3,up=5..1`. Raises ValueError for anything else.

    >>> parse("2..1:cosine"), parse("down=1,up=5..1")
    (Ramp(2.0, 1.0, shape='cosine'), {'down': 1.0, 'up': Ramp(5.0, 1.0)})
    """
    if "=" in text:
        parts = [part.partition("=")[::2] for part in text.split(",")]
        if len({stage for stage, _ in parts}) < len(parts):
            raise ValueError(f"each stage has one value, got {text!r}")
        return {stage.strip(): _parse_one(value, text) for stage, value in parts}
    return _parse_one(text, text)


def spell(value: Any) -> str:
    """A value as `parse` reads it, given as it is or as plain values; tensors are an ellipsis.

    >>> spell({"down": 1, "up": {"start": 5, "stop": 1, "shape": "cosine"}})
    'down=1,up=5..1:cosine'
    """
    value = plain(value)
    if isinstance(value, Mapping) and value.keys() >= {"start", "stop"}:
        words = [str(value[name]) for name in ("shape", "over") if name in value]
        return ":".join([f"{spell(value['start'])}..{spell(value['stop'])}", *words])
    if isinstance(value, Mapping):
        return ",".join(f"{stage}={spell(part)}" for stage, part in value.items())
    return f"{value:g}" if isinstance(value, int | float) else "…"


def _one_from_plain(value: Any) -> Any:
    if isinstance(value, str):
        return _parse_one(value, value)
    if not isinstance(value, Mapping):
        return value
    if value.keys() - {"start", "stop", "shape", "over"} or not {"start", "stop"} <= value.keys():
        raise ValueError(f"Ramp: takes start and stop, and perhaps shape and over, got {', '.join(map(str, value))}")
    return Ramp(**value)


def _parse_one(text: str, whole: str) -> float | Ramp:
    match = re.fullmatch(r"(.+?)\.\.(.+?)(:cosine|:linear)?(:depth|:steps)?", text.strip())
    try:
        if not match:
            return float(text)
        start, stop = float(match[1]), float(match[2])
    except ValueError:
        raise ValueError(
            f"expected a number, a ramp such as 2..1, 2..1:cosine or 2..1:depth, or one of these for each stage as in "
            f"down=1,mid=3,up=5..1, got {whole!r}"
        ) from None
    shape, over = ((part or "")[1:] for part in match.groups()[2:])
    return Ramp(start, stop, shape or "linear", over or "steps")  # pyright: ignore[reportArgumentType]


def _number(what: str, value: object) -> float:
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{what} must be a finite number, got {value!r}")
    return number
