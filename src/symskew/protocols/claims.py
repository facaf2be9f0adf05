"""The paper's claims: does each hold on this model, does it not, or is it open?"""

from __future__ import annotations

from symskew.protocols import claims_control, claims_stability
from symskew.protocols.choices import heading
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
    tuning: str = "tuning",
    heldout: str = "heldout",
) -> ResultTable:
    """Every claim with its verdict; arguments as of `World`. What was not measured stays open, saying what it needs."""
    world = World.of(
        evidence, metric=metric, looks=looks, diversity=diversity, family=family, negligible=negligible, tuning=tuning,
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
    stand_ins = f"“What was asked for” is {world.title}" + (
        f", “looks” {heading(evidence, world.looks)}" if world.looks else ""
    )
    stand_ins += f", diversity {heading(evidence, world.spread)}" if world.spread else ""
    return ResultTable(
        "claims", "The paper's claims on this model", columns, tuple(rows),
        f"Of {len(rows)} claims {counts[HOLDS]} hold, {counts[FAILS]} do not, and {counts[OPEN]} are open "
        f"({unmeasured} of them not measured).",
        "A claim holds if the deciding number's 95% interval lies on its side of 0 and p, adjusted by Holm's method "
        "over what it was found among, is below 0.05. It does not hold if the interval excludes any effect above "
        f"{negligible:g} (of a rank correlation, or of the standard deviation between vanilla samples). Else it is "
        f"open. {stand_ins}. "
        f"Claims about control are judged on: {', '.join(_subjects(world))}.",
        (prompts_note(evidence),),
    )  # fmt: skip


def _subjects(world: World) -> list[str]:
    try:
        return [world.evidence.label(each) for each in world.settings]
    except MissingError:
        return ["nothing, there is no such setting"]
