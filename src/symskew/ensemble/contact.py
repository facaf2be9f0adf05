"""A contact sheet: images with their captions and the judge's verdicts, chosen by rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from symskew.ensemble.prompts import Prompt
from symskew.ensemble.verdict import Verdict

__all__ = ["contact_sheet"]

COLUMNS, ROWS = 10, 8
_CELL, _PICTURE, _TEXT = 156, 128, 74


def contact_sheet(
    images: np.ndarray,
    prompts: Sequence[Prompt],
    verdicts: Sequence[Verdict],
    *,
    columns: int = COLUMNS,
    rows: int = ROWS,
) -> Image.Image:
    """`columns` × `rows` images, two rows for each number of objects.

    The rule: of each number of objects, the first images that are entirely right fill the upper rows and the first
    images with a failure the lower ones, in the order they were made; a green or red frame says which. Where there are
    too few of one kind, the other fills up.
    """
    numbers = sorted({len(p.objects) for p in prompts})
    share = rows * columns // len(numbers)
    chosen: list[int] = []
    for number in numbers:
        mine = [i for i, p in enumerate(prompts) if len(p.objects) == number]
        right, wrong = ([i for i in mine if verdicts[i].all_right is is_right] for is_right in (True, False))
        half = max(share // 2, share - len(wrong))
        chosen += right[:half] + wrong[: share - min(half, len(right))]
    sheet = Image.new("RGB", (columns * _CELL, rows * (_PICTURE + _TEXT)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for cell, index in enumerate(chosen[: columns * rows]):
        left, top = cell % columns * _CELL, cell // columns * (_PICTURE + _TEXT)
        verdict = verdicts[index]
        colour = (40, 160, 60) if verdict.all_right else (210, 40, 40)
        inset = (_CELL - _PICTURE) // 2
        draw.rectangle(
            (left + inset - 3, top + 1, left + inset + _PICTURE + 2, top + _PICTURE + 6), outline=colour, width=3
        )
        picture = Image.fromarray(images[index]).resize((_PICTURE, _PICTURE), Image.Resampling.NEAREST)
        sheet.paste(picture, (left + inset, top + 4))
        caption = _wrap(", ".join(sorted(map(str, prompts[index].objects))), font, _CELL - 8)
        said = [line for f in verdict.failures for line in _wrap(f"{f.kind}: {f.wanted or f.seen}", font, _CELL - 8)]
        for row, line in enumerate((caption + said)[:5]):
            fill = "black" if row < len(caption) else colour
            draw.text((left + 4, top + _PICTURE + 9 + 12 * row), line, fill=fill, font=font)
    return sheet


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
