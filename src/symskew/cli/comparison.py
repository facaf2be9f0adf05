"""The comparison picture: a row per prompt, vanilla beside controlled, same seeds, and what the judge says of each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from symskew.cli.judging import Opinion, summarize
from symskew.images import describe_control

if TYPE_CHECKING:
    from symskew.cli.job import Done

MOST_PROMPTS, MOST_SEEDS = 24, 6
"""What one picture shows at most; the folder has the rest."""

GAP, MARGIN, CAPTION = 14, 36, 230
"""Pixels: the room between two images, the rim, and the width of the captions."""

HEAD, FOOT, NOTE = 150, 84, 44
"""Pixels: the heights of the title with the columns' names, of the summary, and of a verdict."""

PAPER, INK, FAINT, RIGHT, WRONG = "#ffffff", "#1b1f24", "#69707a", "#1a7f37", "#cf222e"

# Pillow's own font has no Greek and no dash.
SPELT = str.maketrans({"α": "alpha", "β": "beta", "–": "-", "×": "x", "…": "..."})


def draw_comparison(pairs: Sequence[tuple[Done, Done]]) -> Image.Image:
    """The picture for pairs of (vanilla, controlled) images of the same prompt and seed."""
    rows: dict[str, list[tuple[Done, Done]]] = {}
    for pair in pairs:
        rows.setdefault(pair[0].result.settings["prompt"], []).append(pair)
    shown = {prompt: row[:MOST_SEEDS] for prompt, row in list(rows.items())[:MOST_PROMPTS]}
    seeds = max(map(len, shown.values()))
    tile = _tile_size(pairs[0][0].result.image, 192 if seeds < 4 else 128)
    judged = any(done.opinion is not None for pair in pairs for done in pair)
    block = seeds * tile[0] + (seeds - 1) * GAP
    left = MARGIN + CAPTION + 2 * GAP
    right = left + block + 3 * GAP
    head = HEAD if seeds == 1 else HEAD + 22
    step = tile[1] + (NOTE if judged else 0) + 2 * GAP
    canvas = Image.new("RGB", (right + block + MARGIN, head + step * len(shown) + FOOT), PAPER)
    draw = ImageDraw.Draw(canvas)

    draw.text((MARGIN, 24), "The same prompts and seeds, vanilla and controlled", INK, _font(24))
    draw.text((MARGIN, 58), facts(pairs[0][0], one_seed=seeds == 1), FAINT, _font(15))
    control = describe_control(pairs[0][1].result.settings)
    for x, name, what in ((left, "vanilla", "the model as it is"), (right, "controlled", control)):
        draw.text((x, 86), name, INK, _font(20))
        draw.text((x, 112), _cut(what.translate(SPELT), block, 14), FAINT, _font(14))
        draw.line((x, 136, x + block - 1, 136), INK, 2)
        for column, (pair, _) in enumerate(max(shown.values(), key=len) if seeds > 1 else ()):
            draw.text((x + column * (tile[0] + GAP), 143), f"seed {pair.result.settings['seed']}", FAINT, _font(13))

    for number, (prompt, row) in enumerate(shown.items()):
        top = head + number * step
        lines = textwrap.wrap(prompt, 24)[:7]
        draw.multiline_text((MARGIN, top + 4), "\n".join(lines), INK, _font(18), spacing=6)
        for column, pair in enumerate(row):
            for x, done in zip((left, right), pair, strict=True):
                at = (x + column * (tile[0] + GAP), top)
                # Lanczos, since handwriting is smooth; the sizes are whole multiples, so that strokes stay even.
                canvas.paste(done.result.image.convert("RGB").resize(tile, Image.Resampling.LANCZOS), at)
                if done.opinion is not None:
                    _draw_verdict(draw, at, tile, done.opinion)

    sides = [[done.opinion.right if done.opinion else None for done in side] for side in zip(*pairs, strict=True)]
    sentences = summarize(sides[0], sides[1]).split("; ")
    if sum(map(len, shown.values())) < len(pairs):
        sentences[-1] += f" ({sum(map(len, shown.values()))} of {len(pairs)} pairs are shown)"
    bottom = canvas.height - FOOT
    draw.line((MARGIN, bottom, canvas.width - MARGIN, bottom), "#d0d7de", 1)
    draw.multiline_text((MARGIN, bottom + 16), "\n".join(sentences).strip(), INK, _font(16), spacing=7)
    return canvas


def facts(done: Done, *, one_seed: bool) -> str:
    """Model, steps, guidance and perhaps the seed of an image, in a line."""
    settings = done.result.settings
    facts = [Path(settings["model"]).name, f"{settings['steps']} steps"]
    facts += [f"guidance {settings['guidance']:g}"] if settings["guidance"] is not None else []
    facts += [f"seed {settings['seed']}"] if one_seed else []
    return " · ".join(facts)


def _draw_verdict(draw: ImageDraw.ImageDraw, at: tuple[int, int], tile: tuple[int, int], opinion: Opinion) -> None:
    x, y = at[0], at[1] + tile[1] + 8
    if opinion.right is None:
        lines = _fit([part.strip() for part in f"reads {opinion.read}".split(",")], tile[0])
        draw.multiline_text((x, y), "\n".join(lines), FAINT, _font(14), spacing=4)
        return
    colour = RIGHT if opinion.right else WRONG
    draw.rectangle((x - 3, at[1] - 3, x + tile[0] + 2, at[1] + tile[1] + 2), outline=colour, width=3)
    strokes = [[(1, 9), (6, 14), (15, 3)]] if opinion.right else [[(2, 3), (13, 14)], [(13, 3), (2, 14)]]
    for stroke in strokes:
        draw.line([(x + a, y + b) for a, b in stroke], colour, 3, joint="curve")
    lines = ["all right"] if opinion.right else _fit(list(opinion.wrong), tile[0] - 22)
    draw.multiline_text((x + 22, y), "\n".join(lines), colour, _font(14), spacing=4)


def _fit(parts: list[str], width: float) -> list[str]:
    """At most two lines of what fits of the parts, and how many more there are."""
    lines: list[str] = []
    for number, part in enumerate(parts):
        more = len(parts) - number
        room = width - (_font(14).getlength(" +9") if more > 1 and lines else 0)
        longer = f"{lines[-1]}, {part}" if lines else part
        if lines and _font(14).getlength(longer) <= room:
            lines[-1] = longer
        elif len(lines) == 2:
            return [lines[0], f"{lines[1]} +{more}"]
        else:
            lines.append(_cut(part, room, 14))
    return lines


def _cut(text: str, width: float, size: int) -> str:
    while text and _font(size).getlength(text) > width:
        text = text[:-4] + "..." if len(text) > 4 else ""
    return text


def _tile_size(image: Image.Image, longer: int) -> tuple[int, int]:
    scale = longer / max(image.size)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)
