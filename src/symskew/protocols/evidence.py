"""What a study found: frames joined by id, checked once, from which every table is made."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from symskew.protocols.arms import Arm, Arms
from symskew.protocols.contract import ROLES, check, sample_metrics
from symskew.protocols.needs import MissingError
from symskew.table import need

if TYPE_CHECKING:
    import pandas as pd

    from symskew.metrics.real import RealImages
else:
    pd = need("pandas", "study")


class Reading(NamedTuple):
    """A measure of the diagnosis, used like a metric: the mean over stages ("all") and branches ("both")."""

    measure: str
    stage: str = "all"
    branch: str = "both"


class Paired(NamedTuple):
    """The same prompts and seeds under two settings."""

    treated: np.ndarray
    baseline: np.ndarray
    prompts: np.ndarray
    dropped: tuple[int, int]
    """Samples without a partner, of the treated and of the baseline."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that was generated, scored and measured in a study.

    Args:
        frame: a row for each sample: ids, setting, prompt, seed, role, and a column of numbers for each metric of
            samples; NaN where a sample was not scored. Samples that failed are not there.
        settings: a row for each setting.
        measures: a row for each (sample, stage, branch) that was diagnosed.
        metrics: a row for each metric: title, direction, unit, kind ("sample", "pair" or "set").
        pairs: the diversity of each (setting, prompt, metric) over its eval seeds.
        features: gives the arrays of an extractor (None: the usual one) for some sample ids, a row for each id in their
            order; the one called "features", or else "embedding", is what distances are measured in.
        references: the same arrays of real images, by extractor.
        seeds: of the study, by role, whether used or not; those of the frame where they are not known.

    Raises:
        ValueError: columns missing, ids that occur twice or are unknown, a seed with two roles, infinite scores.
    """

    frame: pd.DataFrame
    settings: pd.DataFrame
    measures: pd.DataFrame
    metrics: pd.DataFrame
    pairs: pd.DataFrame
    features: Callable[[Sequence[str], str | None], Mapping[str, np.ndarray]] | None = None
    references: Mapping[str, RealImages] = field(default_factory=dict)
    seeds: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tables = {name: getattr(self, name) for name in ("frame", "settings", "measures", "metrics", "pairs")}
        check(tables)

    @cached_property
    def sample_metrics(self) -> list[str]:
        """The metrics that score single samples, in their order."""
        return sample_metrics(self.frame, self.metrics)

    @cached_property
    def pair_metrics(self) -> list[str]:
        """The metrics of diversity, in their order."""
        there = set(self.pairs["metric"])
        return [name for name in self.metrics.loc[self.metrics["kind"] == "pair", "metric"] if name in there]

    @cached_property
    def prompt_sets(self) -> list[str]:
        """The names of the sets of prompts."""
        return list(self.frame["prompts"].unique())

    @cached_property
    def seeds_by_role(self) -> Mapping[str, Sequence[int]]:
        """The seeds that are taken."""
        return self.seeds or {str(role): list(some.unique()) for role, some in self.frame.groupby("role")["seed"]}

    @cached_property
    def model(self) -> str:
        """The model of the study, as its settings say; empty where they do not."""
        return next((json.loads(text).get("model", "") for text in self.settings["json"] if text), "")

    @cached_property
    def vanilla(self) -> str:
        """The setting that everything is compared with: the one of the family "vanilla"."""
        found = self.family("vanilla")
        if len(found) != 1:
            names = ", ".join(map(self.label, found)) or "none"
            raise MissingError(f"exactly one setting of the family vanilla, but there is {names}", settings=["vanilla"])
        return found[0]

    def family(self, *names: str) -> list[str]:
        """The ids of the settings of some families that have samples, in the order of `settings`."""
        return [i for i in self.settings.loc[self.settings["family"].isin(names), "setting_id"] if i in self._present]

    def setting(self, setting_id: str) -> Any:
        """The row of a setting, a pandas Series."""
        return self._settings.loc[setting_id]

    def label(self, setting_id: str) -> str:
        """The readable name of a setting."""
        return str(self._settings.at[setting_id, "setting"])

    def named(self, name: str) -> str:
        """The id of a setting by its readable name or its id; ValueError, listing those there are."""
        if name in self._settings.index:
            return name
        found = self.settings.loc[self.settings["setting"] == name, "setting_id"]
        if found.empty:
            raise ValueError(f"symskew: no setting is called {name!r}; there are {', '.join(self.settings['setting'])}")
        return str(found.iloc[0])

    def title(self, metric: str) -> str:
        """The readable name of a metric."""
        return str(self._metrics.at[metric, "title"])

    def sign(self, metric: str) -> int:
        """1 where higher is better, −1 where lower is."""
        return 1 if self._metrics.at[metric, "higher_is_better"] else -1

    def on(self, prompts: str | Iterable[str] | None) -> Evidence:
        """The evidence on some sets of prompts; all of it for None. ValueError for an unknown set."""
        if prompts is None:
            return self
        names = {prompts} if isinstance(prompts, str) else set(prompts)
        if unknown := names - set(self.prompt_sets):
            raise ValueError(f"symskew: no set of prompts {min(unknown)!r}; there are {', '.join(self.prompt_sets)}")
        if names == set(self.prompt_sets):
            return self

        return self.remember(("on", frozenset(names)), lambda: self._where(self.frame["prompts"].isin(names)))

    def only(self, settings: Iterable[str]) -> Evidence:
        """The evidence of some settings, by id, of vanilla, and of the null perturbation."""
        kept = {*settings, self.vanilla, *self.family("null")}
        return self.remember(("only", frozenset(kept)), lambda: self._where(self.frame["setting_id"].isin(kept)))

    def arm(self, setting: str, role: str | None = "eval") -> Arm:
        """The samples of a setting with seeds of a role, or of all roles."""
        return self._arms.arm(setting, role)

    def remember(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """What was computed before under this key, or is now: several tables rest on the same numbers."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def values(self, metric: str | Reading) -> np.ndarray:
        """A metric, or a measure, of every sample of the frame; NaN where it was not taken."""
        if isinstance(metric, str):
            return self.remember(metric, lambda: self.frame[metric].to_numpy(float))
        return self.remember(metric, lambda: self._measured(metric))

    def embedded(self, rows: np.ndarray, extractor: str | None = None) -> Mapping[str, np.ndarray]:
        """The arrays of the samples at some places of the frame, by default of the usual extractor.

        Raises:
            MissingError: the study kept no features.
        """
        if self.features is None:
            raise MissingError("features of the images, which were not kept or not handed over")
        ids = self.frame["sample_id"].to_numpy(object)[rows].tolist()
        found = self.features(ids, extractor)
        for name, array in found.items():
            if len(array) != len(ids):
                raise ValueError(f"Evidence: features gave {len(array)} rows of {name} for {len(ids)} samples")
        return found

    def scores(self, metric: str | Reading, setting: str, role: str | None = "eval") -> tuple[np.ndarray, np.ndarray]:
        """The scores of a setting, and the number of each one's prompt; samples that were not scored left out."""
        arm = self.arm(setting, role)
        values = self.values(metric)[arm.rows]
        there = ~np.isnan(values)
        return values[there], arm.prompts[there]

    def by_prompt(self, metric: str | Reading, setting: str, role: str = "eval") -> dict[str, np.ndarray]:
        """The scores of a setting, an array for each prompt id."""
        return self.grouped(*self.scores(metric, setting, role))

    def grouped(self, values: np.ndarray, prompts: np.ndarray) -> dict[str, np.ndarray]:
        """Values by prompt id, given the number of each one's prompt."""
        order = np.argsort(prompts, kind="stable")
        numbers, starts = np.unique(prompts[order], return_index=True)
        names = self._arms.prompt_ids[numbers]
        return dict(zip(names, np.split(values[order], starts[1:]), strict=True)) if len(numbers) else {}

    def matched(self, *settings: str, role: str = "eval") -> tuple[list[np.ndarray], np.ndarray]:
        """The samples of several settings that began from the same prompts and noise.

        Returns:
            Of each setting the places in the frame, in one order; and the numbers of their prompts.
        """
        arms = [self.arm(setting, role) for setting in settings]
        keys = reduce(np.intersect1d, [arm.keys for arm in arms])
        return [arm.rows[np.searchsorted(arm.keys, keys)] for arm in arms], keys // self._arms.seeds

    def paired(self, metric: str | Reading, treated: str, baseline: str | None = None) -> Paired:
        """The scores of two settings (the second is vanilla by default) from the same prompts and noise, eval seeds."""
        settings = (treated, baseline or self.vanilla)
        rows, prompts = self.matched(*settings)
        values = self.values(metric)
        after, before = (values[each] for each in rows)
        both = ~(np.isnan(after) | np.isnan(before))
        scored = (int((~np.isnan(values[self.arm(setting).rows])).sum()) for setting in settings)
        dropped = tuple(count - int(both.sum()) for count in scored)
        return Paired(after[both], before[both], prompts[both], (dropped[0], dropped[1]))

    def diversity(self, metric: str, setting: str) -> dict[str, float]:
        """The diversity of a setting by prompt id, not where it is `unlike`: more seeds would be more diverse."""
        found = self._pairs.get((setting, metric))
        apart = self.unlike(setting)
        return {} if found is None else {name: x for name, x in zip(*found, strict=True) if name not in apart}

    def unlike(self, setting: str) -> set[str]:
        """The ids of a setting's prompts on which vanilla has eval seeds too, but not the same."""
        if not self.family("vanilla"):  # which a study that is not finished may lack
            return set()
        own, vanilla = self.arm(setting), self.arm(self.vanilla)
        alone = np.setxor1d(own.keys, vanilla.keys) // self._arms.seeds
        both = np.intersect1d(own.prompts, vanilla.prompts)
        return set(self._arms.prompt_ids[np.intersect1d(alone, both)])

    def gaps(self, settings: Iterable[str] | None = None, roles: Sequence[str] = ROLES) -> list[str]:
        """What is missing, a sentence for each arm: samples of the prompts and seeds that its family was run with."""
        wanted = self._present if settings is None else set(settings)
        return [
            f"{self.label(gap.setting)}, {gap.prompts}, {gap.role}: {gap.missing} of {gap.expected} samples missing"
            for gap in self._arms.gaps(self.frame["prompts"].to_numpy(), self.frame["family"].to_numpy())
            if gap.setting in wanted and gap.role in roles
        ]

    def _where(self, kept: Any) -> Evidence:
        frame, kept = self.frame.loc[kept], np.asarray(kept)
        measures = self.measures[kept[self._measure_rows]] if len(self.measures) else self.measures
        pairs = self.pairs["prompt_id"].isin(set(frame["prompt_id"]))
        pairs &= self.pairs["setting_id"].isin(set(frame["setting_id"]))
        return replace(self, frame=frame, measures=measures, pairs=self.pairs[pairs])

    @cached_property
    def _settings(self) -> Any:
        return self.settings.set_index("setting_id")

    @cached_property
    def _metrics(self) -> Any:
        return self.metrics.set_index("metric")

    @cached_property
    def _present(self) -> set[str]:
        return set(self.frame["setting_id"])

    @cached_property
    def _known(self) -> dict[Hashable, Any]:
        return {}

    @cached_property
    def _arms(self) -> Arms:
        return Arms(self.frame)

    @cached_property
    def _pairs(self) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
        there = self.pairs.dropna(subset=["value"])
        prompts, values = there["prompt_id"].to_numpy(object), there["value"].to_numpy(float)
        groups = there.groupby(["setting_id", "metric"], observed=True).indices
        return {(str(s), str(m)): (prompts[rows], values[rows]) for (s, m), rows in groups.items()}  # pyright: ignore

    @cached_property
    def _measure_rows(self) -> np.ndarray:
        """Of each row of measures, the place of its sample in the frame."""
        return pd.Index(self.frame["sample_id"]).get_indexer(pd.Index(self.measures["sample_id"]))

    def _measured(self, reading: Reading) -> np.ndarray:
        found = np.ones(len(self.measures), bool)
        for column, wanted, every in (("branch", reading.branch, "both"), ("stage", reading.stage, "all")):
            if wanted != every:
                found &= np.asarray(self.measures[column] == wanted, bool)
        rows = self._measure_rows[found]
        sums = np.bincount(rows, np.asarray(self.measures[reading.measure], float)[found], len(self.frame))
        counts = np.bincount(rows, minlength=len(self.frame))
        return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
