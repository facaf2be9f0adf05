"""Circulation, the knob, and the attention operator that turns it: scale, blend, rescale, adapt (Algorithm 2)."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from symskew.algebra import accurate, check_self_attention, share_heads, symmetry_index
from symskew.retrieval import Logits, blocks, retrieve, vanilla

Adaptive = Literal["call", "sample", "head"]
Norm = Literal["perturbed", "baseline"]
Space = Literal["value", "input", "sketch"]

NORM_FLOOR, RATIO_MIN, RATIO_MAX = 1e-6, 0.25, 4.0
"""Of the norm matching in Algorithm 2: norms are at least NORM_FLOOR, their ratio stays within the two bounds."""


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

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "sym"):
            value = getattr(self, name)
            numbers = value.detach().flatten().tolist() if isinstance(value, Tensor) else [value]
            if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
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
    def replaces(self) -> bool:
        """Whether the result is the circulated retrieval alone, so that the vanilla one need not be computed."""
        fixed = not isinstance(self.beta, Tensor) and self.beta == 1 and self.adaptive is None
        return fixed and self.norm != "baseline"

    @property
    def needs_x(self) -> bool:
        """Whether `circulate` must be given the input features x."""
        return self.space != "value" and self.norm is not None and not (self.is_identity or self.replaces)

    def effective(
        self, q: Tensor, k: Tensor, mask: Tensor | None = None
    ) -> tuple[Float[Tensor, "#batch #heads"], Float[Tensor, "#batch #heads"]]:
        """The alpha and beta that act on one call, after adaptation (Eqs. 37, 38, 41); on q's device."""
        dtype = torch.promote_types(q.dtype, torch.float32)
        alpha, beta = (torch.as_tensor(v, dtype=dtype, device=q.device) for v in (self.alpha, self.beta))
        if alpha.ndim == 0:
            alpha = alpha.view(1, 1)
        if beta.ndim == 0:
            beta = beta.view(1, 1)
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
        """The settings that differ from the defaults, as plain values: `Circulation(**d)` gives them back."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in given.items()}
        return {field.name: plain[field.name] for field in fields(self) if plain[field.name] != field.default}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Circulation:
        """The inverse of `to_dict`; lists become tensors."""
        unknown = settings.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"Circulation: unknown settings {sorted(unknown)}")
        values: dict[str, Any] = {n: torch.tensor(v) if isinstance(v, list) else v for n, v in settings.items()}
        return cls(**values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Circulation) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))

    def __repr__(self) -> str:
        return f"Circulation({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"


def circulate(
    q: Float[Tensor, "batch heads tokens head_dim"],
    k: Float[Tensor, "batch kv_heads tokens head_dim"],
    v: Float[Tensor, "batch kv_heads tokens value_dim"],
    circulation: Circulation,
    *,
    x: Float[Tensor, "batch tokens features"] | None = None,
    mask: Tensor | None = None,
    scale: float | None = None,
    causal: bool = False,
) -> Float[Tensor, "batch heads tokens value_dim"]:
    """Self-attention with its circulation controlled: Algorithm 2, Eqs. 31 to 34 and 36 to 42.

    The decomposition is of q kᵀ as it enters the softmax (Eq. 18), so biases, QK-norm, rotary embeddings, joint text
    and image tokens and grouped queries need no special care. No tokens × tokens matrix is ever in memory, nor anything
    of the size batch × heads × tokens × features.

    Differs from the published code, which decomposes the weights (Eq. 19) and so serves layers without bias, norm or
    rotary embedding only; on those the two agree, to rounding, with `space="input"`.

    Args:
        q, k, v: as they enter the attention; k and v may have fewer heads (grouped queries).
        circulation: the settings; the identity gives torch's own attention, bit for bit.
        x: the features that were projected to q, k and v, needed where `circulation.needs_x`.
        mask: as `attn_mask` of torch's attention: boolean (True takes part) or additive.
        scale: of the logits; 1/√head_dim by default.
        causal: hide later tokens, as `is_causal` of torch's attention.

    Returns:
        The retrieved values, in v's dtype. Sums and the blend are in float32 (float64 for float64 input); on an
        accelerator the two retrievals come from fused kernels in the dtype of q.

    Raises:
        ValueError: shapes that are not those of one self-attention call, or x missing.

    >>> q, k, v = torch.randn(3, 2, 4, 64, 16)
    >>> circulate(q, k, v, Circulation(1.1, 4)).shape
    torch.Size([2, 4, 64, 16])
    >>> torch.equal(circulate(q, k, v, Circulation()), torch.nn.functional.scaled_dot_product_attention(q, k, v))
    True
    """
    check_self_attention("circulate", q, k, v)
    if circulation.is_identity:
        return vanilla(q, k, v, mask, scale, causal)
    if causal and mask is not None:
        raise ValueError("circulate: give a mask or causal=True, not both; fold the causal part into the mask")
    k, v = share_heads(k, q.shape[1]), share_heads(v, q.shape[1])
    alpha, beta = (value[..., None, None] for value in circulation.effective(q, k, mask))
    c1, c2 = (circulation.sym + alpha) / 2, (circulation.sym - alpha) / 2
    logits = Logits(q, k, c1, c2, mask, q.shape[-1] ** -0.5 if scale is None else scale, causal)
    if circulation.replaces:
        return retrieve(logits, v, both=False)[1].to(v.dtype)

    sketch = None
    values = v
    if circulation.needs_x:
        x = _checked(x, q)
        if circulation.space == "sketch":
            sketch = _sketch(x, width=v.shape[-1])
            values = torch.cat([accurate(v), sketch.columns.unsqueeze(1).expand(-1, q.shape[1], -1, -1)], -1)
    plain, circulated = retrieve(logits, values, both=True)
    assert plain is not None
    plain, circulated = accurate(plain), accurate(circulated)
    blended = plain + beta * (circulated - plain)
    reference = plain if circulation.norm == "baseline" else circulated
    if circulation.norm is None:
        ratio = 1.0
    elif x is not None and circulation.space == "input":
        ratio = _ratio(*_input_norms(logits, x, beta, circulation.norm == "baseline"))
    elif sketch is not None:
        ratio = _ratio(sketch.norm(reference[..., v.shape[-1] :]), sketch.norm(blended[..., v.shape[-1] :]))
    else:
        ratio = _ratio(*(t.square().sum(-1, keepdim=True).sqrt() for t in (reference, blended)))
    return (blended[..., : v.shape[-1]] * ratio).to(v.dtype)


def _ratio(reference: Tensor, current: Tensor) -> Tensor:
    return (reference.clamp_min(NORM_FLOOR) / current.clamp_min(NORM_FLOOR)).clamp(RATIO_MIN, RATIO_MAX)


def _checked(x: Tensor | None, q: Tensor) -> Tensor:
    want = (q.shape[0], q.shape[2])
    if x is None or x.ndim != 3 or x.shape[:2] != want:
        came = "none" if x is None else tuple(x.shape)
        raise ValueError(
            f"circulate: this space needs the input features x of shape (batch, tokens, features) with (batch, tokens) "
            f"{want}, got {came}; pass x, or use space='value'"
        )
    return x


def _input_norms(logits: Logits, x: Tensor, beta: Tensor, baseline: bool) -> tuple[Tensor, Tensor]:
    """Norms over the input features of the reference and the blended retrieval, each (batch, heads, tokens, 1).

    The blend is linear, so it may be made of the probabilities: two products with x, and only norms are kept.
    """
    batch, heads, tokens, _ = logits.q.shape
    x, beta = accurate(x), accurate(beta).expand(batch, heads, 1, 1).flatten(0, 1)
    reference, current = (x.new_empty(batch * heads, tokens, 1) for _ in range(2))
    for some, rows, p, p_circulated in blocks(logits, both=True):
        samples = x[some.start // heads : (some.stop - 1) // heads + 1]
        assert p is not None
        for norms, weights in (
            (reference, p if baseline else p_circulated),
            (current, torch.lerp(p, p_circulated, beta[some])),
        ):
            retrieved = weights.reshape(len(samples), -1, tokens) @ samples
            norms[some, rows] = torch.linalg.vector_norm(retrieved, dim=-1).view(*p.shape[:2], 1)
    return reference.view(batch, heads, tokens, 1), current.view(batch, heads, tokens, 1)


@dataclass(frozen=True)
class _Sketch:
    """Columns whose retrieval gives the norm of the retrieved x: ‖p x‖² = ‖x̄‖² + 2 x̄·(p x_c) + ‖p x_c‖².

    x_c is centred over tokens and the rows of p sum to 1, so only the last term is estimated, by random projections.
    """

    columns: Tensor
    mean_square: Tensor

    def norm(self, retrieved: Tensor) -> Tensor:
        cross, projected = retrieved[..., :1], retrieved[..., 1:]
        square = self.mean_square[:, None] + 2 * cross + projected.square().sum(-1, keepdim=True)
        return square.clamp_min(0).sqrt()


def _sketch(x: Tensor, width: int) -> _Sketch:
    x = accurate(x)
    mean = x.mean(1, keepdim=True)
    generator = torch.Generator().manual_seed(0)
    projection = torch.randn(x.shape[-1], max(1, width - 1), generator=generator, dtype=torch.double).to(x)
    centred = x - mean
    columns = torch.cat([centred @ mean.mT, centred @ projection / projection.shape[1] ** 0.5], -1)
    return _Sketch(columns, mean.square().sum(-1, keepdim=True))
