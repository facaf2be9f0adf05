"""The paper's claims about what the measures of stability tell, without any control."""

from __future__ import annotations

from symskew.protocols.choices import MEASURED, heading
from symskew.protocols.evidence import Reading
from symskew.protocols.rulings import Found, Ruling, any_of, every
from symskew.protocols.selected import NAIVE
from symskew.protocols.strata import FAIR, SAME
from symskew.protocols.world import Claim, World, register

CLAIMS: list[Claim] = []
claim = register(CLAIMS)


def _correlations(world: World, metric: str, sign: int) -> list[Found]:
    """The measures of all stages with a metric: −energy and alignment on one side, instability on the other."""
    table = world.table("table-1")
    sides = {"energy": sign, "instability": -sign, "alignment": sign}
    return [
        found
        for measure, side in sides.items()
        for found in world.cells(
            table, "all", side, world.negligible, "{measure} with {metric}", metric=heading(world.evidence, metric),
            measure=MEASURED[measure],
        )
    ]  # fmt: skip


@claim("stable-looks", "More stable retrieval goes with better-looking images", "Table 1, Aesthetic, all blocks")
def _(world: World) -> Ruling:
    looks = world.need_looks()
    return every(_correlations(world, looks, world.evidence.sign(looks)))


@claim("stable-uniform", "More stable retrieval goes with less diversity", "Table 1, LPIPS, all blocks")
def _(world: World) -> Ruling:
    return every(_correlations(world, world.need_spread(), -1))


@claim(
    "depth", "With what was asked for, the sign of the correlation depends on the depth", "Table 1, CLIP and IR rows"
)
def _(world: World) -> Ruling:
    table = world.table("table-1")
    found = [
        each
        for place in ("down", "mid", "up")
        for each in world.cells(
            table, place, 1, world.negligible, f"alignment, {place}", metric=world.title, measure=MEASURED["alignment"]
        )
    ]
    # Of opposite signs if the highest is above 0 and the lowest below.
    ends = [max(found, key=lambda each: each.estimate.value), min(found, key=lambda each: each.estimate.value)]
    return every([ends[0], ends[1]._replace(sign=-1)])


@claim("stable-better", "Images with the highest alignment are better than those with the lowest", "Table 2, Figure 6")
def _(world: World) -> Ruling:
    table, column = world.table("table-2"), "highest − lowest"
    return any_of(
        world.cells(table, column, world.sign, world.slight(world.metric), SAME, metric=world.title, chosen=SAME)
    )


@claim(
    "stable-seeds",
    "Among the seeds of one prompt, the more stable are the better",
    "stricter than Table 1: no prompts in it",
)
def _(world: World) -> Ruling:
    within_prompts = world.tables("table-1")[1]
    return any_of(
        world.cells(
            within_prompts, "all", world.sign, world.negligible, "alignment within prompts", metric=world.title,
            measure=MEASURED["alignment"],
        )
    )  # fmt: skip


@claim("stable-prompts-uniform", "Prompts with high alignment are less diverse", "Section 4.2, on Table 2")
def _(world: World) -> Ruling:
    title = heading(world.evidence, world.need_spread())
    table = world.table("table-2")
    return any_of(world.cells(table, "highest − lowest", -1, world.slight_spread(), FAIR, metric=title, chosen=FAIR))


@claim("low-symmetry", "Bad images have a lower symmetry η than good ones", "Table 5")
def _(world: World) -> Ruling:
    table = world.table("table-5", metric=world.metric, families=world.family)
    slight = world.slight(Reading("symmetry"))
    return any_of(
        world.cells(
            table, "η vanilla", -1, slight, "lowest − highest, images by themselves", regime="lowest − highest",
            chosen=NAIVE,
        )
    )  # fmt: skip
