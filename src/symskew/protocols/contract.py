"""What the frames of a study must be like, checked before anything is computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

ROLES = ("select", "eval", "placebo")
"""What seeds are for: to choose prompts by, to compare settings on, to draw the vanilla model again."""
MEASURES = ("energy", "instability", "alignment", "symmetry")
STAGES = ("down", "mid", "up")
BRANCHES = ("conditional", "unconditional")

COLUMNS = {
    "frame": ("sample_id", "setting_id", "setting", "family", "prompts", "prompt_id", "prompt", "seed", "role"),
    "settings": ("setting_id", "setting", "family", "alpha", "beta", "guidance", "passes", "json"),
    "measures": ("sample_id", "stage", "branch", *MEASURES),
    "metrics": ("metric", "title", "higher_is_better", "unit", "kind"),
    "pairs": ("setting_id", "prompt_id", "metric", "value"),
}
KEYS = {
    "frame": [["sample_id"], ["setting_id", "prompt_id", "seed"]],
    "settings": [["setting_id"], ["setting"]],
    "measures": [["sample_id", "stage", "branch"]],
    "metrics": [["metric"]],
    "pairs": [["setting_id", "prompt_id", "metric"]],
}
KNOWN = [
    ("frame", "setting_id", "settings"),
    ("measures", "sample_id", "frame"),
    ("pairs", "setting_id", "settings"),
    ("pairs", "prompt_id", "frame"),
    ("pairs", "metric", "metrics"),
]
VALUES = [
    ("frame", "role", ROLES),
    ("measures", "stage", STAGES),
    ("measures", "branch", BRANCHES),
    ("metrics", "kind", ("sample", "pair", "set")),
]


def check(tables: Mapping[str, Any]) -> None:
    """Refuse tables that break the contract.

    Raises:
        ValueError: columns missing, ids that occur twice or are unknown, a seed with two roles, infinite scores.
    """
    for table, columns in COLUMNS.items():
        there = tables[table].columns
        if absent := [name for name in columns if name not in there]:
            raise ValueError(
                f"Evidence: {table} needs the column{'s' * (len(absent) > 1)} {', '.join(absent)}; "
                f"it has {', '.join(map(str, there)) or 'none'}"
            )
    if tables["frame"].empty:
        raise ValueError("Evidence: frame has no samples; none were generated yet, or all of them failed")
    for table, column, known in VALUES:
        _within(table, tables[table][column], known, f"where {', '.join(known)} are known")
    for table, several in KEYS.items():
        for key in several:
            _once(table, tables[table], key)
    for table, column, other in KNOWN:
        known = tables[other][column].unique()
        _within(table, tables[table][column], known, f"that {other} does not have")
    for columns, what in ((["prompts", "seed", "role"], "role"), (["prompt_id", "prompts"], "set of prompts")):
        *owner, _ = columns
        unique = tables["frame"][columns].drop_duplicates()
        if (twice := unique.duplicated(owner)).any():
            first = unique.loc[twice, owner].iloc[0].to_dict()
            several = ", ".join(f"{name} {value}" for name, value in first.items())
            raise ValueError(f"Evidence: frame has more than one {what} for {several}; they must not overlap")
    for metric in sample_metrics(tables["frame"], tables["metrics"]):
        if count := int(np.isinf(tables["frame"][metric].to_numpy(float)).sum()):
            raise ValueError(f"Evidence: {metric} is infinite for {count} samples; scores must be finite, or NaN")


def sample_metrics(frame: Any, metrics: Any) -> list[str]:
    """The metrics that score single samples and have a column in the frame, in their order."""
    return [name for name in metrics.loc[metrics["kind"] == "sample", "metric"] if name in frame.columns]


def _once(table: str, frame: Any, key: list[str]) -> None:
    twice = frame.duplicated(key)
    if twice.any():
        first = ", ".join(map(str, frame.loc[twice, key].iloc[0]))
        raise ValueError(
            f"Evidence: {table} has {int(twice.sum())} rows whose {', '.join(key)} occurred before, first {first}; "
            "a result is there once, or two runs were mixed"
        )


def _within(table: str, values: Any, known: Iterable[Any], why: str) -> None:
    strange = sorted(map(str, set(values.unique()) - set(known)))
    if strange:
        shown = ", ".join(strange[:3]) + (" …" if len(strange) > 3 else "")
        raise ValueError(f"Evidence: {table} has the {values.name} {shown}, {why}")
