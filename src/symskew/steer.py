"""The tap that puts circulated attention in the place of a layer's own, and the session that makes sure it does."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from symskew.branch import Branches, Share
from symskew.circulate import Circulated, Circulation, circulated
from symskew.grid import Grid, find_grids, locate
from symskew.layers import IMAGE_FIRST, TEXT_FIRST, Layer
from symskew.ramp import Point, by_layer, changes, over_steps
from symskew.schedule import Window
from symskew.seam import Call
from symskew.silence import SilentControlError
from symskew.timeline import batch_of, is_repeated
from symskew.vigilance import Sentry, Watch, guidance_blocks

if TYPE_CHECKING:
    from typing_extensions import Self


class Settings:
    """A circulation for every number of blocks that guidance may stack, eager and traced; shared by layers.

    Where it changes along the way, or is for one branch, `at` has what acts at a point, on the rows of the branch.
    """

    def __init__(self, circulation: Circulation, *, beta_changes: bool = False) -> None:
        self.plain = circulation
        self.guided: int | None = None
        """How many blocks the pipeline's guidance stacks, if it says so."""
        self.varies = circulation.is_changing or circulation.branch is not None
        self.by_layer = by_layer(circulation.alpha) or by_layer(circulation.beta)
        if self.varies:
            return
        self.batch = _samples(circulation)
        # Made now, since making one looks at its numbers, which compiled code cannot.
        self.tiled = {blocks: _tile(circulation, blocks) for blocks in (1, 2, 3, 4)} if self.batch > 1 else {}
        # Numbers would be compiled into the graph, one graph for each; tensors of one number are not.
        kinds = self.tiled or {1: circulation}
        self.traced = {blocks: _as_tensors(some, beta_changes) for blocks, some in kinds.items()}

    def at(self, point: Point) -> Settings:
        """What acts at a point."""
        return Settings(self.plain.resolve(point), beta_changes=changes(self.plain.beta))

    def of(self, rows: int, layer: Layer) -> Circulation:
        """The settings for a call over this many rows: blocks of the whole batch, [unconditional, conditional]."""
        if self.varies:
            raise ValueError(
                f"symskew: {layer.name} was run by a call that went past its model, so neither step nor branch is "
                f"known there for {self.plain}; run the model as a whole, or take settings that need neither."
            )
        compiling, blocks = torch.compiler.is_compiling(), 1
        if self.tiled:
            if rows % self.batch:
                raise ValueError(
                    f"symskew: alpha or beta is given for {self.batch} samples, but {layer.name} attends for {rows}, "
                    f"which is no multiple of it; give one row per image of the call, or (1, heads) for all."
                )
            blocks = int(rows // self.batch)
            stacked = 1 if layer.transformers else self.guided
            if stacked is not None and blocks > stacked:  # fewer in the layers of PAG
                raise ValueError(
                    f"symskew: alpha or beta is given for {self.batch} samples, but {layer.name} attends for {rows} "
                    f"rows, {rows // stacked} samples in {stacked} block(s) of guidance; give one row per sample "
                    "(prompts × num_images_per_prompt, texts × beams, those of one together), or (1, heads) for all."
                )
            if blocks not in self.tiled and not compiling:
                self.tiled[blocks] = _tile(self.plain, blocks)
        return self.traced[blocks] if compiling else self.tiled.get(blocks, self.plain)


def _samples(circulation: Circulation) -> int:
    """For how many samples alpha or beta is given; 1 where they are for all."""
    tensors = [value for value in (circulation.alpha, circulation.beta) if isinstance(value, Tensor)]
    return max((value.shape[0] for value in tensors if value.ndim == 2), default=1)


def _tile(circulation: Circulation, blocks: int) -> Circulation:
    def tile(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim == 2 and value.shape[0] > 1:
            return value.repeat(blocks, 1)
        return value

    return dataclasses.replace(circulation, alpha=tile(circulation.alpha), beta=tile(circulation.beta))


def _as_tensors(circulation: Circulation, beta_changes: bool) -> Circulation:
    def tensor(value: Any) -> Tensor:
        return value if isinstance(value, Tensor) else torch.tensor(float(value))

    # A beta of one saves half of the work, which only a number can tell; not where it is one at a single step.
    beta = circulation.beta if circulation.unblended and not beta_changes else tensor(circulation.beta)
    gate = circulation.gate
    if gate is not None and not isinstance(gate.threshold, Mapping):
        gate = dataclasses.replace(gate, threshold=tensor(gate.threshold))
    return dataclasses.replace(circulation, alpha=tensor(circulation.alpha), beta=beta, gate=gate)


class Steer(Sentry):
    """Replaces the attention of one layer by its circulation."""

    def __init__(self, layer: Layer, settings: Settings) -> None:
        super().__init__(layer)
        self.settings = settings
        """Those that act in this forward."""
        self.idle = settings.plain.is_identity
        self.share: Share | None = None
        """The rows it acts on; None for all."""
        self.grids: list[Grid] = []
        """Those of the forward that runs, where the image's tokens are to be told."""
        self.mixed = False  # and whether others were beside them
        self.peak: Tensor | None = None

    def attend(self, call: Call, inner: Callable[[], Tensor]) -> Tensor:
        """The circulated attention of the rows it acts on, whatever would be there without; others are `inner`'s."""
        self.acted = True
        batch = call.q.shape[0]
        rows = slice(0, batch) if self.share is None else self.share.of(batch, call.given)
        count = rows.stop - rows.start
        rest = inner() if count < batch else None
        if self.idle and not call.acts:
            return call.vanilla() if rest is None else rest
        if rest is not None and not count:
            return rest
        circulation, result = self._circulated(call, rows)
        self.note(result.out)
        call.circulated = result if rest is None else _among(result, rows, rest, call)
        call.acts.append((rows, circulation))
        return call.circulated.out

    def _circulated(self, call: Call, rows: slice) -> tuple[Circulation, Circulated]:
        circulation = self.settings.of(rows.stop - rows.start, self.layer)
        if self.idle:  # where another control has acted
            plain = call.vanilla()[rows]
            one = torch.ones((1, 1), dtype=torch.promote_types(plain.dtype, torch.float32), device=plain.device)
            return circulation, Circulated(plain, None, one, one, None)
        if circulation.tokens == "image":
            call.image = self._image(call)
        x, mask = call.x() if circulation.needs_x else None, call.mask
        q, k, v = call.q[rows], call.k[rows], call.v[rows]
        x = x if x is None else x[rows]
        mask = mask[rows] if mask is not None and mask.ndim == 4 and mask.shape[0] > 1 else mask
        image = call.image if circulation.tokens == "image" else None
        try:
            return circulation, circulated(
                q, k, v, circulation, x=x, mask=mask, scale=call.scale, causal=call.causal, image=image
            )
        except ValueError as error:
            raise ValueError(f"{error} (at {self.layer.name})") from error

    def _image(self, call: Call) -> slice:
        """Which tokens of a call are the image's."""
        tokens = call.q.shape[2]
        try:
            place, _ = locate(self.layer, tokens, call.streams, self.grids)
        except ValueError as error:
            raise ValueError(f'{error} Circulation(tokens="image") needs to know.') from error
        self.mixed |= place != slice(0, tokens)
        return place

    def note(self, out: Tensor) -> None:
        """Remember the largest magnitude: not finite if any value is not, in one pass and without a temporary."""
        peak = torch.linalg.vector_norm(out.detach(), ord=float("inf"))
        # A step may take several passes, as under a weak branch.
        self.peak = peak if self.peak is None else torch.maximum(self.peak, peak)

    def collect(self) -> None:
        """Take stock, and let go of what was stored."""
        super().collect()
        self.peak = None


def _among(result: Circulated, rows: slice, rest: Tensor, call: Call) -> Circulated:
    """What was found for some rows, among the others: exactly as the model makes them, or another control has."""
    made = call.circulated
    plain = rest if made is None else call.vanilla() if made.vanilla is None else made.vanilla
    out = torch.cat([rest[: rows.start], result.out, rest[rows.stop :]])
    alpha, beta = (value.new_ones(rest.shape[:2]) for value in (result.alpha, result.beta))
    acted = torch.zeros(len(rest), 1, dtype=torch.bool, device=rest.device)
    for some, where in ((made, slice(0, len(rest))), (result, rows)):
        if some is not None:
            alpha[where], beta[where] = some.alpha, some.beta
            acted[where] = True if some.open is None else some.open
    return Circulated(out, plain, alpha, beta, None, acted)


class Arm(Watch[Steer]):
    """A control on one denoiser: acts within a window, and makes sure that it does."""

    silence = SilentControlError
    purpose = "the control would have done nothing there"

    def __init__(self, root: nn.Module, taps: list[Steer], window: Window, target: object) -> None:
        super().__init__(root, taps)
        self._target = target
        self.window = window
        self._time: Any = None
        self._given = [tap.settings for tap in taps]
        circulation = taps[0].settings.plain
        if over_steps(circulation.alpha) or over_steps(circulation.beta):
            window.require("alpha or beta over the steps", "take the settings of one, circulation.at(progress=…)")
        self._branches = circulation.branch and Branches(target, root, circulation.branch)
        for tap in taps if circulation.by_place else ():  # known before any forward: calls may go past the model
            tap.settings = tap.settings.at(Point(None, tap.layer.stage, tap.layer.depth))
        self._per_sample = _samples(circulation) > 1
        self._told = circulation.tokens == "image" and not circulation.is_identity
        if self._told:
            _check_mixed([tap.layer for tap in taps])
        self.activate(window.whole)

    def __enter__(self) -> Self:
        super().__enter__()
        if self._branches:
            self._stack.enter_context(self._branches.listening())
        return self

    def wants(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Act on this forward if its step lies within the window, and rows of it are the branch's."""
        guided = guidance_blocks(self._target) or self._copies(args, kwargs)
        self._time = self.window.clock.time(args, kwargs)
        if not self.window.contains(self._time):
            return False
        share = self._branches.share(args, kwargs) if self._branches else None
        if self._branches and share is None:
            return False
        grids = find_grids(self.root, args, kwargs) if self._told else []
        progress = functools.cache(lambda: self.window.progress(self._time))
        made: dict[Any, Settings] = {}
        for tap, given in zip(self.taps, self._given, strict=True):
            if given.varies:
                # Shared by layers always or never, whatever the numbers: compiled code looks at who shares a tensor.
                key = given, tap.layer if given.by_layer else None
                if key not in made:
                    made[key] = given.at(Point(progress, tap.layer.stage, tap.layer.depth))
                tap.settings = made[key]
                tap.idle = tap.settings.plain.is_identity
            tap.settings.guided, tap.share = guided, share
            if self._told:
                tap.grids = grids
        return True

    def _copies(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """How many blocks a pipeline stacks that does not say: as often as the same latents come. None of a model."""
        if isinstance(self._target, nn.Module) or not self._per_sample:
            return None
        batch = batch_of(args, kwargs)
        return None if batch is None else max(blocks for blocks in (1, 2, 3) if is_repeated(batch, blocks))

    def finish(self) -> None:
        """Check that all values of the forward are finite, and that the image was told from something."""
        if self._told and any(tap.acted for tap in self.taps) and not any(tap.mixed or tap.idle for tap in self.taps):
            raise ValueError(_alone([tap.layer for tap in self.taps]))
        peaks = {tap: tap.peak for tap in self.taps if tap.peak is not None}
        if not peaks:
            return
        # A model may be spread over several devices.
        device = next(iter(peaks.values())).device
        finite = torch.stack([peak.float().to(device) for peak in peaks.values()]).isfinite().tolist()
        if not all(finite):
            names = [tap.layer.name for tap in itertools.compress(peaks, (not good for good in finite))]
            raise FloatingPointError(
                f"symskew: the controlled attention gave values that are not finite, first at {names[0]} ({len(names)} "
                f"of {len(self.taps)} layers), {self.window.describe(self._time)}: half precision overflowed, or its "
                "input was not finite to begin with; try bfloat16 or float32, smaller alpha or beta, or compare "
                "without control."
            )


def _check_mixed(layers: Sequence[Layer]) -> None:
    """Refuse to tell the image's tokens where there are no others, or in an order that is not known."""
    known = [layer for layer in layers if any(family in layer.processor for family in (*TEXT_FIRST, *IMAGE_FIRST))]
    strange = [layer for layer in layers if layer.joint and layer not in known]
    if strange:
        raise ValueError(
            f'symskew: Circulation(tokens="image") needs to know where the image\'s tokens are, and their order in '
            f"{strange[0].processor} of {strange[0].name} is unknown; leave tokens out, or the layer with layers=."
        )
    if not known:
        raise ValueError(_alone(layers))


def _alone(layers: Sequence[Layer]) -> str:
    return (
        f'symskew: Circulation(tokens="image") would change nothing: none of the {len(layers)} chosen layers, '
        f"{layers[0].name} first, attends to text and image together; leave tokens out."
    )
