"""Circulation, the knob: the settings of a controlled self-attention, and what they become on one call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from numbers import Real
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from symskew.algebra import accurate, hidden_tokens, local_field, prepared, present, symmetry_index

Measure = Literal["alignment", "instability", "energy"]
Adaptive = Literal["call", "sample", "head"]
Norm = Literal["perturbed", "baseline"]
Space = Literal["value", "input", "sketch"]


@dataclass(frozen=True)
class Gate:
    """When to act: only on samples whose vanilla retrieval is unstable, as measured in the very call that would act.

        open        mean alignment < threshold,  mean instability > threshold  or  mean energy > threshold

    The mean is over heads and features of the retrieved values, per sample, so no sample depends on what else is in its
    batch; the measures are those of `stability` with its defaults (Eqs. 21, 28, 29). Where the gate is closed the
    result is the vanilla retrieval, where it is open it is what it would be without a gate.

    Args:
        measure: "alignment", "instability" or "energy".
        threshold: of the measure, to be given: −1 to 1 for alignment, 0 to 1 for instability. A number (or a tensor of
            shape ()), or a number for each layer by its name.

    Raises:
        ValueError: an unknown measure or a threshold outside its range, naming it.

    >>> gate = Gate("alignment", {"mid_block.attn1": 0.35, "up_blocks.0.attn1": 0.2})
    >>> gate.at("mid_block.attn1")
    Gate(measure='alignment', threshold=0.35)
    >>> Circulation(1.05, 5, gate=Gate("instability", 0.4))
    Circulation(alpha=1.05, beta=5, gate=Gate(measure='instability', threshold=0.4))
    """

    measure: Measure = "alignment"
    threshold: float | Tensor | Mapping[str, float] = math.nan

    def __post_init__(self) -> None:
        if self.measure not in get_args(Measure):
            known = ", ".join(map(repr, get_args(Measure)))
            raise ValueError(f"Gate: measure must be {known}, got {self.measure!r}")
        given = self.threshold
        if not isinstance(given, Mapping):
            number = self._number(given)
            # As plain floats, and in order: settings are written as JSON, and equal ones hash alike.
            object.__setattr__(self, "threshold", given if isinstance(given, Tensor) else number)
        elif given:
            object.__setattr__(self, "threshold", {name: self._number(given[name], name) for name in sorted(given)})
        else:
            raise ValueError("Gate: a mapping of thresholds must have one for each layer, got none")

    def _number(self, value: object, layer: str | None = None) -> float:
        if isinstance(value, Tensor) and value.ndim == 0:
            value = value.item()
        number = float(value) if isinstance(value, Real) else math.nan
        low, high = {"alignment": (-1, 1), "instability": (0, 1)}.get(self.measure, (-math.inf, math.inf))
        if not (math.isfinite(number) and low <= number <= high):
            limits = "finite" if self.measure == "energy" else f"{low} to {high}"
            raise ValueError(
                f"Gate: a threshold of {self.measure} must be a number, {limits}, or one for each layer, got {value!r}"
                + (f" for {layer}" if layer else "")
            )
        return number

    def at(self, layer: str) -> Gate:
        """The gate with the threshold of one layer, given the layer's name.

        Raises:
            ValueError: there is none for this layer.
        """
        if not isinstance(self.threshold, Mapping):
            return self
        if layer not in self.threshold:
            raise ValueError(f"Gate: no threshold for the layer {layer}, only for {', '.join(self.threshold)}")
        return replace(self, threshold=self.threshold[layer])

    def opens(self, q: Tensor, k: Tensor, states: Tensor, mask: Tensor | None = None) -> Bool[Tensor, "batch 1"]:
        """On which samples it is open, by the vanilla retrieval (batch, heads, tokens, value_dim) of one call."""
        if isinstance(self.threshold, Mapping):
            raise ValueError(
                "circulate: the gate has a threshold for each layer; give that of this layer, gate=gate.at(layer_name)"
            )
        with torch.no_grad():
            hidden = hidden_tokens(mask)
            qk, xi = (prepared(accurate(t), hidden, center=True) for t in (torch.cat([q, k], -1), states))
            field, energy, alignment, _ = local_field(qk, xi)
            if self.measure == "alignment":
                return _mean(alignment) < self.threshold
            if self.measure == "energy":
                return _mean(energy) > self.threshold
            negative = (field * xi < 0).to(xi.dtype)
            return _mean(negative.sum(2, keepdim=True) / present(xi, hidden)) > self.threshold

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values: `Gate(**d)` gives them back."""
        plain = self.threshold.item() if isinstance(self.threshold, Tensor) else self.threshold
        return {"measure": self.measure, "threshold": plain}

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))


@dataclass(frozen=True, eq=False)
class Circulation:
    """How to change a self-attention: the settings of one controlled retrieval. `Circulation()` changes nothing.

        logits      sym · M_sym + alpha · M_skew                                  (Eqs. 31, 32; M = q kᵀ · scale)
        blended     Ξ + beta · (Ξ_α − Ξ)                                          (Eqs. 33, 34)
        rescaled    blended · clip(‖reference‖ / ‖blended‖, 0.25, 4)              (Algorithm 2)
        adaptive    alpha → 1 + (alpha − 1)·η̄,   beta → beta·(1 − η̄)              (Eqs. 36 to 42)

    Args:
        alpha: scale of the skew part; 1 is vanilla. A number, or a tensor of shape (), (batch, 1), (1, heads) or
            (batch, heads) for its own value per sample and head.
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

    Raises:
        ValueError: a setting outside its range, naming it.

    >>> Circulation(1.05, 5, adaptive="sample")
    Circulation(alpha=1.05, beta=5, adaptive='sample')
    >>> Circulation().is_identity, Circulation.sym_only().alpha
    (True, 0.0)
    """

    alpha: float | Tensor = 1.0
    beta: float | Tensor = 1.0
    _: KW_ONLY
    sym: float = 1.0
    adaptive: Adaptive | None = None
    norm: Norm | None = "perturbed"
    space: Space = "value"
    gate: Gate | None = None

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "sym"):
            value = getattr(self, name)
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
        for name, choices in (("adaptive", Adaptive), ("norm", Norm), ("space", Space)):
            value, known = getattr(self, name), get_args(choices)
            if value not in known and not (value is None and name != "space"):
                allowed = ", ".join(map(repr, known)) + ("" if name == "space" else " or None")
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
        return not isinstance(self.alpha, Tensor) and self.alpha == 1 and self.sym == 1

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

    def effective(
        self, q: Tensor, k: Tensor, mask: Tensor | None = None
    ) -> tuple[Float[Tensor, "#batch #heads"], Float[Tensor, "#batch #heads"]]:
        """The alpha and beta that act on one call, after adaptation (Eqs. 37, 38, 41), gate open; on q's device."""
        dtype = torch.promote_types(q.dtype, torch.float32)
        # Numbers are filled in on the device: a copy from here to there would have it wait.
        alpha, beta = (
            (value.to(q.device, dtype) if value.ndim else value.to(q.device, dtype).view(1, 1))
            if isinstance(value, Tensor)
            else torch.full((1, 1), value, dtype=dtype, device=q.device)
            for value in (self.alpha, self.beta)
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
        """The settings that differ from the defaults, as plain values: `from_dict` gives them back."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in given.items()}
        plain["gate"] = self.gate and self.gate.to_dict()
        return {field.name: plain[field.name] for field in fields(self) if plain[field.name] != field.default}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Circulation:
        """The inverse of `to_dict`; lists become tensors."""
        _check_known(cls, settings)
        values: dict[str, Any] = {n: torch.tensor(v) if isinstance(v, list) else v for n, v in settings.items()}
        if values.get("gate") is not None:
            _check_known(Gate, values["gate"])
            values["gate"] = Gate(**values["gate"])
        return cls(**values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Circulation) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))

    def __repr__(self) -> str:
        given = self.to_dict()
        if self.gate is not None:
            given["gate"] = self.gate
        return f"Circulation({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def _mean(measure: Tensor) -> Tensor:
    """Mean over all but samples, (batch, 1)."""
    return measure.flatten(1).mean(1, keepdim=True)


def _check_known(kind: type[Circulation | Gate], settings: dict[str, Any]) -> None:
    unknown = settings.keys() - {field.name for field in fields(kind)}
    if unknown:
        raise ValueError(f"{kind.__name__}: unknown settings {sorted(unknown)}")
