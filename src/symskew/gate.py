"""A gate: on which samples a control acts, by the stability of their vanilla retrieval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from symskew.algebra import accurate, hidden_tokens, local_field, prepared, present

Measure = Literal["alignment", "instability", "energy"]


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


def _mean(measure: Tensor) -> Tensor:
    """Mean over all but samples, (batch, 1)."""
    return measure.flatten(1).mean(1, keepdim=True)
