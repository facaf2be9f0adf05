"""The paper's claims: does each hold on this model, does it not, or is it open?"""

from __future__ import annotations

from symskew.protocols import claims_control, claims_stability
from symskew.protocols.choices import heading, left_out
from symskew.protocols.compare import prompts_note
from symskew.protocols.evidence import Evidence
from symskew.protocols.needs import MissingError
from symskew.protocols.registry import protocol
from symskew.protocols.rulings import FAILS, HOLDS, OPEN, Ruling
from symskew.protocols.table import Cell, Column, ResultTable
from symskew.protocols.world import World

CLAIMS = (*claims_stability.CLAIMS, *claims_control.CLAIMS)


@protocol("claims", "each claim of the paper: holds, does not hold, or open, with the number that decides")
def claims(
    evidence: Evidence,
    *,
    metric: str | None = None,
    looks: str | None = None,
    diversity: str | None = None,
    family: str = "static",
    negligible: float = 0.05,
    heldout: str = "heldout",
) -> ResultTable:
    """Every claim with its verdict; arguments as of `World`. What was not measured stays open, saying what it needs."""
    world = World.of(
        evidence, metric=metric, looks=looks, diversity=diversity, family=family, negligible=negligible,
        heldout=heldout,
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for each in CLAIMS:
        try:
            ruling = each.judge(world)
        except MissingError as error:
            ruling = Ruling(OPEN, None, f"not measured: this needs {error.what}")
        rows.append((each.name, each.text, each.source, ruling.verdict, ruling.number, ruling.why))
    counts = {verdict: sum(row[3] == verdict for row in rows) for verdict in (HOLDS, FAILS, OPEN)}
    unmeasured = sum(str(row[5]).startswith("not measured") for row in rows)
    columns = (
        Column("claim"), Column("the paper says"), Column("where"), Column("verdict"), Column("number", sign=True),
        Column("decided by"),
    )  # fmt: skip
    roles = {"what was asked for": world.metric, "looks": world.looks, "diversity": world.spread}
    stand_ins = ", ".join(f"“{role}” is {heading(evidence, each)}" for role, each in roles.items() if each)
    subjects = ", ".join(map(evidence.label, world.subject.family(family))) or "nothing, for no such setting was run"
    return ResultTable(
        "claims", "The paper's claims on this model", columns, tuple(rows),
        f"Of {len(rows)} claims {counts[HOLDS]} hold, {counts[FAILS]} do not, and {counts[OPEN]} are open "
        f"({unmeasured} of them not measured).",
        "A claim holds if the deciding number's 95% interval lies on its side of 0 and p, adjusted by Holm's method "
        "over what it was found among, is below 0.05. It does not hold if the interval excludes any effect above "
        f"{negligible:g} (of a rank correlation, or of the standard deviation between vanilla samples). Else it is "
        f"open. Here {stand_ins}. What control does is judged on {subjects} (prompts: "
        f"{', '.join(world.subject.prompt_sets)}); two settings are held against each other on all prompts that both "
        "were run on.",
        (*left_out(evidence, world.subject.family(family), "Left out of claims that go by strength"),
         prompts_note(evidence)),
    )  # fmt: skip
