"""How symmetric the attention weights of a checkpoint are: W = W_Q W_Kᵀ of every layer and head, without its model."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from torch import Tensor

from symskew.algebra import accurate
from symskew.checkpoint import Part, find_parts
from symskew.configured import Heads
from symskew.files import replacing
from symskew.table import need
from symskew.weights import weight_scores

COLUMNS = {
    "part": "of a pipeline; empty for a single model",
    "layer": "name of the attention module in the checkpoint",
    "index": "place among the self-attention layers of the part, from 0",
    "depth": "(index + ½) / number of layers",
    "head": "from 0; none for the whole layer, whose W is the sum over its heads",
    "heads": "query heads of the layer; none where neither the checkpoint nor the caller says",
    "key_heads": "as many or fewer (grouped queries)",
    "head_dim": "width of a head",
    "features": "width of the input, and of W",
    "symmetry": "η of W, −1 to 1: (‖W_sym‖² − ‖W_skew‖²)/‖W‖²",
    "directionality": "−1 to 1: positive where columns of W stand out, negative where rows do",
}
"""What each column means."""


@dataclass(frozen=True)
class LayerWeights:
    """W of one layer, as a whole and head by head; for the fields see `COLUMNS`."""

    part: str
    layer: str
    index: int
    depth: float
    heads: int | None
    key_heads: int | None
    head_dim: int | None
    features: int
    symmetry: float
    directionality: float
    head_symmetry: tuple[float, ...]
    """Empty where the number of heads is unknown."""
    head_directionality: tuple[float, ...]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The whole layer, then its heads; a value for each of `COLUMNS`."""
        same = {name: getattr(self, name) for name in COLUMNS if name != "head"}
        numbers = range(len(self.head_symmetry))
        each = zip(numbers, self.head_symmetry, self.head_directionality, strict=True)
        for head, symmetry, directionality in ((None, self.symmetry, self.directionality), *each):
            row = same | {"head": head, "symmetry": symmetry, "directionality": directionality}
            yield {name: row[name] for name in COLUMNS}


@dataclass(frozen=True)
class Inspection:
    """The scores of a checkpoint's layers in the order they run; printed as a table."""

    source: str
    layers: tuple[LayerWeights, ...]
    skipped: dict[str, str]
    """Other weights of queries and keys by name, and why: cross-attention, or self-attention that cannot be read."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each layer, followed by one for each of its heads."""
        return [row for layer in self.layers for row in layer.rows()]

    def median(self, score: str = "symmetry", part: str | None = None) -> float:
        """The median of a score over whole layers, of one part if given.

        Raises:
            ValueError: an unknown score, or no layer in this part.
        """
        if score not in ("symmetry", "directionality"):
            raise ValueError(f"symskew: {score!r} is no score; there are symmetry and directionality.")
        found = [getattr(layer, score) for layer in self.layers if part in (None, layer.part)]
        if not found:
            raise ValueError(f"symskew: no layer of {part!r}; there are {', '.join(map(repr, self.parts))}.")
        return median(found)

    @property
    def parts(self) -> list[str]:
        """The parts that have layers."""
        return list(dict.fromkeys(layer.part for layer in self.layers))

    def to_pandas(self) -> Any:
        """`rows` as a pandas DataFrame."""
        return need("pandas").DataFrame(self.rows, columns=list(COLUMNS))

    def to_csv(self, path: str | Path | None = None) -> str:
        """`rows` as CSV, written to a file if given."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return _written(text.getvalue(), path)

    def to_json(self, path: str | Path | None = None) -> str:
        """Source, meaning of the columns, rows and what was skipped as JSON, written to a file if given."""
        whole = {"source": self.source, "columns": COLUMNS, "rows": self.rows, "skipped": self.skipped}
        return _written(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", path)

    def plot(self, path: str | Path | None = None) -> Any:
        """Both scores by depth as a matplotlib figure, saved to a file if given: a point a head, a line for the layers.

        Raises:
            ImportError: matplotlib is not installed.
        """
        figure = need("matplotlib.figure", "plots").Figure(figsize=(3.6 * len(self.parts) + 1, 5), layout="constrained")
        panels = figure.subplots(2, len(self.parts), squeeze=False, sharex="col", sharey="row")
        for column, part in enumerate(self.parts):
            layers = [layer for layer in self.layers if layer.part == part]
            for axes, score in zip(panels[:, column], ("symmetry", "directionality"), strict=True):
                _draw(axes, layers, score, labelled=column == 0)
            panels[0, column].set_title(part or Path(self.source).name, fontsize=10)
            panels[1, column].set_xlabel("layer")
        if path is not None:
            with replacing(Path(path)) as partial:
                figure.savefig(partial, dpi=150, format=Path(path).suffix.lstrip(".") or "png")
        return figure

    def __str__(self) -> str:
        names = ("layer", "heads", "features", "symmetry", "of heads", "directionality", "of heads")
        cells = [names, *(_cells(layer) for layer in self.layers)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        for part in self.parts:
            scores = (f"{score} {self.median(score, part):+.3f}" for score in ("symmetry", "directionality"))
            lines.append(f"{part or 'all'}: median over layers: {', '.join(scores)}")
        for why in dict.fromkeys(self.skipped.values()):
            name, *more = (name for name, reason in self.skipped.items() if reason == why)
            lines.append(f"not read: {name}{f' and {len(more)} more' if more else ''}: {why}")
        return "\n".join(lines)


def inspect_weights(
    checkpoint: str | Path, *, part: str | None = None, heads: int | None = None, head_dim: int | None = None
) -> Inspection:
    """Symmetry and directionality of W = W_Q W_Kᵀ (Eq. 19) of every self-attention layer and head of a checkpoint.

    The model is not built: queries and keys are read from its safetensors files layer by layer (with the values, where
    they are fused), so that a model larger than the memory can be inspected. For the scores see `weight_scores`. W is
    what the model has learned and not yet what enters the softmax: biases, gains of norms, QK-norm and rotary positions
    are not in it, and the symmetry of q kᵀ on a real input (`symskew.diagnose`) is another number.

    Args:
        checkpoint: a diffusers or transformers folder, a `.safetensors` file, or a hub id that is on this disk.
        part: of a pipeline, `"unet"` or `"text_encoder"`, say; by default its denoisers and text encoders.
        heads, head_dim: how many query heads every layer has, or how wide they are, where there is no configuration
            that says it. Without, a layer has its scores as a whole, and its heads none.

    Raises:
        ValueError: there is no such checkpoint or part, or no layer that can be read in it.

    Example:
        >>> import symskew.ensemble
        >>> found = inspect_weights(symskew.ensemble.path("ensemble-sdxl"), part="unet")
        >>> len(found.layers), found.layers[0].heads, -1 < found.median("symmetry") < 1
        (7, 2, True)
    """
    parts = find_parts(checkpoint, Heads(heads, head_dim))
    names = [each.name for each in parts]
    if part is not None and part not in names:
        raise ValueError(f"symskew: {checkpoint} has no part {part!r}; there are {', '.join(map(repr, names))}.")
    layers: list[LayerWeights] = []
    skipped: dict[str, str] = {}
    for each in parts:
        if part in (None, each.name):
            layers += _measured(each, skipped)
    if not layers:
        some = [f"{name}: {why}" for name, why in skipped.items()] or sorted(parts[0].files if parts else [])
        raise ValueError(
            f"symskew: no self-attention weights could be read in {checkpoint}: "
            f"{'; '.join(some[:3]) or 'it has no part with attention'}{' …' if len(some) > 3 else ''}"
        )
    return Inspection(str(checkpoint), tuple(layers), skipped)


def _measured(part: Part, skipped: dict[str, str]) -> Iterator[LayerWeights]:
    sites, others = part.find()
    prefix = f"{part.name}." if part.name else ""
    skipped |= {prefix + name: why for name, why in others.items()}
    for index, site in enumerate(sites):
        try:
            wq, wk = part.read(site)
        except ValueError as error:
            skipped[prefix + site.name] = str(error)
            continue
        heads, keys, width = wq.shape[0], wk.shape[0], wq.shape[1]
        # Heads that share keys: their W add up to one of the sum of their queries.
        whole = weight_scores(_side_by_side(accurate(wq).unflatten(0, (keys, -1)).sum(1)), _side_by_side(wk))
        each = weight_scores(wq, wk.repeat_interleave(heads // keys, 0))
        known = part.heads(site, heads * width) is not None
        yield LayerWeights(
            part=part.name,
            layer=site.name,
            index=index,
            depth=(index + 0.5) / len(sites),
            heads=heads if known else None,
            key_heads=keys if known else None,
            head_dim=width if known else None,
            features=wq.shape[-1],
            symmetry=whole.symmetry.item(),
            directionality=whole.directionality.item(),
            head_symmetry=tuple(each.symmetry.tolist()) if known else (),
            head_directionality=tuple(each.directionality.tolist()) if known else (),
        )


def _side_by_side(weights: Tensor) -> Tensor:
    return weights.flatten(0, 1)[None]


def _cells(layer: LayerWeights) -> tuple[str, ...]:
    def spread(scores: Sequence[float]) -> str:
        return f"{min(scores):+.2f} … {max(scores):+.2f}" if scores else "–"

    keys = f"/{layer.key_heads}" if layer.key_heads != layer.heads else ""
    return (
        f"{layer.part}.{layer.layer}" if layer.part else layer.layer,
        f"{layer.heads or '?'}{keys}",
        str(layer.features),
        f"{layer.symmetry:+.3f}",
        spread(layer.head_symmetry),
        f"{layer.directionality:+.3f}",
        spread(layer.head_directionality),
    )


def _draw(axes: Any, layers: Sequence[LayerWeights], score: str, *, labelled: bool) -> None:
    axes.axhline(0, color="#d0d7de", linewidth=1, zorder=0)
    for layer in layers:
        points = getattr(layer, f"head_{score}")
        axes.plot([layer.index] * len(points), points, ".", color="#69707a", alpha=0.5, markersize=5)
    axes.plot([layer.index for layer in layers], [getattr(layer, score) for layer in layers], "o-", color="#0072b2")
    axes.set_ylim(-1.05, 1.05)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if labelled:
        axes.set_ylabel(f"{score} of W\n(line: layers, points: heads)")


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        with replacing(Path(path)) as partial:
            partial.write_text(text, encoding="utf-8")
    return text
