"""What claims are judged on: the tables of a study, and which of its metrics stands for what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from symskew.protocols.choices import deciding, diversity_metrics, heading
from symskew.protocols.compare import change
from symskew.protocols.evidence import Evidence, Reading
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import run
from symskew.protocols.rulings import Found, Ruling, together, with_p
from symskew.protocols.table import Cell, ResultTable
from symskew.statistics import Estimate

Rule = Callable[["World"], Ruling]
LOOKS = ("aesthetic", "realism")
"""Parts of names of metrics that judge how an image looks, whatever was asked for."""


class Claim(NamedTuple):
    """What the paper says, where, and how it is judged."""

    name: str
    text: str
    source: str
    judge: Callable[[World], Ruling]


def register(claims: list[Claim]) -> Callable[[str, str, str], Callable[[Rule], Rule]]:
    """A decorator of rules that adds the claims they judge to a list."""

    def claim(name: str, text: str, source: str) -> Callable[[Rule], Rule]:
        def add(judge: Rule) -> Rule:
            claims.append(Claim(name, text, source, judge))
            return judge

        return add

    return claim


@dataclass(frozen=True, eq=False)
class World:
    """Evidence, and what stands in it for the paper's metrics.

    Args:
        evidence: of the study.
        metric: stands for ImageReward: whether the image is what was asked for, and good.
        looks: stands for the Aesthetic Score: whether it is a good image, whatever was asked for.
        spread: stands for LPIPS diversity.
        family: of the settings that stand for the paper's sweep of α and β.
        negligible: below this share of the standard deviation between vanilla samples an effect counts as none; also
            the rank correlation below which there is none.
        heldout: prompts that claims about control are judged on, where settings of the family were run on them.
    """

    evidence: Evidence
    metric: str
    looks: str | None
    spread: str | None
    family: str
    negligible: float
    heldout: str

    @classmethod
    def of(
        cls,
        evidence: Evidence,
        *,
        metric: str | None = None,
        looks: str | None = None,
        diversity: str | None = None,
        family: str = "static",
        negligible: float = 0.05,
        heldout: str = "heldout",
    ) -> World:
        """With the metrics that there are."""
        found = [name for name in evidence.sample_metrics if any(part in name for part in LOOKS)]
        looks = deciding(evidence, looks) if looks else (found or [None])[0]
        spreads = diversity_metrics(evidence, None if diversity is None else [diversity])
        return cls(evidence, deciding(evidence, metric), looks, (spreads or [None])[0], family, negligible, heldout)

    @property
    def title(self) -> str:
        """What the deciding metric is called."""
        return heading(self.evidence, self.metric)

    @property
    def sign(self) -> int:
        """1 where more of the deciding metric is better."""
        return self.evidence.sign(self.metric)

    def need_looks(self) -> str:
        """The metric of looks, or MissingError."""
        if self.looks is None:
            raise MissingError(f"a metric of how images look (with {' or '.join(LOOKS)} in its name)", metrics="looks")
        return self.looks

    def need_spread(self) -> str:
        """The metric of diversity, or MissingError."""
        if self.spread is None:
            raise MissingError("a metric of diversity", metrics="diversity")
        return self.spread

    def table(self, name: str, evidence: Evidence | None = None, **options: Any) -> ResultTable:
        """The first table of a protocol."""
        return self.tables(name, evidence, **options)[0]

    def tables(self, name: str, evidence: Evidence | None = None, **options: Any) -> list[ResultTable]:
        """The tables of a protocol."""
        return run(name, evidence or self.evidence, **options)

    @cached_property
    def subject(self) -> Evidence:
        """What claims about control are judged on: held-out prompts, where settings of the family were run on these."""
        held = self.evidence.on(self.heldout) if self.heldout in self.evidence.prompt_sets else self.evidence
        return held if held.family(self.family) else self.evidence

    def slight(self, metric: str | Reading) -> float:
        """The size below which a change of a metric or measure counts as none."""
        values = self.evidence.values(metric)[self.evidence.arm(self.evidence.vanilla, None).rows]
        return self.negligible * float(np.nanstd(values)) if (~np.isnan(values)).any() else 0.0

    def slight_spread(self) -> float:
        """The same for diversity."""
        found = list(self.evidence.diversity(self.need_spread(), self.evidence.vanilla).values())
        return self.negligible * float(np.std(found)) if found else 0.0

    def changes(self, metric: str | Reading, arms: dict[str, tuple[str, str]], sign: int) -> list[Found]:
        """What changed from the second to the first of some settings, on all prompts and seeds that both have.

        p is adjusted over them. Raises MissingError where no two have prompts in common.
        """
        known = {what: change(self.evidence, metric, *each) for what, each in arms.items()}
        slight = self.slight(metric)
        found = [Found(each.estimate, sign, slight, what) for what, each in known.items() if each is not None]
        if not found:
            raise MissingError(f"the same prompts and seeds under both settings: {', '.join(arms)}", roles=["eval"])
        return together(found)

    def cells(
        self, table: ResultTable, column: str, sign: int, slight: float, what: str = "{setting}", **where: Cell
    ) -> list[Found]:
        """What a column of some rows found.

        Raises:
            MissingError: nothing.
        """
        found = [
            Found(with_p(cell), sign, slight, what.format(**record))
            for record in table.records(**where)
            if isinstance(cell := record[column], Estimate)
        ]
        if not found:
            raise MissingError(f"numbers in the column {column} of {table.name}")
        return found
