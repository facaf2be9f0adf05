"""See a diagnosis: maps laid over the image, measures over the steps, both in one picture, and a film of the steps.

Needs matplotlib, the extra `plots`. Figures are objects of their own: no window, no state of pyplot's is touched.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from symskew.files import replacing
from symskew.heatmap import LOOKS, Ends, ends_of, lay
from symskew.record import Record
from symskew.table import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {
    "alignment": ("Alignment", "cosine; higher is more stable", 1),
    "instability": ("Instability", "share of tokens; lower is more stable", 1),
    "energy": ("−Energy", "units of q·k; higher is more stable", -1),
}
"""What `plot_measures` shows: title, unit, and the sign it is shown with."""
LINES = {"down": "#0072b2", "mid": "#1b1f24", "up": "#e69f00"}
INK, FAINT, RULE = "#1b1f24", "#69707a", "#d0d7de"
TILE = 3.0
"""Inches: the width of an image in a figure."""
SIDE = 448
"""Pixels: the longer side that an image is brought to for a figure."""


def overlay(
    image: Image.Image,
    map: Tensor,
    measure: str = "conflict",
    *,
    scale: tuple[float, float] | None = None,
    bar: bool = False,
) -> Image.Image:
    """A map in colours, with the outlines of the image in white.

    Conflict goes from black (0: no feature is in conflict with its field there) over red to yellow (½ and more: as many
    as chance would have); agreement from blue (0: nothing holds the retrieved state there) over green to yellow (it is
    well supported). The map is stretched smoothly, and is no finer than the tokens it has a value for.

    Args:
        image: of any size. Lines alone are taken from it, so that a colour is a number everywhere else.
        map: (height, width) from `Record.map`, at any size: of one image (`sample=0`), and of one layer, stage or step
            if you like (`index=3`, `stage="up"`, `step=range(5)`).
        measure: what the map is of, "conflict" or "agreement".
        scale: the values at the two ends of the colours. By default 0 (or the least, where there is less) and the
            largest, for conflict at least ½, so that a colour means the same in most images.
        bar: whether to add a colour bar at the right, with numbers and unit.

    Returns:
        An RGB image of the same size; with a bar one of another size.

    Raises:
        ValueError: an unknown measure, a map that is not of one image or not finite, or a scale that does not rise.
        ImportError: matplotlib is not installed.

    Example:
        >>> overlay(image, record.map("conflict", sample=0, branch="conditional"))  # doctest: +SKIP
    """
    ends = ends_of(map, measure, scale)
    if not bar:
        return lay(image, map, measure, ends)
    figure = _figure(TILE + 1.2, TILE * image.height / image.width + 0.5)
    axes = figure.add_subplot()
    _show(axes, lay(_fitted(image), map, measure, ends), LOOKS[measure].title)
    _draw_bar(axes, measure, ends, ax=axes)
    return render(figure)


def plot_measures(record: Record, *, figure: Any = None, **where: Any) -> Figure:
    """Alignment, instability and −energy over the denoising steps, with a line for each stage of the model.

    Args:
        record: what was measured.
        figure: of matplotlib's (or a part of one) to draw in; a new one by default.
        where: what to take of the record, as for `Record.mean`: `sample=0`, `retrieval="vanilla"`. The branch is the
            conditional one unless given.

    Raises:
        ValueError: no row fits.
        ImportError: matplotlib is not installed.

    Example:
        >>> plot_measures(record, sample=0).savefig("measures.png")  # doctest: +SKIP
    """
    figure = _figure(5, 5) if figure is None else figure
    where = branch_of(record) | where
    panels = figure.subplots(len(PANELS), 1, sharex=True)
    for axes, (measure, (title, unit, sign)) in zip(panels, PANELS.items(), strict=True):
        means = record.mean(measure, by=["stage", "step"], **where)
        for stage in dict.fromkeys(stage for stage, _ in means):
            steps = {step: sign * mean for (own, step), mean in means.items() if own == stage}
            axes.plot(*zip(*steps.items(), strict=True), color=LINES[stage], label=stage, linewidth=1.8,
                      marker="o" if len(steps) == 1 else None)  # fmt: skip
        axes.set_title(title, loc="left", fontsize=11, color=INK)
        axes.set_title(unit, loc="right", fontsize=9, color=FAINT)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(RULE)
        axes.tick_params(labelsize=9, color=RULE, labelcolor=INK)
        axes.grid(axis="y", color=RULE, linewidth=0.5)
        axes.margins(x=0.02)
    panels[-1].set_xlabel("denoising step", loc="left", fontsize=9, color=FAINT)
    panels[-1].legend(loc="upper right", bbox_to_anchor=(1.02, -0.16), ncols=3, frameon=False, fontsize=9)
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def draw(image: Image.Image, record: Record, title: str = "", note: str = "", **where: Any) -> Figure:
    """All about one image at a glance: the image, its maps laid over it, and the measures over the steps.

    The maps are of the up stage unless a layer or stage is given: there they are finest, and show objects best.

    Args:
        image: what was generated.
        record: what was measured meanwhile, with maps.
        title: what it is, its prompt for instance.
        note: more about it, in smaller letters.
        where: what to take of the record, as for `Record.mean`; `sample=0`, where it is of several images.

    Raises:
        ValueError: the record has no maps, or more than one image fits.
        ImportError: matplotlib is not installed.

    Example:
        >>> draw(image, record, "a red seven").savefig("diagnosis.png")  # doctest: +SKIP
    """
    maps, where = _one(record, where)
    width = TILE * (1 + len(LOOKS))
    figure = _figure(width + 4.2, max(4.4, TILE * image.height / image.width + 1.6))
    figure.suptitle(textwrap.fill(title, 110), x=0.004, ha="left", fontsize=15, color=INK, parse_math=False)
    left, right = figure.subfigures(1, 2, width_ratios=[width, 4.2], squeeze=False)[0]
    found = {measure: record.map(measure, **maps) for measure in LOOKS}
    tiles = _show_all(left, _fitted(image), {measure: (map, ends_of(map, measure)) for measure, map in found.items()})
    note = "\n".join(textwrap.fill(line, 42) for line in note.splitlines())
    below: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "top"}
    tiles[0].annotate(note, (0, 0), (0, -8), fontsize=9, color=FAINT, parse_math=False, **below)
    stages = ", ".join(record.mean("energy", by=["stage"], **maps))
    for axes in tiles[1:]:
        axes.set_title(f"{stages} layers", loc="right", fontsize=9, color=FAINT)
    plot_measures(record, figure=right, **where)
    return figure


def animate(image: Image.Image, record: Record, **where: Any) -> list[Image.Image]:
    """A frame for each denoising step: the image that came of it, and beside it the maps at that step laid over it.

    All frames have the same scale, so that colours can be compared over the steps; arguments and errors are those of
    `draw`.

    Example:
        >>> save_gif("steps.gif", animate(image, record))  # doctest: +SKIP
    """
    maps, _ = _one(record, where)
    image = _fitted(image, 288)
    steps = list(record.mean("energy", by=["step"], **maps))
    found = {measure: [record.map(measure, **maps | {"step": step}) for step in steps] for measure in LOOKS}
    ends = {measure: ends_of(torch.stack(some), measure) for measure, some in found.items()}
    figure = _figure(TILE * (1 + len(LOOKS)), TILE * image.height / image.width + 1, dpi=90)
    tiles = _show_all(figure, image, {measure: (some[0], ends[measure]) for measure, some in found.items()})
    still = render(figure)
    # What changes is pasted: drawing a figure takes a hundred times as long.
    font = ImageFont.truetype(need("matplotlib.font_manager", "plots").findfont("DejaVu Sans"), 12)
    below, *boxes = [_box(axes, still.height) for axes in tiles]
    frames = [still.copy() for _ in steps]
    for number, (step, frame) in enumerate(zip(steps, frames, strict=True)):
        at = below[0], below[3] + 8
        ImageDraw.Draw(frame).text(at, f"maps at step {step} of {steps[0]}–{steps[-1]}", FAINT, font)
        for box, (measure, some) in zip(boxes, found.items(), strict=True):
            laid = lay(image, some[number], measure, ends[measure])
            frame.paste(laid.resize((box[2] - box[0], box[3] - box[1])), box)
    return frames


def branch_of(record: Record) -> dict[str, Any]:
    """The branch of guidance that is shown: the conditional one, where branches have names."""
    return {"branch": "conditional"} if "conditional" in record.mean("energy", by=["branch"]) else {}


def render(figure: Figure) -> Image.Image:
    """A figure as an image."""
    canvas = need("matplotlib.backends.backend_agg", "plots").FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a prompt in letters that the font lacks
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def save_gif(path: str | Path, frames: Sequence[Image.Image], seconds: float = 0.15) -> Path:
    """Write frames as an endless GIF, whole or not at all; each lasts so many seconds, the last one a second more."""
    path, lasts = Path(path), [round(1000 * seconds)] * len(frames)
    lasts[-1] += 1000
    # One palette for all, from the first, middle and last frame: colours do not flicker, and the file stays small.
    some = np.concatenate([np.asarray(frames[i])[::2, ::2] for i in (0, len(frames) // 2, -1)])
    palette = Image.fromarray(some).quantize(256, Image.Quantize.MAXCOVERAGE)
    few = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with replacing(path) as partial:
        few[0].save(partial, format="GIF", save_all=True, append_images=few[1:], loop=0, duration=lasts)
    return path


def _one(record: Record, where: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What to take of the record for maps, and for measures; of one image, or ValueError."""
    where = branch_of(record) | where
    images = len(record.mean("energy", by=["generation", "sample"], **where))
    if images > 1:
        raise ValueError(f"symskew: the record is of {images} images; say of which to show it, as in sample=0.")
    given = {"layer", "index", "stage", "depth"} & where.keys()
    upper = not given and any(place.stage == "up" for place in record.layers)
    return where | ({"stage": "up"} if upper else {}), where


def _fitted(image: Image.Image, side: int = SIDE) -> Image.Image:
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _figure(width: float, height: float, dpi: int = 120) -> Figure:
    return need("matplotlib.figure", "plots").Figure((width, height), dpi=dpi, layout="constrained")


def _show_all(figure: Any, image: Image.Image, maps: dict[str, tuple[Tensor, Ends]]) -> list[Axes]:
    """The image, and the maps laid over it with a colour bar below; side by side."""
    plain, *others = tiles = list(figure.subplots(1, 1 + len(maps), squeeze=False)[0])
    _show(plain, image, "image")
    for axes, (measure, (map, ends)) in zip(others, maps.items(), strict=True):
        _show(axes, lay(image, map, measure, ends), LOOKS[measure].title)
        thick = 0.04 * image.width / image.height
        _draw_bar(axes, measure, ends, cax=axes.inset_axes((0, -2 * thick, 1, thick)), orientation="horizontal")
    return tiles


def _show(axes: Axes, image: Image.Image, title: str) -> None:
    axes.imshow(np.asarray(image))
    axes.set(xticks=[], yticks=[], anchor="N")
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11, color=INK)


def _box(axes: Axes, height: int) -> tuple[int, int, int, int]:
    box = axes.get_window_extent()  # from the bottom, as images are not
    return round(box.x0), round(height - box.y1), round(box.x1), round(height - box.y0)


def _draw_bar(axes: Axes, measure: str, ends: Ends, **place: Any) -> None:
    look = LOOKS[measure]
    values = need("matplotlib.cm").ScalarMappable(need("matplotlib.colors").Normalize(*ends), look.colours)
    bar = axes.figure.colorbar(values, ticks=need("matplotlib.ticker").MaxNLocator(5, steps=[1, 2, 5, 10]), **place)
    bar.set_label(look.unit, fontsize=9, color=FAINT)
    bar.ax.tick_params(labelsize=9, color=RULE, labelcolor=INK)
    bar.ax.spines[:].set_visible(False)
