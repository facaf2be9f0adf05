"""Which rows of a forward are one branch's of classifier-free guidance: known for certain, or an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from symskew.timeline import PASSES, Timeline, batch_of, is_repeated
from symskew.vigilance import guidance_branches


def whole_batch(rows: int, given: int) -> int:
    """Rows of all branches in a layer given so many, of a denoiser given `rows`: frames of its videos may be rows."""
    return rows if given % rows else given


class Share(NamedTuple):
    """The rows of one denoiser forward that are of one branch, among those stacked in its batch."""

    branch: str
    branches: tuple[str, ...]
    rows: int

    def of(self, rows: int, given: int) -> slice:
        """The branch's rows in an attention over so many, of a layer given so many; none where it leaves them out.

        Raises:
            ValueError: the rows of the attention are not those of the forward.
        """
        whole = whole_batch(self.rows, given)
        there, size = self.branches, whole // len(self.branches)
        if rows % whole:
            # Layers of PAG attend for all but the perturbed rows, caches may leave the conditional rows alone.
            there = tuple(name for name in self.branches if name != "perturbed")
            there = there if rows == size * len(there) else ("conditional",)
            if rows != size * len(there):
                raise ValueError(
                    f"symskew: whose rows are of the {self.branch} branch cannot be told: {rows} where the denoiser "
                    f"was given {self.rows}; leave branch out of the circulation, or the layer out with layers="
                )
        block = rows // len(there)
        first = there.index(self.branch) * block if self.branch in there else rows
        return slice(first, min(first + block, rows))


class Branches:
    """Tells the branches of a pipeline's forwards apart, by what it says: names of passes, or that it guides.

    Raises:
        ValueError: the target says neither.
    """

    def __init__(self, target: object, root: nn.Module, branch: str) -> None:
        self._target, self._root, self._branch = target, root, branch
        self._timeline = Timeline(target)
        self._known: tuple[Any, Any, Any] | None = None
        self._guided: Any = None  # the times of the last generation that had the branch
        problem = ""
        if isinstance(target, nn.Module):
            problem = f"a bare {type(target).__name__} knows nothing of guidance; give the whole pipeline"
        elif not (
            hasattr(type(target), "do_classifier_free_guidance")
            or hasattr(target, "guider")
            or hasattr(root, "cache_context")
        ):
            problem = f"{type(target).__name__} does not say whether it guides, nor names its passes; leave branch out"
        if problem:
            raise ValueError(f"symskew: branch={branch!r} cannot be told from the other: {problem}.")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what the pipeline calls its passes, for as long as the block lasts."""
        with self._timeline.listening(self._root):
            yield

    def share(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Share | None:
        """The branch's part of the forward that begins, with the denoiser's arguments; None if it has none.

        Raises:
            ValueError: the branch is not there at all, or its rows cannot be told.
        """
        branch, name, target = self._branch, self._timeline.context, type(self._target).__name__
        batch = batch_of(args, kwargs)
        rows = 1 if batch is None else batch.shape[0]
        if name is not None:
            return Share(branch, (branch,), rows) if PASSES.get(name, name) == branch else None
        branches = guidance_branches(self._target)
        if branches is None:
            raise ValueError(
                f"symskew: branch={branch!r} cannot be told from the other: {target} does not say whether it guides, "
                "nor names its passes; give the pipeline that is run, or leave branch out."
            )
        if branch not in branches and self._guided is not None and self._guided is self._timesteps():
            return None  # a callback turned guidance off on the way
        if branch not in branches:
            raise ValueError(
                f"symskew: branch={branch!r} has nothing to act on: {target} was called without guidance; leave branch "
                "out, or guide."
            )
        if len(branches) > 1 and not self._stacked(batch, len(branches)):
            raise ValueError(
                f"symskew: branch={branch!r} cannot be told from the other: {target} guides, but the {rows} row(s) of "
                f"its denoiser's batch are no {len(branches)} copies of the same latents; leave branch out."
            )
        self._guided = self._timesteps()
        return Share(branch, branches, rows)

    def _stacked(self, batch: Tensor | None, blocks: int) -> bool:
        """Whether the batch is the same latents so many times over; looked at once in a generation."""
        if batch is None:
            return False
        timesteps = self._timesteps()
        if self._known is None or self._known[0] is not timesteps or self._known[1] != batch.shape:
            self._known = timesteps, batch.shape, is_repeated(batch, blocks)
        return self._known[2]

    def _timesteps(self) -> Any:
        return getattr(getattr(self._target, "scheduler", None), "timesteps", None)
