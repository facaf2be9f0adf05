"""One way of generating: everything about an image but its prompt and its seed, and grids of these."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from symskew.baselines import Baseline
from symskew.circulation import Circulation
from symskew.generation import Request
from symskew.ramp import spell

_CONTROL = tuple(each.name for each in fields(Circulation) if each.name != "_")
_REQUEST = ("layers", "start", "stop", "steps", "guidance", "negative", "size", "arguments")
MOST_SETTINGS = 1000
_PRESETS = {"sym-only": Circulation.sym_only, "skew-only": Circulation.skew_only}


@dataclass(frozen=True)
class Setting:
    """A named setting of a family of them.

    Attributes:
        name: unique in its study.
        family: what it is one of: the name its grid was given.
        knobs: as they were written, grids resolved.
    """

    name: str
    family: str
    knobs: Mapping[str, Any] = field(default_factory=dict)

    def request(self, prompt: str, seed: int, common: Mapping[str, Any]) -> Request:
        """The request for one image.

        Raises:
            ValueError: naming the setting and what is wrong with it.
        """
        try:
            return _request(prompt, seed, {**common, **self.knobs})
        except (ValueError, TypeError) as error:
            raise ValueError(f"settings: {self.name}: {error}") from error


def expand(family: str, written: Any) -> Iterator[Setting]:
    """The settings of a family: one for each combination of those knobs that are lists; or of several such grids.

    Raises:
        ValueError: naming the family and what is wrong.

    >>> [setting.name for setting in expand("static", {"alpha": [1.5, 2], "beta": [1, 3]})]
    ['static alpha=1.5 beta=1', 'static alpha=1.5 beta=3', 'static alpha=2 beta=1', 'static alpha=2 beta=3']
    >>> [setting.name for setting in expand("static", [{"alpha": 1.05, "beta": [5, 6]}, {"alpha": 1.1, "beta": 4}])]
    ['static alpha=1.05 beta=5', 'static alpha=1.05 beta=6', 'static alpha=1.1 beta=4']
    >>> [setting.name for setting in expand("ramp", {"alpha": [2, "2..1"], "beta": {"down": 1, "mid": 3, "up": 5}})]
    ['ramp alpha=2', 'ramp alpha=2..1']
    """
    several = [knobs for grid in (written if isinstance(written, list) else [written]) for knobs in _grid(family, grid)]
    for knobs in several:
        varied = [name for name in knobs if any(repr(other.get(name)) != repr(knobs[name]) for other in several)]
        name = " ".join([family, *(f"{knob}={_spelled(knobs[knob])}" for knob in varied)])
        setting = Setting(name, family, knobs)
        setting.request("", 0, {})  # refuses what makes no sense
        yield setting


def _spelled(value: Any) -> Any:
    return spell(value) if isinstance(value, Mapping) else value


def _grid(family: str, written: Any) -> list[dict[str, Any]]:
    """The combinations of one grid."""
    if not isinstance(written, Mapping):
        raise ValueError(f"settings: {family}: expected knobs with values, got {written!r}")
    knobs = dict(written)
    grids = {name: value for name, value in knobs.items() if isinstance(value, list) and name not in ("layers", "size")}
    if empty := [name for name, values in grids.items() if not values]:
        raise ValueError(f"settings: {family}: {empty[0]} has no value")
    if (count := math.prod(map(len, grids.values()))) > MOST_SETTINGS:
        raise ValueError(
            f"settings: {family}: this is a grid of {count:,} settings, and there can be {MOST_SETTINGS:,}"
        )
    return [knobs | dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())]


def _request(prompt: str, seed: int, knobs: dict[str, Any]) -> Request:
    # YAML reads a bare null as nothing: a null perturbation would be the very circulation that it controls for.
    method = knobs.pop("method") or "null" if "method" in knobs else None
    rest = {name: knobs.pop(name) for name in _REQUEST if name in knobs}
    if rest.get("layers") is not None:
        rest["layers"] = rest["layers"] if isinstance(rest["layers"], str) else tuple(rest["layers"])
    if rest.get("size") is not None:
        size = rest["size"]
        rest["size"] = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if method in Baseline.kinds:
        own = {each.name for each in fields(Baseline.kinds[method])}  # pyright: ignore[reportArgumentType]
        knobs |= {name: rest.pop(name) for name in list(rest) if name in own}
        return Request(prompt, seed, baseline=Baseline.from_dict({"name": method, **knobs}), **rest)
    if method in _PRESETS:
        circulation = _PRESETS[method](**knobs)
    elif method == "temperature":
        circulation = Circulation.temperature(**knobs)
    elif method is None:
        circulation = Circulation.from_dict(knobs)
    else:
        known = ", ".join([*_PRESETS, "temperature", *Baseline.kinds])
        raise ValueError(f"there is no method {method!r}; there are: {known}, and without one {', '.join(_CONTROL)}")
    return Request(prompt, seed, circulation, **rest)
