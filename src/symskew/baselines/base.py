"""What every baseline is: settings that can be written down, and a way to put them on a pipeline and off again."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import MISSING, fields
from typing import Any, ClassVar, NamedTuple

from symskew import ramp
from symskew.circulation import Circulation
from symskew.selection import Selector


class Attached(NamedTuple):
    """A baseline at work."""

    pipe: Any
    """The pipeline to call: the one that was given, or another around the same models."""
    arguments: dict[str, Any]
    """What to call it with, beside one's own arguments."""


class Baseline(ABC):
    """Another method that changes what an unmodified pipeline generates; subclasses are frozen dataclasses.

    Example:
        >>> baseline = Baseline.from_dict({"name": "seg", "scale": 3})
        >>> baseline
        SEG(scale=3.0, sigma=inf, layers='mid')
        >>> with baseline.attach(pipe) as (pipe_, arguments):                          # doctest: +SKIP
        ...     image = pipe_("a red seven", **arguments).images[0]
    """

    name: ClassVar[str]
    """As it is written down."""
    passes: ClassVar[int]
    """Denoiser passes per step under classifier-free guidance, which alone takes 2; one less without guidance."""
    kinds: ClassVar[dict[str, type[Baseline]]] = {}
    """All there are, by name."""
    blind: ClassVar[bool] = False
    """Whether a diagnosis would measure something else than what this makes of a retrieval."""
    circulates: ClassVar[bool] = True
    """Whether a circulation may act at the same time."""

    def __init_subclass__(cls) -> None:
        Baseline.kinds[cls.name] = cls

    @property
    def alone(self) -> bool:
        """Whether an image would depend on what else is in its batch, so that it needs one of its own."""
        return False

    @property
    def window(self) -> tuple[float, float]:
        """The part of the schedule in which it acts, as `start` and `stop` of `symskew.control`."""
        return 0.0, 1.0

    @abstractmethod
    def check(self, pipe: Any) -> None:
        """Refuse a pipeline that this cannot be put on, before anything is generated.

        Raises:
            TypeError, ValueError: saying why.
        """

    @abstractmethod
    def attach(self, pipe: Any, seeds: Sequence[int] = (0,)) -> AbstractContextManager[Attached]:
        """Put it on a pipeline for the length of a `with` block, and restore the pipeline exactly.

        Args:
            pipe: an unmodified diffusers pipeline.
            seeds: of the images of the call, or one for all, for what draws random numbers of its own.

        Raises:
            TypeError, ValueError: as `check`.
            SilentControlError: it was without effect.
        """

    def to_dict(self) -> dict[str, Any]:
        """The name and the settings that differ from the defaults, as plain values: `from_dict` gives them back."""
        given = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}  # pyright: ignore[reportArgumentType]
        kept = {name: value for name, (value, default) in given.items() if default is MISSING or value != default}
        return {"name": self.name} | {name: _plain(value) for name, value in kept.items()}

    @staticmethod
    def from_dict(settings: dict[str, Any]) -> Baseline:
        """The inverse of `to_dict`.

        Raises:
            ValueError: no such baseline, or settings that it does not have or refuses.
        """
        values = dict(settings)
        kind = Baseline.kinds.get(values.pop("name", ""))
        if kind is None:
            known = ", ".join(sorted(Baseline.kinds))
            raise ValueError(f"there is no baseline {settings.get('name')!r}; there are {known}")
        known = {field.name: field for field in fields(kind)}  # pyright: ignore[reportArgumentType]
        needed = {name for name, field in known.items() if field.default is MISSING}
        if values.keys() - known.keys() or needed - values.keys():
            raise ValueError(
                f"the baseline {kind.name} takes {', '.join(known)} and needs {', '.join(sorted(needed))}, "
                f"got {', '.join(values) or 'none'}"
            )
        if isinstance(values.get("circulation"), dict):
            values["circulation"] = Circulation.from_dict(values["circulation"])
        return kind(**values)


def number(where: str, name: str, value: object, low: float = 0.0) -> float:
    """A finite number above `low`, as a float."""
    known = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(known) and known > low):
        raise ValueError(f"{where}: {name} must be a number above {low:g}, got {value!r}")
    return known


def hashable(selector: Selector) -> Any:
    """A selector of layers with tuples for lists, so that what holds it can be compared and hashed."""
    return tuple(map(hashable, selector)) if isinstance(selector, list | tuple) else selector  # pyright: ignore[reportArgumentType]


def _plain(value: Any) -> Any:
    if isinstance(value, Circulation):
        return value.to_dict()
    return [_plain(part) for part in value] if isinstance(value, tuple) else ramp.plain(value)
