"""How different the images of a prompt are across seeds: computed once all of them are there, and kept."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from symskew import metrics
from symskew.models import find_device
from symskew.study.plan import unit_id
from symskew.study.scoring import group_id
from symskew.table import need

if TYPE_CHECKING:
    import pandas as pd

    from symskew.study.frames import Results


def pair_scores(results: Results) -> pd.DataFrame:
    """A row for each (setting_id, prompt_id, metric) of the eval seeds; see `Results.pairs`."""
    pandas, arrow = need("pandas", "study"), need("pyarrow", "study")
    known: Any = results.metrics[(results.metrics["kind"] == "pair") & results.metrics["extractor"].notna()]
    parts = [pandas.DataFrame({name: [] for name in ("setting_id", "prompt_id", "metric", "value")})]
    chosen: Any = results.frame[results.frame["role"] == "eval"]
    for extractor, some in known.groupby("extractor"):
        names = list(some["metric"])
        for setting, samples in chosen.groupby("setting_id"):
            where = ("pair_scores", group_id(names), str(setting), unit_id(list(samples["sample_id"])))
            if not results.store.has(*where):
                rows = _of_setting(results, samples, names, str(extractor))
                results.store.commit(arrow.Table.from_pandas(rows, preserve_index=False), *where)
            parts.append(results.store.read(*where).to_pandas())
    return pandas.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def _of_setting(results: Results, samples: pd.DataFrame, names: Sequence[str], extractor: str) -> pd.DataFrame:
    site = metrics.Site.of(results.study.weights, device=find_device())
    eye, rows = metrics.extractor(extractor, site), []
    for prompt, own in samples.groupby("prompt_id"):
        if len(own) < 2:
            continue
        ids = list(own["sample_id"])
        if eye.kept:
            features = results.features(ids, extractor)
        else:
            features = eye.extract([Image.open(io.BytesIO(results.images(key)), formats=("PNG",)) for key in ids])
        for metric in metrics.find(names):
            assert isinstance(metric, metrics.PairMetric)
            value = metric.score(features, own["prompt"].iloc[0])
            if value == value:
                rows.append((own["setting_id"].iloc[0], prompt, metric.id, value))
    return need("pandas", "study").DataFrame(rows, columns=["setting_id", "prompt_id", "metric", "value"])
