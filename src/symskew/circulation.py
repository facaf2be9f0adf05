"""Circulation, the knob: the settings of a controlled self-attention, and what they become on one call."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, fields, replace
from numbers import Real
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from symskew import ramp
from symskew.algebra import symmetry_index
from symskew.gate import Gate
from symskew.ramp import Changing, Point, changes

Adaptive = Literal["call", "sample", "head"]
Norm = Literal["perturbed", "baseline"]
Space = Literal["value", "input", "sketch"]
Branch = Literal["conditional", "unconditional"]
Tokens = Literal["all", "image"]


@dataclass(frozen=True, eq=False)
class Circulation:
    """How to change a self-attention: the settings of one controlled retrieval. `Circulation()` changes nothing.

        logits      sym · M_sym + alpha · M_skew                                  (Eqs. 31, 32; M = q kᵀ · scale)
        blended     Ξ + beta · (Ξ_α − Ξ)                                          (Eqs. 33, 34)
        rescaled    blended · clip(‖reference‖ / ‖blended‖, 0.25, 4)              (Algorithm 2)
        adaptive    alpha → 1 + (alpha − 1)·η̄,   beta → beta·(1 − η̄)              (Eqs. 36 to 42)

    Args:
        alpha: scale of the skew part; 1 is vanilla. A number, or a tensor of shape (), (batch, 1), (1, heads) or
            (batch, heads) for its own value per sample and head; or what changes along the way: a `Ramp`, a number or
            ramp for each stage as `{"down": 1, "mid": 3, "up": 5}`, or a function of a `Point`, which alone of these
            cannot be written down.
        beta: step from the vanilla retrieval towards the circulated one; 1 replaces it. At least 0; a number or tensor
            as alpha. The paper uses 3 to 7.5.
        sym: scale of the symmetric part.
        adaptive: adapt alpha and beta to the measured symmetry η, averaged over the whole call ("call", the paper: an
            image then depends on what else is in its batch), over the heads of each sample ("sample"), or not at all
            ("head").
        norm: whose norm each blended token is given: the circulated retrieval's ("perturbed", Algorithm 2), the vanilla
            one's ("baseline", the paper's text), or None to leave the blend as it is.
        space: where that norm is taken: of the head_dim values ("value", free), of the input features x
            ("input", exact as in Algorithm 2, heads times more work), or of random projections of x ("sketch").
        gate: act only on samples whose vanilla retrieval is unstable, and leave the others vanilla; see `Gate`. It
            decides whether to act, `adaptive` how much.
        branch: act only on the "conditional" or the "unconditional" branch of classifier-free guidance; a pass that
            guides by being worse (PAG, `symskew.weak`) is neither.
        tokens: which logits of joint attention to change: "all", or only those between "image" tokens, whose block of M
            is then decomposed by itself. Logits from and to text, and what text tokens retrieve, stay vanilla.

    Raises:
        ValueError: a setting outside its range, naming it.

    >>> Circulation(1.05, 5, adaptive="sample")
    Circulation(alpha=1.05, beta=5, adaptive='sample')
    >>> Circulation().is_identity, Circulation.sym_only().alpha
    (True, 0.0)
    >>> Circulation(ramp.Ramp(2, 1), {"down": 1, "mid": 3, "up": 5}, branch="conditional").at(
    ...     progress=0.5, stage="up", branch="conditional")
    Circulation(alpha=1.5, beta=5.0)
    """

    alpha: float | Tensor | Changing = 1.0
    beta: float | Tensor | Changing = 1.0
    _: KW_ONLY
    sym: float = 1.0
    adaptive: Adaptive | None = None
    norm: Norm | None = "perturbed"
    space: Space = "value"
    gate: Gate | None = None
    branch: Branch | None = None
    tokens: Tokens = "all"

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "sym"):
            value = getattr(self, name)
            if name != "sym" and changes(value):
                object.__setattr__(self, name, ramp.checked(name, value))
                if name == "beta" and min(ramp.numbers_in(value), default=0) < 0:
                    raise ValueError(f"Circulation: beta must be at least 0, got {value!r}")
                continue
            if isinstance(value, Real) and not isinstance(value, int | float):
                value = float(value)  # NumPy's, say: settings are written as JSON
                object.__setattr__(self, name, value)
            numbers = value.detach().flatten().tolist() if isinstance(value, Tensor) else [value]
            if not numbers or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
                raise ValueError(f"Circulation: {name} must be finite numbers, got {value!r}")
            if isinstance(value, Tensor) and value.ndim not in (0, 2):
                shape = tuple(value.shape)
                raise ValueError(
                    f"Circulation: a tensor {name} must be (), (batch, 1), (1, heads) or (batch, heads), got {shape}"
                )
            if name == "beta" and min(numbers) < 0:
                raise ValueError(f"Circulation: beta must be at least 0, got {value!r}; to steer away, use alpha < 1")
        if isinstance(self.sym, Tensor):
            raise ValueError("Circulation: sym must be a number; alpha and beta may be tensors")
        for name, choices in _CHOICES.items():
            value, known = getattr(self, name), get_args(choices)
            always = name in ("space", "tokens")
            if value not in known and not (value is None and not always):
                allowed = ", ".join(map(repr, known)) + ("" if always else " or None")
                raise ValueError(f"Circulation: {name} must be {allowed}, got {value!r}")
        if not (self.gate is None or isinstance(self.gate, Gate)):
            raise ValueError(f"Circulation: gate must be a Gate or None, got {self.gate!r}")

    @classmethod
    def sym_only(cls) -> Circulation:
        """Attention by the symmetric part alone (Figure 3): pure retrieval on the energy landscape."""
        return cls(alpha=0.0, norm=None)

    @classmethod
    def skew_only(cls) -> Circulation:
        """Attention by the skew part alone (Figure 3): pure circulation."""
        return cls(alpha=1.0, sym=0.0, norm=None)

    @classmethod
    def temperature(cls, tau: float) -> Circulation:
        """Attention at temperature tau (Eq. 43), the baseline that scales both parts alike: tau < 1 sharpens."""
        if not (math.isfinite(tau) and tau > 0):
            raise ValueError(f"Circulation.temperature: tau must be a positive number, got {tau!r}")
        return cls(alpha=1 / tau, sym=1 / tau, norm=None)

    @property
    def is_identity(self) -> bool:
        """Whether this is vanilla attention for certain, known without looking into tensors."""
        return not isinstance(self.alpha, Tensor) and self.sym == 1 and ramp.constant(self.alpha) == 1

    @property
    def is_changing(self) -> bool:
        """Whether alpha or beta changes along the way, from step to step or from layer to layer."""
        return changes(self.alpha) or changes(self.beta)

    @property
    def by_place(self) -> bool:
        """Whether alpha and beta change, but for certain with the place in the model alone."""
        values = (self.alpha, self.beta)
        return self.is_changing and self.branch is None and all(map(ramp.over_places, values))

    @property
    def unblended(self) -> bool:
        """Whether, where it acts, the result is the circulated retrieval alone."""
        fixed = not isinstance(self.beta, Tensor) and self.beta == 1 and self.adaptive is None
        return fixed and self.norm != "baseline"

    @property
    def replaces(self) -> bool:
        """Whether the result is the circulated retrieval alone, so that the vanilla one need not be computed."""
        return self.unblended and self.gate is None

    @property
    def needs_x(self) -> bool:
        """Whether `circulate` must be given the input features x."""
        return self.space != "value" and self.norm is not None and not (self.is_identity or self.unblended)

    def at(
        self,
        *,
        progress: float | None = None,
        stage: str | None = None,
        depth: float | None = None,
        branch: Branch | None = None,
    ) -> Circulation:
        """The settings at one point of a run, which `circulate` can use: numbers (or tensors) alone.

        Args:
            progress, stage, depth: as of a `Point`; what nothing depends on may be left out.
            branch: needed where the settings are for one; on the other they are the identity.

        Raises:
            ValueError: something they depend on is not given, or is out of range.

        >>> Circulation(ramp.Ramp(1.5, 1.0), 3).at(progress=0)
        Circulation(alpha=1.5, beta=3)
        """
        if self.branch is not None and branch not in get_args(Branch):
            raise ValueError(f"Circulation: acts on the {self.branch} branch; give branch=, got {branch!r}")
        if self.branch not in (None, branch):
            return Circulation()
        return self.resolve(Point(progress, stage, depth))

    def resolve(self, point: Point) -> Circulation:
        """The settings at a point, on the branch they are for; ValueError where they depend on what is not known."""
        values = {name: ramp.resolve(name, getattr(self, name), point) for name in ("alpha", "beta")}
        return replace(self, branch=None, **values)

    def check_resolved(self) -> None:
        """Refuse settings that are not yet those of one call."""
        changing = [f"{name} is {getattr(self, name)}" for name in ("alpha", "beta") if changes(getattr(self, name))]
        if changing or self.branch is not None:
            what = f"{changing[0]}, which changes along the way" if changing else f"branch is {self.branch!r}"
            raise ValueError(
                f"circulate: {what}; take the settings of one call, as in "
                "circulation.at(progress=0.5, stage='mid', depth=0.5, branch='conditional')"
            )

    def effective(
        self, q: Tensor, k: Tensor, mask: Tensor | None = None
    ) -> tuple[Float[Tensor, "#batch #heads"], Float[Tensor, "#batch #heads"]]:
        """The alpha and beta that act on one call, after adaptation (Eqs. 37, 38, 41), gate open; on q's device."""
        self.check_resolved()
        dtype = torch.promote_types(q.dtype, torch.float32)
        # Numbers are filled in on the device: a copy from here to there would have it wait.
        values: tuple[Any, Any] = (self.alpha, self.beta)
        alpha, beta = (
            (value.to(q.device, dtype) if value.ndim else value.to(q.device, dtype).view(1, 1))
            if isinstance(value, Tensor)
            else torch.full((1, 1), value, dtype=dtype, device=q.device)
            for value in values
        )
        for name, value in (("alpha", alpha), ("beta", beta)):
            if any(have not in (1, want) for have, want in zip(value.shape, q.shape[:2], strict=True)):
                raise ValueError(
                    f"circulate: {name} {tuple(value.shape)} does not fit (batch, heads) {tuple(q.shape[:2])}; "
                    "give (batch, 1), (1, heads) or (batch, heads)"
                )
        if self.adaptive is None:
            return alpha, beta
        eta = symmetry_index(q, k, mask=mask)
        if self.adaptive == "call":
            eta = eta.mean((0, 1), keepdim=True)
        elif self.adaptive == "sample":
            eta = eta.mean(1, keepdim=True)
        return 1 + (alpha - 1) * eta, beta * (1 - eta)

    def to_dict(self) -> dict[str, Any]:
        """The settings that differ from the defaults, as plain values: `from_dict` gives them back.

        Raises:
            ValueError: alpha or beta is a function, which cannot be written down.
        """
        given = self._given()
        for name in ("alpha", "beta"):
            value = given.get(name)
            if any(map(callable, value.values() if isinstance(value, dict) else [value])):
                raise ValueError(
                    f"Circulation: {name} is a function, which cannot be written into an image or a study so that it "
                    "could be read again; give a Ramp or a value for each stage, or use symskew.control, which takes it"
                )
        return given

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Circulation:
        """The inverse of `to_dict`; lists become tensors, and alpha and beta may be text, as `ramp.parse` reads it."""
        _check_known(cls, settings)
        values: dict[str, Any] = {n: torch.tensor(v) if isinstance(v, list) else v for n, v in settings.items()}
        for name in {"alpha", "beta"} & values.keys():
            try:
                values[name] = ramp.from_plain(values[name])
            except ValueError as error:
                raise ValueError(f"Circulation: {name}: {error}") from error
        if values.get("gate") is not None:
            _check_known(Gate, values["gate"])
            values["gate"] = Gate(**values["gate"])
        return cls(**values)

    def _given(self) -> dict[str, Any]:
        given = {field.name: ramp.plain(getattr(self, field.name)) for field in fields(self)}
        given["gate"] = self.gate and self.gate.to_dict()
        return {field.name: given[field.name] for field in fields(self) if given[field.name] != field.default}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Circulation) and self._given() == other._given()

    def __hash__(self) -> int:
        return hash(repr(self._given()))

    def __repr__(self) -> str:
        shown = {
            name: value if isinstance(getattr(self, name), Tensor) else getattr(self, name)
            for name, value in self._given().items()
        }
        return f"Circulation({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


_CHOICES = {"adaptive": Adaptive, "norm": Norm, "space": Space, "branch": Branch, "tokens": Tokens}


def _check_known(kind: type[Circulation | Gate], settings: dict[str, Any]) -> None:
    unknown = settings.keys() - {field.name for field in fields(kind)}
    if unknown:
        raise ValueError(f"{kind.__name__}: unknown settings {sorted(unknown)}")
