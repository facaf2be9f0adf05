"""A study's results as pandas frames, joined by id: what every table is made from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from symskew import metrics
from symskew.study.definition import Study
from symskew.study.pairs import pair_scores
from symskew.study.run import describe_settings
from symskew.study.scorers import digests_in, metric_names
from symskew.study.scoring import check_weights, slug, unpack
from symskew.study.store import Store, read_file
from symskew.table import need

if TYPE_CHECKING:
    import pandas as pd

MEASURED = ("energy", "instability", "alignment", "symmetry")
BRANCHES = ("conditional", "unconditional")
OPEN = 2**28
"""Bytes of images that are kept for being asked for again."""


@dataclass(frozen=True, eq=False)
class Results:
    """What is in the folder of a study, read when it is asked for.

    Example:
        >>> results = Results.of("runs/mine")  # doctest: +SKIP
        >>> results.frame.groupby("setting")["ensemble/all-right"].mean()  # doctest: +SKIP
    """

    store: Store
    study: Study

    @classmethod
    def of(cls, folder: str | Path) -> Results:
        """The results in a folder.

        Raises:
            ValueError: it is no folder of a study.
        """
        store = Store(folder)
        if not (store.folder / "study.yaml").is_file():
            raise ValueError(f"{folder} is no folder of a study; symskew study run STUDY.yaml makes one")
        return cls(store, Study.read(store.folder / "study.yaml"))

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row for each sample, with its setting, prompt, seed and role, and a column for each metric of samples.

        Samples that the study does not ask for any more, or that are not scored yet, are left out.
        """
        pandas = need("pandas", "study")
        samples = self._read("samples", ["sample_id", "setting_id", "prompt_id", "seed", "image_sha256", "noise_sha256",
                                         "seconds"])  # fmt: skip
        names = self.settings.set_index("setting_id")[["setting", "family"]]
        prompts = pandas.DataFrame(
            [(prompt_id, text, name) for name, some in self.study.prompts.items() for prompt_id, text in some.ids()],
            columns=["prompt_id", "prompt", "prompts"],
        )
        roles = {seed: role for role, seeds in self.study.seeds.items() for seed in seeds}
        frame = samples.join(names, on="setting_id", how="inner").merge(prompts, on="prompt_id")
        frame["role"] = frame["seed"].map(roles)
        frame = frame.dropna(subset=["role"])
        if len(self.scores):
            wide = self.scores.pivot(index="sample_id", columns="metric_id", values="value")
            frame = frame.join(wide.astype(float), on="sample_id", how="inner")
        return frame.sort_values(["setting_id", "prompt_id", "seed"], ignore_index=True)

    @cached_property
    def settings(self) -> pd.DataFrame:
        """A row for each setting, with its knobs, and its cost in passes through the denoiser per step."""
        pandas = need("pandas", "study")
        known = {text["id"]: text for text in self.store.descriptions().values()}
        rows = []
        for name, (setting_id, description) in describe_settings(self.study, self.store).items():
            control = description.get("circulation") or description.get("baseline", {})  # a null has its circulation's
            # One number has a place in a column; what differs between samples, steps or layers has none.
            alpha, beta = (value if isinstance(value, int | float) else np.nan
                           for value in (control.get(each, 1.0) for each in ("alpha", "beta")))  # fmt: skip
            rows.append({
                "setting_id": setting_id, "setting": name, "family": self.study.settings[name].family,
                "alpha": alpha, "beta": beta, "guidance": description.get("guidance"),
                "passes": known[setting_id]["passes"], "json": json.dumps(description, sort_keys=True),
            })  # fmt: skip
        return pandas.DataFrame(rows)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """(sample_id, metric_id, value), long."""
        rows = self._read("scores", ["sample_id", "metric_id", "value"])
        # A unit is scored as a whole again where a sample of it was given up and is tried again.
        return rows.drop_duplicates(["sample_id", "metric_id"], ignore_index=True)

    @cached_property
    def measures(self) -> pd.DataFrame:
        """(sample_id, stage, branch) with energy, instability, alignment and symmetry: means over steps and layers.

        Of the retrieval that was used: the controlled one where a control acted. `states` says what was retrieved:
        input features, values, or both, some layers' one and some layers' the other.
        """
        return self._measures(["sample_id", "stage", "branch"])

    def layers(self) -> pd.DataFrame:
        """As `measures`, for each layer."""
        return self._measures(["sample_id", "stage", "layer", "branch"])

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """A row for each quantity that the study's metrics report; `weights` are those that it was scored with."""
        rows, used = metrics.describe(metric_names(self.study)), digests_in(self.store)
        for row in rows:
            [metric] = metrics.find([row["metric"]])
            if found := [f"{each.name} {used[each.name]}" for each in metrics.sources(metric) if each.name in used]:
                row["weights"] = ", ".join(found)
        return need("pandas", "study").DataFrame(rows)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """A row for each (setting_id, prompt_id, metric): how different the images of the eval seeds are.

        Computed once for the same samples, and kept. Prompts with a single image, or nothing to compare, are left out.
        """
        return pair_scores(self)

    def images(self, sample_id: str) -> bytes:
        """The PNG file of a sample."""
        return self._bytes(sample_id)

    def maps(self, sample_id: str) -> dict[str, dict[str, np.ndarray]]:
        """Where a sample's retrievals were in conflict and in agreement, by stage; empty if it was not diagnosed."""
        return self._maps.get(sample_id, {})

    def features(self, sample_ids: Sequence[str], extractor: str | None = None) -> dict[str, np.ndarray]:
        """What an extractor found in these samples, in this order; by default the one that most metrics use.

        Raises:
            ValueError: samples that it has not looked at.
        """
        found = self._features(extractor or self._usual)
        if missing := [key for key in sample_ids if key not in found[0]]:
            raise ValueError(f"{len(missing)} samples have no features yet, such as {missing[0]}; run the study again")
        rows = np.array([found[0][key] for key in sample_ids], dtype=np.intp)
        return {name: values[rows] for name, values in found[1].items()}

    @cached_property
    def has_features(self) -> bool:
        """Whether one of the study's metrics keeps features of the images."""
        return bool(self._kept)

    @cached_property
    def _usual(self) -> str:
        """The extractor that most metrics use, of those whose features are kept."""
        if not self.has_features:
            raise ValueError("none of the study's metrics keeps features of the images")
        return max(sorted(self._kept), key=self._kept.__getitem__)

    @cached_property
    def _kept(self) -> Counter[str]:
        """The extractors whose features are kept, and how many metrics use each."""
        return Counter(name for name in self.metrics["extractor"].dropna() if metrics.extractor(name).kept)

    def thresholds(self, measure: str, quantile: float, prompts: str) -> dict[str, float]:
        """For a `Gate`: per layer, what so large a part of the vanilla retrievals of these prompts falls short of.

        A retrieval is one call: a step, a branch, a sample; they must have been diagnosed with `states: value`,
        `features: all`, as gates measure them.

        Raises:
            ValueError: they have not.
        """
        pandas = need("pandas", "study")
        vanilla = (self.frame["family"] == "vanilla") & (self.frame["prompts"] == prompts)
        wanted, parts = set(self.frame["sample_id"][vanilla]), []
        for path in self.store.files("measures"):
            table = read_file(path, ["sample_id", "layer", "states", measure]).to_pandas()
            parts.append(table[table["sample_id"].isin(wanted) & (table["states"] == "value")])
        rows = pandas.concat(parts) if parts else pandas.DataFrame()
        if rows.empty:
            raise ValueError(
                f"no vanilla sample of the prompts {prompts!r} was diagnosed by its values; add to the study's runs: "
                f"{{prompts: {prompts}, settings: vanilla, diagnose: {{states: value, features: all}}}}"
            )
        found = rows.groupby(rows["layer"].astype(str), sort=False)[measure].quantile(quantile)
        return {str(layer): round(float(value), 4) for layer, value in found.items()}

    def ids(self, table: str) -> set[str]:
        """The samples that a table knows of."""
        parts = (read_file(path, ["sample_id"])["sample_id"] for path in self.store.files(table))
        return {key for part in parts for key in part.cast("string").to_pylist()}

    def _measures(self, by: list[str]) -> pd.DataFrame:
        pandas, arrow = need("pandas", "study"), need("pyarrow", "study")
        parts = []
        for path in self.store.files("measures"):
            table = read_file(path, [*by, "step", "states", "retrieval", *MEASURED])
            used = arrow.compute.equal(table["retrieval"].cast("string"), "controlled")
            if arrow.compute.any(used).as_py():
                table = table.filter(used)
            keys = [table[name].cast("string") for name in by]
            values = arrow.compute.equal(table["states"].cast("string"), "value").cast("int8")
            columns = [values, *(table[name] for name in MEASURED)]
            table = arrow.table([*keys, *columns], names=[*by, "states", *MEASURED])
            means = table.group_by(by).aggregate([(name, "mean") for name in ("states", *MEASURED)])
            parts.append(means.rename_columns([n.removesuffix("_mean") for n in means.column_names]))
        if not parts:
            return pandas.DataFrame({name: [] for name in [*by, "states", *MEASURED]})
        found = arrow.concat_tables(parts).to_pandas()
        found["states"] = found["states"].map(lambda share: {0.0: "input", 1.0: "value"}.get(share, "both"))
        known = found["sample_id"].isin(self.frame["sample_id"]) & found["branch"].isin(BRANCHES)
        return found[known].drop_duplicates(by).reset_index(drop=True)

    def _read(self, table: str, columns: list[str]) -> pd.DataFrame:
        pandas, arrow = need("pandas", "study"), need("pyarrow", "study")
        parts = [read_file(path, columns) for path in self.store.files(table)]
        if not parts:
            return pandas.DataFrame({name: [] for name in columns})
        plain = [arrow.table([_plain(part[name]) for name in columns], names=columns) for part in parts]
        return arrow.concat_tables(plain).to_pandas()

    @cached_property
    def _places(self) -> dict[str, tuple[Path, int]]:
        return {
            key: (path, place)
            for path in self.store.files("samples")
            for place, key in enumerate(read_file(path, ["sample_id"])["sample_id"].to_pylist())
        }

    def _bytes(self, sample_id: str) -> bytes:
        path, place = self._places[sample_id]
        if path not in self._open:
            self._open[path] = read_file(path, ["image"])["image"]
            while len(self._open) > 1 and sum(each.nbytes for each in self._open.values()) > OPEN:
                del self._open[next(iter(self._open))]
        return self._open[path][place].as_py()["bytes"]

    @cached_property
    def _open(self) -> dict[Path, Any]:
        """Columns of images that were read before: samples of one file are asked for in any order."""
        return {}

    @cached_property
    def _maps(self) -> dict[str, dict[str, dict[str, np.ndarray]]]:
        found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
        for path in self.store.files("maps"):
            for row in read_file(path).to_pylist():
                shape = row["height"], row["width"]
                maps = {name: np.array(row[name], np.float32).reshape(shape) for name in ("conflict", "agreement")}
                found.setdefault(row["sample_id"], {})[row["stage"]] = maps
        return found

    @cached_property
    def _known_features(self) -> dict[str, tuple[dict[str, int], dict[str, np.ndarray]]]:
        return {}

    def _features(self, extractor: str) -> tuple[dict[str, int], dict[str, np.ndarray]]:
        if extractor not in self._known_features:
            ids: list[str] = []
            parts: list[dict[str, np.ndarray]] = []
            known = digests_in(self.store)
            for path in self.store.files(f"features/{slug(extractor)}"):
                table = read_file(path)
                ids += table["sample_id"].to_pylist()
                check_weights(table, path, known)
                parts.append(unpack(table))
            arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
            self._known_features[extractor] = {key: row for row, key in enumerate(ids)}, arrays
        return self._known_features[extractor]


def _plain(column: Any) -> Any:
    return column.cast("string") if "dictionary" in str(column.type) else column
