"""A few samples for the first page: drawn at random, so that nobody has chosen them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from symskew.protocols.arms import Arm
from symskew.protocols.evidence import Evidence
from symskew.report.markup import Markup, join, tag
from symskew.report.pictures import Picture
from symskew.report.samples import vanilla_of

COLUMNS, ROWS = 8, 4


def draw_at_random(evidence: Evidence, pictures: Sequence[Picture]) -> Markup:
    """Vanilla, and the first setting of each of some other families, at prompts and seeds that all of them have."""
    settings = _settings(evidence)
    arms = [evidence.arm(setting) for setting in settings]
    if len(arms) < 2 or not (moments := _moments(arms)):
        return Markup()
    rows = [_row(evidence, pictures, setting, arm, moments) for setting, arm in zip(settings, arms, strict=True)]
    note = (
        "Each column is a prompt and a seed, drawn at random so that nobody chose them; of each family it is the first "
        "setting. Select an image to see it beside vanilla."
    )
    return join(
        tag("h2", {"id": "draw-title"}, "A random draw"),
        tag("p", {"class": "caption"}, note),
        tag("div", {"class": "box", "tabindex": "0", "role": "region", "aria-labelledby": "draw-title"},
            tag("table", {"class": "draw"},
                tag("colgroup", None, tag("col"), tag("col", {"class": "image", "span": len(moments)})),
                tag("tbody", None, *rows))),
    )  # fmt: skip


def _settings(evidence: Evidence) -> list[str]:
    vanilla = vanilla_of(evidence)
    firsts: dict[str, str] = {}
    for setting in evidence.settings["setting_id"]:
        if len(evidence.arm(setting).rows):
            firsts.setdefault(str(evidence.setting(setting)["family"]), setting)
    return [vanilla, *(own for own in firsts.values() if own != vanilla)][:ROWS] if vanilla else []


def _moments(arms: Sequence[Arm]) -> list[int]:
    """Keys that all arms have, at random, of different prompts."""
    common = arms[0].keys
    for arm in arms[1:]:
        common = np.intersect1d(common, arm.keys)
    there = np.isin(arms[0].keys, common)
    prompts, keys = arms[0].prompts[there], arms[0].keys[there]
    order = np.random.default_rng(0).permutation(len(keys))
    _, firsts = np.unique(prompts[order], return_index=True)
    return keys[order[np.sort(firsts)]][:COLUMNS].tolist()


def _row(evidence: Evidence, pictures: Sequence[Picture], setting: str, arm: Arm, moments: Sequence[int]) -> Markup:
    cells = []
    for row in arm.rows[np.searchsorted(arm.keys, moments)]:
        sample, picture = evidence.frame.iloc[row], pictures[row]
        name = sample["sample_id"]
        about = f"{sample['prompt']}, seed {sample['seed']}, {evidence.label(setting)}"
        image = tag("img", {
            "src": f"thumbs/{name}.jpg" if picture.thumb else f"images/{name}.png", "alt": about, "title": about,
            "width": picture.width, "height": picture.height, "loading": "lazy",
            "class": "pixels" if picture.tiny else None,
        })  # fmt: skip
        cells.append(tag("td", None, tag("a", {"href": f"#gallery?open={name}"}, image)))
    return tag("tr", None, tag("th", {"scope": "row", "dir": "auto"}, evidence.label(setting)), *cells)
