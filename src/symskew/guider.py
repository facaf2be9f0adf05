"""A guider for Modular Diffusers: guidance away from a pass whose self-attention is circulated.

diffusers is imported here at the top: import this module where guiders are used, `symskew` itself does not.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.guiders.guider_utils import BaseGuidance, GuiderOutput, rescale_noise_cfg
from torch import Tensor, nn

from symskew.circulation import Circulation
from symskew.perturbation import Circulating
from symskew.schedule import check_window
from symskew.selection import Selector, choose_layers
from symskew.silence import SilentControlError
from symskew.weak import WeakPass, away, check_scale

CONDITIONAL, UNCONDITIONAL, WEAK = "pred_cond", "pred_uncond", "pred_cond_weak"


class CirculatedAttentionGuidance(BaseGuidance):
    """Guidance away from the prediction with circulated self-attention, in the place of a pipeline's guider.

        guided      u + ω·(c − u) + s·(c − w)       w: the conditional prediction, its attention circulated

    The same as `symskew.weak.weaken` with `Circulating` on a pipeline of the usual kind, by one pass per step for each
    of c, u and w. The weak pass is a branch of its own: other controls act in it too, except in its own layers, but not
    those that are for one branch, by `Circulation(branch=…)`; a diagnosis of the modular pipeline calls it "perturbed".

    Args:
        circulation: of the weak pass, by numbers, or its `to_dict()`; `Circulation.sym_only()` guides towards more
            circulation.
        guidance_scale: ω; 1 leaves u out.
        weak_scale: s, above 0.
        layers: where attention is circulated, as in `symskew.control`.
        weak_start, weak_stop: the part of the steps that have a weak pass, as in `symskew.control`.
        guidance_rescale: as in diffusers' other guiders.
        start, stop, enabled: when there is any guidance by u, as in diffusers' other guiders.

    Raises:
        ValueError: a scale, window or circulation that would do nothing or cannot be used; in the first pass, a pattern
            that picks no layer, and caches; with the first step, a window that holds none.
        SilentControlError: chosen layers attended out of reach in a weak pass.

    Example:
        >>> guider = CirculatedAttentionGuidance(Circulation(0.0), guidance_scale=5.0, weak_scale=2.0)
        >>> pipe.update_components(guider=guider)          # doctest: +SKIP
        >>> image = pipe(prompt="a red seven").images[0]   # doctest: +SKIP
    """

    _input_predictions = [CONDITIONAL, UNCONDITIONAL, WEAK]  # noqa: RUF012, as the base class has it

    @register_to_config
    def __init__(
        self,
        circulation: Circulation | dict[str, Any],
        guidance_scale: float = 7.5,
        weak_scale: float = 2.0,
        layers: Selector = "mid",
        weak_start: float = 0.0,
        weak_stop: float = 1.0,
        guidance_rescale: float = 0.0,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ) -> None:
        super().__init__(start, stop, enabled)
        check_scale(weak_scale)
        check_window(weak_start, weak_stop)
        settings = Circulation.from_dict(dict(circulation)) if isinstance(circulation, dict) else circulation
        self.perturbation = Circulating(settings)
        # As plain values, so that the configuration can be saved; and all of them, since diffusers takes what was given
        # by position for defaults, and would not load it.
        self.register_to_config(circulation=settings.to_dict(), _use_default_values=[])
        self.guidance_scale, self.weak_scale, self.guidance_rescale = guidance_scale, weak_scale, guidance_rescale
        self.layers, self.weak_start, self.weak_stop = layers, weak_start, weak_stop
        self._pass: WeakPass | None = None

    def set_state(self, step: int, num_inference_steps: int, timestep: Any) -> None:
        """Which step it is, told by the pipeline."""
        super().set_state(step, num_inference_steps, timestep)
        if self._enabled and not any(self._in_window(step) for step in range(num_inference_steps)):
            raise ValueError(
                f"symskew: no step lies between weak_start={self.weak_start:g} and weak_stop={self.weak_stop:g}: the "
                f"{num_inference_steps} steps begin at multiples of {1 / num_inference_steps:.3g}; widen the window or "
                "take more steps."
            )

    def prepare_models(self, denoiser: nn.Module) -> None:
        """Before each pass: have the next one be weak, if it is its turn."""
        self._forget()
        super().prepare_models(denoiser)
        if self._passes()[self._count_prepared - 1] == WEAK:
            ((root, layers),) = choose_layers(denoiser, self.layers)
            caller = sys._getframe(1)
            while caller.f_code.co_name == "prepare_models" and caller.f_back:  # of a subclass
                caller = caller.f_back
            self._pass = WeakPass(root, layers, self.perturbation, caller)
            self._pass.__enter__()

    def cleanup_models(self, denoiser: nn.Module) -> None:
        """After each pass that ended well: see that a weak one was weak. Its attention is already restored."""
        done = self._forget()
        if done and not done.verified:
            raise SilentControlError(
                f"symskew: the weak pass of {type(denoiser).__name__} went past its forward, so nothing was weak; "
                "give the pipeline a denoiser that is called as a module, by whoever prepared it."
            )

    def prepare_inputs(self, data: Any) -> list[Any]:
        """The inputs of each pass."""
        return [self._prepare_batch(data, name == UNCONDITIONAL, name) for name in self._passes()]

    def prepare_inputs_from_block_state(self, data: Any, input_fields: dict[str, Any]) -> list[Any]:
        """The inputs of each pass, from the state of a block."""
        passes = self._passes()
        return [self._prepare_batch_from_block_state(input_fields, data, n == UNCONDITIONAL, n) for n in passes]

    def forward(
        self, pred_cond: Tensor, pred_uncond: Tensor | None = None, pred_cond_weak: Tensor | None = None
    ) -> GuiderOutput:
        """The guided prediction."""
        pred = pred_cond if pred_uncond is None else pred_uncond + self.guidance_scale * (pred_cond - pred_uncond)
        if pred_cond_weak is not None:
            pred = (pred + away(pred_cond, pred_cond_weak, self.weak_scale)).to(pred_cond.dtype)
        if self.guidance_rescale > 0:
            pred = rescale_noise_cfg(pred, pred_cond, self.guidance_rescale)
        return GuiderOutput(pred=pred, pred_cond=pred_cond, pred_uncond=pred_uncond)

    @property
    def is_conditional(self) -> bool:
        """Whether the pass that was prepared is of the prompt, weak or not."""
        return self._count_prepared > 0 and self._passes()[self._count_prepared - 1] != UNCONDITIONAL

    @property
    def num_conditions(self) -> int:
        """How many passes this step takes."""
        return len(self._passes())

    def _forget(self) -> WeakPass | None:
        """Let go of the weak pass that was prepared, if one was: it is over, or broke off before its forward."""
        done, self._pass = self._pass, None
        if done:
            done.__exit__()
        return done

    def _passes(self) -> list[str]:
        """The passes of this step, in their order."""
        if not self._enabled:
            return [CONDITIONAL]
        steps, step = self._num_inference_steps, self._step
        # As in diffusers' guiders, which round down where symskew's windows are exact.
        guided = steps is None or int(self._start * steps) <= step < int(self._stop * steps)
        guided &= not math.isclose(self.guidance_scale, 1.0)
        weak = steps is None or self._in_window(step)
        return [CONDITIONAL, *[UNCONDITIONAL] * guided, *[WEAK] * weak]

    def _in_window(self, step: int) -> bool:
        fraction = step / (self._num_inference_steps or 1)
        return self.weak_start - 1e-9 <= fraction < self.weak_stop - 1e-9
