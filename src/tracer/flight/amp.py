"""A GradScaler beside the recorder: the scale of each step, and the steps that it skips.

A plain optimizer is not called at all when a gradient overflowed, a fused one is called and skips on the device, with
gradients that are still scaled. Both are the normal work of a scaler; only many of them in a row are an anomaly.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from tracer.capture import scaling
from tracer.flight.calls import Calls
from tracer.flight.steps import Step


class Amp:
    """Listens to scalers on behalf of one recorder.

    Args:
        calls: Where the step under way is kept.
        is_ours: Tells whether an optimizer steps the model, and whether anything is recorded just now.
        too_many: Called with a step and its optimizer when so many steps were skipped in a row.
        most_skips: How many that is.
    """

    def __init__(
        self,
        calls: Calls,
        is_ours: Callable[[Optimizer], bool],
        too_many: Callable[[Step, Optimizer | None, str], None],
        most_skips: int,
    ) -> None:
        self._calls, self._is_ours, self._too_many, self._most = calls, is_ours, too_many, most_skips
        self.scaler: GradScaler | None = None  # whose step is under way
        self.scale: Tensor | float | None = None
        self.skipped_steps = 0
        self.waits = False  # whether a plain optimizer makes the scaler wait for the device at each step
        self._row = 0
        self._committed = self._discards = False

    def scaler_steps(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        """Keep the scale of the step that a scaler is about to let happen, or not."""
        if not self._is_ours(optimizer):
            return
        self.scaler, self._committed = scaler, False
        self.scale = scaling.scale_of(scaler)
        self.waits = not getattr(optimizer, "_step_supports_amp_scaling", False)
        if isinstance(self.scale, float) or self.waits:
            self._calls.step.scale = float(self.scale)

    def commits(self, optimizer: Optimizer | None, step: Step) -> bool:
        """Take note that the optimizer was called; tell whether it may still skip, as fused ones do by themselves."""
        self._committed = True
        if optimizer is None or self.scaler is None:
            return False
        step.still_scaled = getattr(optimizer, "grad_scale", None) is not None
        return getattr(optimizer, "found_inf", None) is not None

    def unscaled(self, norm: Tensor | float, step: Step) -> Tensor | float:
        """Return a norm without the scale that the gradients still bear."""
        if not step.still_scaled or self.scale is None:
            return norm
        return norm / (self.scale if isinstance(norm, Tensor) else float(self.scale))

    def done(self) -> None:
        """Take note that a step was done, which ends a row of skips."""
        self._row = 0

    def skips(self, step: Step, optimizer: Optimizer | None) -> None:
        """Count a step that is skipped."""
        self.skipped_steps += 1
        self._row += 1
        step.notes.append("A GradScaler skipped this step.")
        if self._row == self._most:
            scale = "" if step.scale is None else f", down to a scale of {step.scale:g}"
            self._too_many(step, optimizer, f"A GradScaler skipped {self._row} steps in a row{scale}.")

    def scaler_stepped(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        """See whether the scaler skipped the step without calling the optimizer."""
        if scaler is self.scaler and self._is_ours(optimizer) and not self._committed:
            self._discards = True
            self.skips(self._calls.step, optimizer)

    def scaler_updated(self, scaler: GradScaler) -> None:
        """Forget the calls of a step that was skipped."""
        if scaler is self.scaler:
            if self._discards:
                self._calls.discard()
            self._discards, self.scaler = False, None


__all__ = ["Amp"]
