"""A study as it is written down: which prompts, which seeds, which settings, and which of them together."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from symskew.study.setting import Setting, expand
from symskew.study.sources import PromptSet, read_prompts, read_seeds, shown

ROLES = ("select", "eval", "placebo")
"""What a seed is for: choosing prompts by vanilla images, comparing settings, or drawing vanilla once more."""
MOST_SAMPLES = 100_000_000
_COMMON = ("steps", "guidance", "negative", "size", "arguments")


@dataclass(frozen=True)
class Run:
    """Some prompts, with some seeds, under some settings.

    Attributes:
        prompts: name of a set.
        roles: whose seeds.
        settings: names of settings or of families of them.
        limit: only the first prompts of the set.
        each: only the first seeds of each role.
        diagnose: settings of `symskew.diagnose` to measure these samples with; None for not.
    """

    prompts: str
    roles: tuple[str, ...]
    settings: tuple[str, ...]
    limit: int | None = None
    each: int | None = None
    diagnose: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Study:
    """Prompts × seeds × settings, and what is to be measured of the images.

    Attributes:
        name: of the study.
        model: as for `symskew.models.load_model`.
        dtype: likewise.
        prompts: sets of prompts by name; no prompt is in two.
        seeds: by role, in `ROLES`; no seed has two.
        settings: by name, in the order they are run.
        runs: what is generated.
        metrics: ids of metrics, None for all that fit the model.
        weights: where the published weights of metrics are, by name: a file, a folder, or a hub id.
        chunk: samples of a unit of work, which is done as a whole.
        common: steps, guidance, negative, size and arguments where a setting has none of its own.
    """

    name: str
    model: str
    prompts: Mapping[str, PromptSet]
    seeds: Mapping[str, tuple[int, ...]]
    settings: Mapping[str, Setting]
    runs: tuple[Run, ...]
    dtype: str = "auto"
    metrics: tuple[str, ...] | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    chunk: int = 32
    common: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def read(cls, path: str | Path, captions: Path | None = None, *, stand_in: bool = False) -> Study:
        """From a YAML file; files of prompts that it names are beside it.

        Args:
            path: of the file.
            captions: COCO's file of captions, for sets of prompts that are chosen from it.
            stand_in: whether to go on without that file; such a study can be planned, and not be run.

        Raises:
            ValueError: it cannot be read, or what it says makes no sense, naming the place.
        """
        from symskew.study.written import read_yaml

        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        try:
            return cls.of(read_yaml(text), path.parent, name=path.stem, captions=captions, stand_in=stand_in)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def of(
        cls,
        written: Any,
        folder: Path = Path(),
        *,
        name: str = "study",
        captions: Path | None = None,
        stand_in: bool = False,
    ) -> Study:
        """From plain values, as YAML gives them; `folder` is where files of prompts are looked for.

        Raises:
            ValueError: naming what is wrong, where.

        >>> study = Study.of({"model": "ensemble-sdxl", "prompts": {"mine": ["a red three"]}, "seeds": {"eval": "0-3"},
        ...                   "settings": {"vanilla": {}, "static": {"alpha": [1.5, 2], "beta": 1}}})
        >>> list(study.settings)
        ['vanilla', 'static alpha=1.5', 'static alpha=2']
        """
        known = (
            "name",
            "model",
            "dtype",
            "prompts",
            "seeds",
            "settings",
            "runs",
            "metrics",
            "weights",
            "chunk",
            "sources",
            *_COMMON,
        )
        written = _mapping(written, "a study", known)
        for needed in ("model", "prompts", "settings"):
            if not written.get(needed):
                raise ValueError(f"a study needs {needed}")
        prompts = {
            key: read_prompts(key, value, folder, captions, stand_in=stand_in)
            for key, value in zip(
                _plain_names(_mapping(written["prompts"], "prompts")), written["prompts"].values(), strict=True
            )
        }
        for key, source in _mapping(written.get("sources") or {}, "sources", list(prompts)).items():
            prompts[key] = replace(prompts[key], source=_mapping(source, f"sources: {key}"))
        _unique(prompts)
        seeds = _seeds(written.get("seeds", {"eval": "0"}))
        settings: dict[str, Setting] = {}
        common = {key: written[key] for key in _COMMON if written.get(key) is not None}
        for family, knobs in _mapping(written["settings"], "settings").items():
            for setting in expand(_name(family), {} if knobs is None else knobs):
                if setting.name in settings:
                    raise ValueError(f"settings: {setting.name!r} is there twice")
                settings[setting.name] = setting
        everything = [{"prompts": list(prompts), "seeds": list(seeds), "settings": list(settings)}]
        runs = [run for each in written.get("runs") or everything for run in _runs(each, prompts, seeds, settings)]
        _countable(runs, prompts, seeds)
        chunk, metrics = written.get("chunk", 32), written.get("metrics")
        if not isinstance(chunk, int) or chunk < 1:
            raise ValueError(f"chunk must be a whole number of at least 1, got {chunk!r}")
        if metrics is not None and not (isinstance(metrics, list) and all(isinstance(each, str) for each in metrics)):
            raise ValueError(f"metrics must be a list of names, got {shown(metrics)}")
        weights = {
            str(key): _place(value, folder) for key, value in _mapping(written.get("weights") or {}, "weights").items()
        }
        [name] = _plain_names([written.get("name", name)])
        return cls(
            name, str(written["model"]), prompts, seeds, settings, tuple(runs),
            str(written.get("dtype", "auto")), None if metrics is None else tuple(metrics), weights, chunk, common,
            written,
        )  # fmt: skip

    def text(self) -> str:
        """As YAML that stands for itself: prompts that came from files or were drawn are in it.

        Raises:
            ValueError: prompts are missing.
        """
        import yaml

        for some in self.prompts.values():
            if some.lacking:
                raise ValueError(f"prompts: {some.name}: {some.lacking}")
        prompts = {name: list(some.texts) for name, some in self.prompts.items()}
        sources = {name: dict(some.source) for name, some in self.prompts.items() if some.source}
        plain = {"name": self.name, **self.written, "prompts": prompts}
        plain |= {key: value for key, value in (("sources", sources), ("weights", dict(self.weights))) if value}
        return yaml.safe_dump(plain, allow_unicode=True, sort_keys=False, width=1000)

    def role_of(self, seed: int) -> str:
        """What a seed is for."""
        return next(role for role, seeds in self.seeds.items() if seed in seeds)


def _place(written: Any, folder: Path) -> str:
    """A path, from the study's folder on if it is there; or a hub id."""
    path = folder / str(written)
    return str(path.absolute()) if path.exists() else str(written)


def _seeds(written: Any) -> dict[str, tuple[int, ...]]:
    found = {role: read_seeds(f"seeds: {role}", value) for role, value in _mapping(written, "seeds", ROLES).items()}
    for (one, first), (other, second) in itertools.combinations(found.items(), 2):
        if both := set(first) & set(second):
            raise ValueError(
                f"seeds: {min(both)} is both for {one} and for {other}; images that choose prompts must not also "
                "judge the settings, so each role needs seeds of its own"
            )
    if not any(found.values()):
        raise ValueError("seeds: there is none")
    return found


def _runs(
    written: Any, prompts: Mapping[str, Any], seeds: Mapping[str, Any], settings: Mapping[str, Setting]
) -> Iterator[Run]:
    written = _mapping(written, "a run", ("prompts", "seeds", "settings", "limit", "each", "diagnose"))
    families = {setting.family for setting in settings.values()}
    roles = _names(written.get("seeds", list(seeds)), seeds, "seeds of a run")
    named = _names(written.get("settings", list(settings)), {*settings, *families}, "settings of a run")
    chosen = [name for name, setting in settings.items() if name in named or setting.family in named]
    limit, each, diagnose = written.get("limit"), written.get("each"), written.get("diagnose")
    for what, number in (("limit", limit), ("each", each)):
        if number is not None and (not isinstance(number, int) or number < 1):
            raise ValueError(f"{what} of a run must be a whole number of at least 1, got {number!r}")
    if diagnose is not None and diagnose is not False:
        diagnose = {} if diagnose is True else dict(_mapping(diagnose, "diagnose", ("layers", "features", "states")))
        if diagnose.get("features") == "all":
            diagnose["features"] = None
    for name in _names(written.get("prompts", list(prompts)), prompts, "prompts of a run"):
        yield Run(name, tuple(roles), tuple(chosen), limit, each, None if diagnose is False else diagnose)


def _countable(runs: Sequence[Run], prompts: Mapping[str, PromptSet], seeds: Mapping[str, Sequence[int]]) -> None:
    samples = sum(
        len(prompts[run.prompts].texts[: run.limit]) * len(seeds[role][: run.each]) * len(run.settings)
        for run in runs
        for role in run.roles
    )
    if samples > MOST_SAMPLES:
        raise ValueError(f"this asks for {samples:,} samples, and a study can have {MOST_SAMPLES:,}; make several")


def _plain_names(names: Iterable[Any]) -> list[str]:
    """Names that files are named after."""
    found = [_name(name) for name in names]
    for name in found:
        if not re.fullmatch(r"[^\W_][\w.+-]*(?: [\w.+-]+)*", name) or len(name) > 100:
            raise ValueError(
                f"{shown(name)} cannot be a name: folders and files are named after it, so it begins with a letter or "
                "digit, followed by more of them, single spaces and . + - _"
            )
    return found


def _unique(sets: Mapping[str, PromptSet]) -> None:
    home: dict[str, str] = {}
    for name, some in sets.items():
        for text in some.texts:
            if home.setdefault(text, name) != name:
                raise ValueError(
                    f"prompts: {text!r} is both in {home[text]} and in {name}; what is tuned on one set must be tested "
                    "on another, so they must not share any"
                )


def _names(written: Any, known: Any, what: str) -> list[str]:
    names = [written] if isinstance(written, str) else written
    if not isinstance(names, Sequence) or not names:
        raise ValueError(f"{what}: expected a name or a list of names, got {shown(written)}")
    if list(names) == ["all"]:
        return list(known)
    names = [_name(name) for name in names]
    for name in names:
        if name not in known:
            raise ValueError(f"{what}: there is no {name!r}{_hint(name, known)}")
    return names


def _name(written: Any) -> str:
    """A name as it was meant: YAML reads a bare null as nothing."""
    return "null" if written is None else str(written)


def _mapping(written: Any, what: str, known: Sequence[str] | None = None) -> Mapping[str, Any]:
    if not isinstance(written, Mapping):
        raise ValueError(f"{what}: expected names with values, got {shown(written)}")
    for name in written:
        if known is not None and name not in known:
            raise ValueError(f"{what}: there is no {name!r}{_hint(name, known)}")
    return written


def _hint(name: object, known: Any) -> str:
    near = difflib.get_close_matches(str(name), [str(each) for each in known], n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(map(str, known))}"
