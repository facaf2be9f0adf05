"""The paper's claims about what circulation control does."""

from __future__ import annotations

import numpy as np

from symskew.protocols.adaptive import EXCESSIVE, MODERATE, pairs
from symskew.protocols.choices import heading, knobs, settings_of, strength
from symskew.protocols.compare import change
from symskew.protocols.distances import farther, measurable
from symskew.protocols.evidence import Reading
from symskew.protocols.needs import MissingError
from symskew.protocols.rulings import (
    HOLDS,
    Found,
    Ruling,
    any_of,
    consistently,
    difference,
    every,
    not_worse,
    together,
    within,
)
from symskew.protocols.selected import NAIVE
from symskew.protocols.world import Claim, World, register
from symskew.statistics import Estimate
from symskew.statistics.means import mean_of_prompts

KEPT = 0.05
"""A distribution metric is unchanged within this share of vanilla's."""
CLAIMS: list[Claim] = []
claim = register(CLAIMS)


def _adaptive(world: World, treated: str, baseline: str, sign: int, regime: str) -> list[Found]:
    """The change between two arms ("static", "adaptive" or "vanilla") of the moderate or excessive pairs of Table 6."""
    alike = [pair for pair in pairs(world.evidence, world.family) if pair.regime == regime]
    arms = [{"static": pair.static, "adaptive": pair.adaptive, "vanilla": world.evidence.vanilla} for pair in alike]
    several = {f"{world.evidence.label(each['adaptive'])}: {treated} − {baseline}": each for each in arms}
    return world.changes(
        world.metric, {what: (each[treated], each[baseline]) for what, each in several.items()}, sign * world.sign
    )


def _trend(world: World, metric: str, sign: int) -> Found:
    """How a metric goes with strength along the sweep: from no control to the strongest, by each prompt's slope."""
    evidence = world.evidence
    reach = {each: strength(evidence, each) for each in settings_of(evidence, world.family)}
    stirring = {each: far for each, far in reach.items() if (known := knobs(evidence, each)) and known[0] > 1}
    reach = {evidence.vanilla: 0.0, **stirring}
    if len(reach) < 3:
        raise MissingError("a sweep of several strengths", settings=[world.family])
    means = [{name: v.mean() for name, v in evidence.by_prompt(metric, each).items()} for each in reach]
    names = [name for name in means[0] if all(name in each for each in means)]
    if len(names) < 2:
        raise MissingError("the same prompts under all settings of the sweep", roles=["eval"])
    far = np.array(list(reach.values()))
    centred = (far - far.mean()) / ((far - far.mean()) ** 2).sum()
    slopes = centred @ np.array([[each[name] for name in names] for each in means]) * far.max()
    estimate = mean_of_prompts(slopes, len(names) * len(means), test=True)
    return Found(
        estimate, sign, world.slight(metric), f"trend of {heading(evidence, metric)} up to the strongest setting"
    )


@claim("trade-off", "Along the sweep images look better and are less what was asked for", "Table 3a, Section 6")
def _(world: World) -> Ruling:
    looks = world.need_looks()
    if looks == world.metric:
        raise MissingError("a metric of how images look besides that of what was asked for")
    sides = {looks: world.evidence.sign(looks), world.metric: -world.sign}
    return every(together([_trend(world, metric, sign) for metric, sign in sides.items()]))


@claim("moderate-gain", "There is a setting that improves images on average", "Table 3a, IR at α = 1.05, β = 5")
def _(world: World) -> Ruling:
    table = world.table("table-3a", world.subject, metrics=[world.metric], families=world.family, measures=False)
    return any_of(world.cells(table, "change", world.sign, world.slight(world.metric), metric=world.title))


@claim("worst-repaired", "The worst 20% improve, beyond what drawing again would bring", "Table 3b")
def _(world: World) -> Ruling:
    table = world.table("table-3b", world.subject, metrics=[world.metric], families=world.family)
    what = f"{{setting}}, fair; placebo {{fair placebo.value:+.3g}}, {NAIVE} {{{NAIVE}.value:+.3g}}"
    return any_of(world.cells(table, "fair", world.sign, world.slight(world.metric), what, chosen_by=world.title))


@claim("best-degraded", "The best 20% get worse, from what does not harm the worst", "Table 4")
def _(world: World) -> Ruling:
    options = {"metrics": [world.metric], "families": world.family}
    best, worst = (
        world.cells(
            world.table(name, world.subject, **options), "fair", -world.sign, world.slight(world.metric),
            "{setting}, fair", chosen_by=world.title,
        )
        for name in ("table-4", "table-3b")
    )  # fmt: skip
    # A setting that ruins the worst prompts too is no cost of repairing them.
    ruinous = {each.what for each in worst if each.verdict == HOLDS}
    if not (found := [each for each in best if each.what not in ruinous]):
        raise MissingError("a setting that does not make the worst prompts worse too", settings=[world.family])
    return any_of(found)


@claim(
    "state-dependent",
    "The same setting does more for the worst prompts than for the best",
    "Section 6, Tables 3b and 4",
)
def _(world: World) -> Ruling:
    options = {"metrics": [world.metric], "families": world.family}
    worst, best = (
        {record["setting"]: record["fair"] for record in world.table(name, world.subject, **options).records()}
        for name in ("table-3b", "table-4")
    )
    found = [
        Found(difference(one, other), world.sign, world.slight(world.metric), f"{name}, fair: worst − best")
        for name, one in worst.items()
        if isinstance(one, Estimate) and isinstance(other := best.get(name), Estimate)
    ]
    return any_of(together(found))


@claim("moderate-diversity", "Moderate circulation makes the images of a prompt more diverse", "Figure 1, Section 6")
def _(world: World) -> Ruling:
    title = heading(world.evidence, world.need_spread())
    table = world.table("field", world.subject, fidelity=world.metric, diversity=world.spread, families=[world.family])
    return any_of(world.cells(table, f"change of {title}", 1, world.slight_spread(), family=world.family))


@claim("control-lowers-stability", "Circulation lowers the measured stability", "Table 3a, rows −E, r, Align")
def _(world: World) -> Ruling:
    evidence = world.evidence
    far = {each: strength(evidence, each) for each in settings_of(evidence, world.family)}
    stirring = [each for each in far if (known := knobs(evidence, each)) and known[0] > 1]
    diagnosed = [each for each in stirring if change(evidence, Reading("alignment"), each)]
    if not diagnosed:
        raise MissingError(
            "diagnosed samples of vanilla and of a setting with α above 1", roles=["eval"],
            diagnosed=["vanilla", world.family],
        )  # fmt: skip
    most = max(diagnosed, key=lambda each: far[each])
    name, found = evidence.label(most), []
    for measure, sign in (("energy", 1), ("instability", 1), ("alignment", -1)):  # the energy rises
        found += world.changes(Reading(measure), {f"{measure}, {name}": (most, evidence.vanilla)}, sign)
    return every(together(found))


@claim("control-raises-symmetry", "Circulation raises η of bad images", "Table 5")
def _(world: World) -> Ruling:
    table = world.table("table-5", metric=world.metric, families=world.family)
    slight = world.slight(Reading("symmetry"))
    return any_of(world.cells(table, "change of η", 1, slight, "lowest regime, {chosen}", regime="lowest"))


@claim("excessive-harm", "Excessive static circulation makes images worse", "Figure 1, Table 6")
def _(world: World) -> Ruling:
    return any_of(_adaptive(world, "static", "vanilla", -1, EXCESSIVE))


@claim("adaptive-recovers", "Adaptive control recovers from what is excessive when static", "Table 6")
def _(world: World) -> Ruling:
    return any_of(_adaptive(world, "adaptive", "static", 1, EXCESSIVE))


@claim("adaptive-gains", "Adaptive control with excessive α and β is better than vanilla", "Table 6")
def _(world: World) -> Ruling:
    return any_of(_adaptive(world, "adaptive", "vanilla", 1, EXCESSIVE))


@claim("adaptive-keeps", "Adaptive control keeps the result of a moderate static setting", "Table 6")
def _(world: World) -> Ruling:
    found = _adaptive(world, "adaptive", "static", 1, MODERATE)
    return not_worse([each._replace(slight=2 * each.slight) for each in found])


@claim("sym-structure", "The symmetric part keeps the image's structure, the skew part does not", "Figure 3")
def _(world: World) -> Ruling:
    evidence = world.evidence
    sym, skew = (settings_of(evidence, family)[0] for family in ("sym-only", "skew-only"))
    found = world.changes(world.metric, {f"{world.title}, Sym-only − Skew-only": (sym, skew)}, world.sign)
    if measurable(evidence) and (apart := farther(evidence, sym, skew)):
        found.append(Found(apart, -1, 0.0, "distance from vanilla, Sym-only − Skew-only"))
    return every(together(found))


@claim("temperature-worse", "Temperature does worse than circulation of the same strength", "Section 6.2, Figure 9")
def _(world: World) -> Ruling:
    table = world.table("figure-9", families=world.family, metrics=[world.metric])
    if table.name != "figure-9":
        raise MissingError("features of the images, to match strengths by")
    return consistently(
        world.cells(
            table, "circulation − temperature", world.sign, world.slight(world.metric),
            "{circulation} − {temperature}", metric=world.title, matched="yes",
        )
    )  # fmt: skip


@claim("distribution-kept", "The distribution of images stays nearly as it was", "Table 8")
def _(world: World) -> Ruling:
    table = world.table("table-8", families=world.family)
    settings = settings_of(world.evidence, world.family)
    mildest = world.evidence.label(
        min(settings, key=lambda each: np.nan_to_num(strength(world.evidence, each), nan=np.inf))
    )
    return within(world.cells(table, "relative", 1, KEPT, "{metric}, {setting}", setting=mildest))


@claim("below-one", "α below 1 improves images of a transformer", "Table 7, SD3")
def _(world: World) -> Ruling:
    evidence = world.evidence
    below = [each for each in settings_of(evidence, world.family) if (known := knobs(evidence, each)) and known[0] < 1]
    if not below:
        raise MissingError("settings with α below 1", settings=[world.family])
    arms = {evidence.label(each): (each, evidence.vanilla) for each in below}
    return any_of(world.changes(world.metric, arms, world.sign))
