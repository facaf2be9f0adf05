"""What a table needs and a study has not: an error with the lines of YAML that would add it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from symskew import ensemble

SETTINGS = {
    "vanilla": "{}",
    "static": "{alpha: [0.7, 1.5, 2, 3], beta: [1, 3]}",
    "adaptive": "{alpha: [1.5, 2, 3], beta: [1, 3], adaptive: call}",
    "sym-only": "{method: sym-only}",
    "skew-only": "{method: skew-only}",
    "null": '{method: "null", alpha: [1.5, 2, 3], beta: [1, 3]}',
    "temperature": "{method: temperature, tau: [0.7, 0.8, 1.25, 1.5]}",
}
"""How the families that tables ask for are written in a study."""
SEEDS = {"select": range(2), "eval": range(2, 6), "placebo": range(6, 10)}
"""Of roles that tables ask for; as many others where a study uses some of them already."""

Scores = Literal["samples", "looks", "diversity", "sets"]
SHIPPED: dict[Scores, Sequence[str]] = {
    "samples": ["ensemble/log-likelihood"],
    "looks": ["ensemble/realism"],
    "diversity": ["ensemble/vendi"],
    "sets": ["ensemble/fd", "ensemble/kd"],
}
"""Metrics to begin with, by what they judge, for models of Ensemble: what images must show is known there alone."""
OTHERS: dict[Scores, Sequence[str]] = {
    "samples": ["imagereward"],
    "looks": ["aesthetic"],
    "diversity": ["dinov2-l/vendi"],
    "sets": ["dinov2-l/fd", "dinov2-l/kd"],
}
"""And for all other models."""


class MissingError(ValueError):
    """A study lacks what a table is made of.

    Args:
        what: is needed, as in "it needs …".
        settings: families that would have to be there.
        roles: of seeds.
        diagnosed: families whose samples would have to be diagnosed, with seeds of `roles`.
        prompts: sets of prompts that would have to be there.
        metrics: what would have to be judged.

    Attributes:
        table: that is made of it, once that is known.
        model: of the study, likewise: what it can be judged by.
        seeds: that it has by role, likewise: these roles are not asked for again, nor these seeds.
        families: of settings that it has, likewise.
    """

    def __init__(
        self,
        what: str,
        *,
        settings: Iterable[str] = (),
        roles: Sequence[str] = (),
        diagnosed: Sequence[str] = (),
        prompts: Iterable[str] = (),
        metrics: Scores | None = None,
    ) -> None:
        self.what, self.table, self.model = what, "", ""
        self.seeds: Mapping[str, Sequence[int]] = {}
        self.families: Collection[str] = ()
        self._prompts, self._settings, self._roles = list(prompts), dict.fromkeys([*settings, *diagnosed]), roles
        self._diagnosed = diagnosed
        self._metrics: Scores | None = metrics

    @property
    def lines(self) -> list[str]:
        """The lines of YAML."""
        parts = {
            "prompts": [f"{name}: {{file: {name}.txt}}" for name in self._prompts],
            "seeds": [f"{role}: {some[0]}-{some[-1]}" for role, some in self._fresh().items()],
            "settings": [
                f"{_key(family)}: {SETTINGS.get(family, '{alpha: [1.5, 2, 3], beta: 1}')}"
                for family in self._settings
                if family not in self.families
            ],
            "runs": [
                f"- {{prompts: all, seeds: [{', '.join(self._roles) or 'eval'}], "
                f"settings: [{', '.join(map(_key, self._diagnosed))}], diagnose: true}}"
            ]
            if self._diagnosed
            else [],
        }
        found = [line for name, some in parts.items() if some for line in (f"{name}:", *(f"  {x}" for x in some))]
        if self._metrics:
            known = (SHIPPED if self.model in ensemble.MODELS else OTHERS)[self._metrics]
            found += ["metrics:  # all there are: symskew metrics", *(f"  - {name}" for name in known)]
        return found

    def _fresh(self) -> dict[str, range]:
        """Seeds of the roles that the study has not, which nothing else uses."""
        used = {seed for some in self.seeds.values() for seed in some}
        found: dict[str, range] = {}
        for role in self._roles:
            if role not in self.seeds:
                usual = SEEDS[role]
                found[role] = range(max(used) + 1, max(used) + 1 + len(usual)) if used & set(usual) else usual
                used |= set(found[role])
        return found

    def __str__(self) -> str:
        head = f"{self.table or 'symskew'}: this needs {self.what}"
        return "\n".join([f"{head}. In the study's YAML:", *lines]) if (lines := self.lines) else head


def _key(name: str) -> str:
    """A name as YAML reads it back; a bare null would be nothing."""
    return f'"{name}"' if name == "null" else name
