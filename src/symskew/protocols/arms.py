"""Which samples belong to which setting, prompt and seed: joined by what they are, never by where they stand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from symskew.protocols.contract import ROLES
from symskew.table import need

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = need("pandas", "study")


class Arm(NamedTuple):
    """The samples of one setting with seeds of one role, in order of their keys."""

    rows: np.ndarray
    """Places in the frame."""
    keys: np.ndarray
    """A number for each (prompt, seed): equal keys began from the same noise."""
    prompts: np.ndarray
    """A number for each prompt."""


class Gap(NamedTuple):
    """Samples that an arm should have and has not: of the prompts and seeds that its family was run with."""

    setting: str
    role: str
    prompts: str
    missing: int
    expected: int


class Arms:
    """A frame's samples by setting and role.

    Attributes:
        prompt_ids: of the prompts, by their numbers.
        seeds: how many different ones there are; a key is the prompt's number times this, plus the seed's.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        prompts, ids = pd.factorize(frame["prompt_id"])
        seeds, different = pd.factorize(frame["seed"])
        self.prompt_ids, self.seeds = np.asarray(ids, dtype=object), len(different)
        self._prompts = prompts.astype(np.int64)
        self._keys = self._prompts * self.seeds + seeds
        groups = frame.groupby(["setting_id", "role"], observed=True).indices
        self._arms = {key: self._ordered(rows) for key, rows in groups.items()}

    def arm(self, setting: str, role: str | None) -> Arm:
        """The samples of a setting with seeds of a role, or of all roles; none where there are none."""
        roles = ROLES if role is None else (role,)
        parts = [self._arms[setting, each].rows for each in roles if (setting, each) in self._arms]  # pyright: ignore[reportArgumentType]
        return self._ordered(np.concatenate(parts) if parts else np.empty(0, np.intp))

    def gaps(self, sets: np.ndarray, families: np.ndarray) -> Iterator[Gap]:
        """What is missing, given the set of prompts and the family of each sample.

        A plan is a product of prompts and seeds, but not the same for all: a family may be run on fewer of both.
        """
        parts: dict[tuple[str, str, str], dict[str, np.ndarray]] = {}
        for (setting, role), arm in self._arms.items():  # pyright: ignore[reportGeneralTypeIssues]
            for name in np.unique(sets[arm.rows].astype(str)):
                rows = arm.rows[sets[arm.rows] == name]
                parts.setdefault((role, str(name), str(families[rows[0]])), {})[setting] = self._keys[rows]
        for (role, name, _), arms in parts.items():
            keys = np.concatenate(list(arms.values()))
            expected = len(np.unique(keys // self.seeds)) * len(np.unique(keys % self.seeds))
            for setting, own in arms.items():
                if len(own) < expected:
                    yield Gap(setting, role, name, expected - len(own), expected)

    def _ordered(self, rows: np.ndarray) -> Arm:
        rows = rows[np.argsort(self._keys[rows], kind="stable")]
        return Arm(rows, self._keys[rows], self._prompts[rows])
