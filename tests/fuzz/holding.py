"""What is in force, what has to come of it, and which errors."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import note
from torch import Tensor

import dense
import symskew
from fuzz.shadow import Seen
from symskew import Circulation, Gate, SilentControlError, SilentProbeError
from symskew.reading import MEASURES

SETTINGS = {
    "identity": Circulation(),
    "blend": Circulation(1.3, 3),
    "calm": Circulation(0.5, 2, norm="baseline"),
    "replaced": Circulation(1.6, 1),
    "sym only": Circulation.sym_only(),
    "skew only": Circulation.skew_only(),
    "cold": Circulation.temperature(0.7),
    "call": Circulation(1.3, 3, adaptive="call"),
    "sample": Circulation(1.3, 3, adaptive="sample", norm=None),
    "head": Circulation(0.6, 4, adaptive="head"),
    "input": Circulation(1.3, 3, space="input"),
    "per sample": Circulation(torch.tensor([[1.4], [0.7]]), 3),
    "per sample beta": Circulation(1.4, torch.tensor([[3.0], [1.0]])),
    "open gate": Circulation(1.3, 3, gate=Gate("alignment", 1.0)),
    "closed gate": Circulation(1.3, 3, gate=Gate("alignment", -1.0)),
}
KNOWING = ("input", "per sample", "per sample beta", "open gate")
"""Those that need to know more of a model: what its projections see, which rows of its attention are an image's, and
that more than two tokens attend to each other: the alignment of two is 1 or −1, and that of 1 keeps the gate shut."""
WHOLE = (0.0, 1.0)
WINDOWS = [WHOLE, (0.0, 0.5), (0.3, 1.0), (0.3, 0.6)]
CLOSE = {torch.float32: (3e-4, 1e-3), torch.float64: (3e-5, 1e-4), torch.bfloat16: (0.15, 0.1)}
"""(absolute, relative): the models' own rounding between two attentions; transformers normalize in float32."""


@dataclass(eq=False)
class Block:
    """A control or diagnosis of some layers, in a `with` block or, where it is enabled, without."""

    target: Any
    names: set[str]
    settings: Circulation | None = None
    """None: a diagnosis."""
    window: tuple[float, float] = WHOLE
    enabled: bool = False
    given: Any = None
    """The handle or the record, once it is begun."""
    manager: AbstractContextManager[Any] | None = None
    runs: int = 0
    """Forwards that were begun within its window."""
    good: int = 0
    """Those that ended well, with every layer in reach."""

    def begin(self) -> None:
        """Attach."""
        how: Any = {"layers": sorted(self.names)}
        if self.window != WHOLE:
            how |= dict(zip(("start", "stop"), self.window, strict=True))
        if self.settings is None:
            self.manager = symskew.diagnose(self.target, features=None, states="value", **how)
        elif self.enabled:
            self.given = symskew.enable(self.target, self.settings, **how)
        else:
            self.manager = symskew.control(self.target, self.settings, **how)
        if self.manager is not None:
            self.given = self.manager.__enter__()

    def end(self) -> None:
        """Leave, as when all went well."""
        if self.manager is None:
            symskew.disable(self.given)
        else:
            self.manager.__exit__(None, None, None)

    def fail(self, error: BaseException) -> None:
        """Leave by an error, which has to come through."""
        if self.manager is not None:
            assert not self.manager.__exit__(type(error), error, None)

    @property
    def acts(self) -> bool:
        """Whether it changes anything."""
        return self.settings is not None and not self.settings.is_identity

    @property
    def silence(self) -> type[RuntimeError]:
        """The error of having been without effect."""
        return SilentProbeError if self.settings is None else SilentControlError

    def complaint(self) -> tuple[set[Any], set[Any]]:
        """The errors that have to come when it ends, and those that may: not for a block in which all went well."""
        return {self.silence} if not self.runs else set(), {self.silence} if self.good < self.runs else set()

    def holds(self, fraction: float) -> bool:
        """Whether it acts at this part of the schedule."""
        return self.window[0] - 1e-9 <= fraction < self.window[1] - 1e-9


class Expecting:
    """One of some errors has to come, or may; no other."""

    def __init__(self, must: set[Any], may: set[Any] | None = None) -> None:
        self.must, self.may = must, must | (may or set())
        self.came = False

    def __enter__(self) -> Expecting:
        return self

    def __exit__(self, kind: Any, error: Any, _: Any) -> bool:
        if error is None:
            assert not self.must, f"nothing came where one of {self.must} was expected"
        self.came = isinstance(error, tuple(self.may))
        TALLY.errors += self.came
        if self.came:
            note(f"refused: {type(error).__name__}: {str(error)[:100]}")
        return self.came


def check_reading(numbers: Tensor, seen: Seen, rounding: float, where: str) -> None:
    """Hold what was recorded of one attention, (retrievals, batch, heads, measures), to the definitions."""
    assert len(numbers) == 2 or not seen.controlled or torch.equal(seen.vanilla, seen.out), where
    if seen.visible is not None and not seen.visible.all():
        for sample, there in enumerate(seen.visible):
            parts = (part[sample : sample + 1, :, there] for part in seen[:4])
            own = Seen(*parts, controlled=seen.controlled)  # pyright: ignore[reportCallIssue]
            check_reading(numbers[:, sample : sample + 1], own, rounding, f"{where}, sample {sample}")
        return
    eta = dense.symmetry(seen.q, seen.k)
    for row, states in zip(numbers, (seen.vanilla, seen.out), strict=False):
        moved = (states - states.mean(2, keepdim=True)).norm(dim=2)
        if (moved < rounding**2 * states.norm(dim=2)).any():
            continue  # alike in all tokens, as under the skew part of two, a state has no direction but rounding's
        wanted = dense.stability(seen.q, seen.k, states)
        measures = {"energy": wanted["energy"].mean(-1), "alignment": wanted["alignment"].mean(-1), "symmetry": eta}
        found: dict[str, Tensor] = dict(zip(MEASURES, row.unbind(-1), strict=True))
        for name, measure in measures.items():
            torch.testing.assert_close(
                found[name].double(), measure, atol=rounding, rtol=rounding, msg=lambda m, n=name: f"{n}, {where}: {m}"
            )


@dataclass
class Tally:
    """How much was done, over all sequences."""

    sequences: int = 0
    steps: int = 0
    compared: int = 0
    errors: int = 0
    interruptions: int = 0
    deeds: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"{self.sequences} sequences, {self.steps} steps, {self.compared} outputs compared, {self.errors} errors "
            f"that had to come, {self.interruptions} times Ctrl-C, {sum(self.deeds.values())} deeds of others"
        )


TALLY = Tally()
