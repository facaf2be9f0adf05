"""The numbers that tables are made of: means, changes against vanilla, contrasts, p over a family."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from symskew.protocols.evidence import Evidence, Reading
from symskew.statistics import Change, Estimate, grouped_mean, holm, paired_change
from symskew.statistics.resample import DRAWS, LEVEL, interval, sign_flip, weighted_sums
from symskew.table import need

STATES = {"input": "input features", "value": "values", "both": "input features in some layers, values in others"}


def mean(evidence: Evidence, metric: str | Reading, setting: str, role: str | None = "eval") -> Estimate | None:
    """The mean over prompts; None where fewer than two prompts were scored."""

    def compute() -> Estimate | None:
        values, prompts = evidence.scores(metric, setting, role)
        return grouped_mean(values, prompts) if len(np.unique(prompts)) > 1 else None

    return evidence.remember(("mean", metric, setting, role), compute)


def change(evidence: Evidence, metric: str | Reading, setting: str, baseline: str | None = None) -> Change | None:
    """Treated − baseline (vanilla by default), same prompts and seeds; None where fewer than two prompts have both."""

    def compute() -> Change | None:
        treated, before, prompts, _ = evidence.paired(metric, setting, baseline)
        return paired_change(treated, before, prompts) if len(np.unique(prompts)) > 1 else None

    return evidence.remember(("change", metric, setting, baseline), compute)


def placebo(evidence: Evidence, metric: str, setting: str) -> Change | None:
    """Vanilla with the placebo's seeds − vanilla with those of evaluation, over a setting's prompts."""
    again, before = (evidence.by_prompt(metric, evidence.vanilla, role) for role in ("placebo", "eval"))
    pair = evidence.paired(metric, setting)
    treated = evidence.grouped(pair.treated, pair.prompts)
    both = [name for name in before if name in again and name in treated]
    if len(both) < 2:
        return None
    return paired_change([again[n].mean() for n in both], [before[n].mean() for n in both], both)


def spread(evidence: Evidence, metric: str, setting: str) -> Estimate | None:
    """The mean diversity over prompts with the seeds of vanilla."""
    found = evidence.diversity(metric, setting)
    return grouped_mean(list(found.values()), list(found)) if len(found) > 1 else None


def spread_change(evidence: Evidence, metric: str, setting: str) -> Change | None:
    """The change of diversity against vanilla, prompt by prompt."""
    arms = paired_diversity(evidence, metric, setting)
    return paired_change(*arms) if len(arms[2]) > 1 else None


def paired_diversity(evidence: Evidence, metric: str, setting: str) -> tuple[list[float], list[float], list[str]]:
    """The diversity under a setting and of vanilla, for the prompts that have both."""
    found, vanilla = (evidence.diversity(metric, each) for each in (setting, evidence.vanilla))
    both = [name for name in found if name in vanilla]
    return [found[name] for name in both], [vanilla[name] for name in both], both


def contrast(
    values: Float[np.ndarray, "samples"],
    prompts: np.ndarray,
    some: Bool[np.ndarray, "samples"],
    others: Bool[np.ndarray, "samples"],
    *,
    draws: int = DRAWS,
) -> Estimate | None:
    """The mean over some samples − that over others; None without two prompts on each side.

    Prompts are drawn again with all their samples, on whichever side these are, the choice held fixed. p, two-sided, is
    of the difference over the draws' standard deviation, against Student's distribution.
    """
    _, codes = np.unique(prompts, return_inverse=True)
    sides = []
    for side in (some, others):
        counts = np.bincount(codes, side.astype(float))
        if (counts > 0).sum() < 2:
            return None
        sides += [np.bincount(codes, np.where(side, values, 0.0)), counts]
    columns = np.stack(sides, 1)
    sums = weighted_sums(columns, draws=draws)
    sums = sums[(sums[:, 1] > 0.5) & (sums[:, 3] > 0.5)]
    drawn = sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]
    total, n = columns.sum(0), len(columns)
    value = float(total[0] / total[1] - total[2] / total[3])
    low, high = interval(drawn, n)
    return Estimate(value, low, high, n, int(total[1] + total[3]), student(value, float(drawn.std(ddof=1)), n))


def subset_mean(
    values: Float[np.ndarray, "samples"], prompts: np.ndarray, some: Bool[np.ndarray, "samples"], *, test: bool = False
) -> Estimate | None:
    """The mean over some samples, prompts drawn again with theirs; None without two prompts.

    `test` adds the p of turning the signs of the prompts' sums.
    """
    _, codes = np.unique(prompts[some], return_inverse=True)
    if not len(codes) or codes.max() < 1:
        return None
    columns = np.stack([np.bincount(codes, values[some]), np.bincount(codes)], 1)
    sums, total = weighted_sums(columns), columns.sum(0)
    low, high = interval(sums[:, 0] / sums[:, 1], len(columns))
    p = sign_flip(columns[:, 0], draws=DRAWS, seed=0) if test else None
    return Estimate(float(total[0] / total[1]), low, high, len(columns), int(total[1]), p)


def student(value: float, error: float, n: int) -> float:
    """p, two-sided, of a value over its standard error against Student's distribution with n − 1 degrees of freedom."""
    if not error:
        return float(value == 0)
    return float(2 * need("scipy.special", "study").stdtr(n - 1, -abs(value) / error))


def of_interval(estimate: Estimate, groups: int) -> Estimate:
    """A jackknife's estimate with the p that its Student interval of so many groups implies."""
    half = (estimate.high - estimate.low) / 2
    error = half / float(need("scipy.special", "study").stdtrit(groups - 1, (1 + LEVEL) / 2))
    return dataclasses.replace(estimate, p=student(estimate.value, error, groups))


def turned(estimate: Estimate) -> Estimate:
    """The estimate of the same with its sign turned."""
    return dataclasses.replace(estimate, value=-estimate.value, low=-estimate.high, high=-estimate.low)


def complement(share: Estimate) -> Estimate:
    """1 − a share."""
    return dataclasses.replace(share, value=1 - share.value, low=1 - share.high, high=1 - share.low)


def adjusted(estimates: Sequence[Estimate | None]) -> list[Estimate | None]:
    """The estimates with p adjusted by Holm's method over all of them that have one."""
    p = holm([None if each is None else each.p for each in estimates])
    return [
        dataclasses.replace(each, p=float(new)) if each is not None and each.p is not None else each
        for each, new in zip(estimates, p, strict=True)
    ]


def family_note(estimates: Iterable[Estimate | None], of: str) -> str:
    """What p was adjusted over."""
    count = sum(each is not None and each.p is not None for each in estimates)
    return f"p is adjusted by Holm's method over the {count} {of}; * marks p < 0.05."


def clear_count(estimates: Sequence[Estimate | None], of: str) -> str:
    """How many differ from 0, as a sentence."""
    tested = [each for each in estimates if each is not None and each.p is not None]
    clear = sum(each.p < 0.05 for each in tested if each.p is not None)
    return f"{clear} of {len(tested)} {of} differ from 0 after Holm's correction."


def gap_notes(
    evidence: Evidence, settings: Iterable[str], roles: Sequence[str] = ("eval",), most: int = 8
) -> list[str]:
    """What is missing of some arms, as notes."""
    gaps = evidence.gaps(settings, roles)
    more = [f"and {len(gaps) - most} more arms with missing samples"] if len(gaps) > most else []
    return [f"Missing: {'; '.join([*gaps[:most], *more])}."] if gaps else []


def seeds_note(evidence: Evidence, settings: Iterable[str]) -> list[str]:
    """Where diversity is left out because a setting and vanilla have different eval seeds, as a note."""
    counts = {evidence.label(each): len(evidence.unlike(each)) for each in settings}
    told = ", ".join(f"{label} ({count} prompts)" for label, count in counts.items() if count)
    why = "diversity is left out there, and only changes, not means, compare; run them on the same"
    return [f"Other eval seeds than vanilla's: {told}: {why}."] if told else []


def prompts_note(evidence: Evidence) -> str:
    """On which prompts a table rests."""
    sets = evidence.frame.drop_duplicates("prompt_id")["prompts"].value_counts(sort=False)
    return "Prompts: " + ", ".join(f"{name} ({count})" for name, count in sets.items()) + "."


def states_note(evidence: Evidence) -> list[str]:
    """What was measured, the retrieved input features or values: their energies and alignments are not comparable."""
    if "states" not in evidence.measures.columns:  # of studies that were kept by earlier versions
        return []
    counts = evidence.measures.drop_duplicates(["sample_id", "states"])["states"].value_counts(sort=False)
    found = [f"{STATES[str(name)]} ({count} samples)" for name, count in counts.items()]
    return [f"Measured of the retrieved {' and '.join(found)}."] if found else []
