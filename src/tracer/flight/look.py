"""The look at a step before the optimizer does: its numbers are read and judged, now or when they have arrived."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from tracer.capture.clipping import Clipped
from tracer.flight.amp import Amp
from tracer.flight.calls import Calls
from tracer.flight.checks import Late, chosen_mode
from tracer.flight.holdings import Held, Holdings, is_fused
from tracer.flight.judgement import ClipNotes, Judge, Pending, flag_of, norm_for_nothing
from tracer.flight.responses import Anomaly
from tracer.flight.ring import Ring, strip
from tracer.flight.sentinels import Sentinels
from tracer.flight.settings import FlightConfig
from tracer.flight.steps import Step
from tracer.sink import Guard

_MOST_PENDING = 4
_NOT_EXACT = "The fault was noticed after the optimizer had changed the parameters; they are those of a later step."

#: What is wrong, and whose step it was.
Found = list[tuple[Anomaly, Optimizer | None]]


class Look:
    """Reads and judges the numbers of steps.

    Args:
        calls: Where the step under way is kept.
        holdings: What optimizers hold of the model.
        amp: The GradScaler beside it.
        ring: The steps before.
        config: The settings.
        guard: What tells the user of a guard that cannot work.
        norms: Returns the norm that somebody has measured at this step already.
        logged: Returns the loss that was logged last.
    """

    def __init__(
        self,
        calls: Calls,
        holdings: Holdings,
        amp: Amp,
        ring: Ring,
        config: FlightConfig,
        guard: Guard,
        *,
        norms: Callable[[], float | None] | None,
        logged: Callable[[], float | None] | None,
    ) -> None:
        self._calls, self._holdings, self._amp, self._ring = calls, holdings, amp, ring
        self._config, self._guard, self._norms, self._logged = config, guard, norms, logged
        self._guards = config.guard or config.on_anomaly == "guard"
        protects = self._guards or config.on_anomaly != "continue"
        self._sentinels = Sentinels(thorough=protects or config.check != "auto")
        self._judge, self._clips = Judge(), ClipNotes()
        self._pending: deque[Pending] = deque()
        self._last_logged: float | None = None

    @property
    def check(self) -> str:
        """How the norm is read: `sync` or `delayed`."""
        held = self._holdings.first()
        device = held.parameters[0].device if held is not None else torch.device("cpu")
        return chosen_mode(self._config.check, device, user_waits=self._clips.waits or self._amp.waits)

    def examine(self, optimizer: Optimizer | None, held: Held) -> Found:
        """Return what is wrong with the step under way, and with those whose numbers have arrived."""
        step = self._calls.step
        found = self._arrived() if self._pending else []
        scaled = self._amp.commits(optimizer, step)
        norm, norm_type = norm_for_nothing(held, self._clips, self._norms) or (None, 2.0)
        if norm is None:
            norm = self._sentinels.norm(held, self._calls.step_s, fully=scaled)
        if norm is None:  # nothing is wrong where it would show; the loss is looked at all the same
            self._amp.done()
            seen_loss = self._judged_loss(step)
            return [*found, (seen_loss, optimizer)] if seen_loss is not None else found
        norm = self._amp.unscaled(norm, step)
        if self._guards and optimizer is not None:
            self._protect(optimizer, held, norm)
        at_once = isinstance(norm, float) or (norm.is_cpu and self._config.check != "delayed")
        if not at_once and isinstance(norm, Tensor) and self.check == "delayed":
            self._postpone(step, norm, norm_type, optimizer, held, scaled=scaled)
            return found
        value = float(norm)
        if scaled and not math.isfinite(value):
            self._amp.skips(step, optimizer)
            return found
        self._amp.done()
        seen = (self._judge.norm(step, value, norm_type), self._judged_loss(step))
        return found + [(anomaly, optimizer) for anomaly in seen if anomaly is not None]

    def clipped(self, clip: Clipped) -> None:
        """Take note of a clipping."""
        kept = self._clips.add(clip, self._holdings.names())
        if kept is not None:
            self._calls.step.clips.append(kept)

    def step_ended(self, step: Step) -> None:
        """Let go of what belonged to a step alone, unless its numbers are still to come."""
        self._clips.clear()
        if not self._pending or self._pending[-1].step is not step:
            strip(step)

    def discard(self) -> None:
        """Forget the clippings of a step that will not be done."""
        self._clips.clear()

    def goes_on(self, anomaly: Anomaly) -> bool:
        """Tell whether an anomaly only goes on with what was reported before."""
        return self._judge.is_standing(anomaly)

    def forget(self) -> None:
        """Let go of everything."""
        self._clips.forget()
        self._pending.clear()

    def _judged_loss(self, step: Step) -> Anomaly | None:
        """Judge the loss that the model returned, or else the one that was logged since the last step."""
        if self._calls.loss is not None:
            return self._judge.loss(step, float(self._calls.loss), returned=True)
        logged = self._logged() if self._logged is not None else None
        if logged is None or repr(logged) == repr(self._last_logged):  # by text, for NaN is not equal to itself
            return None
        self._last_logged = logged
        previous = self._ring.last()
        if previous is not None:
            previous.loss = logged
        return self._judge.loss(step, logged, returned=False)

    def _arrived(self) -> Found:
        """Judge the steps whose numbers have come from the device meanwhile."""
        found: Found = []
        while self._pending and (self._pending[0].arrived() or len(self._pending) >= _MOST_PENDING):
            pending = self._pending.popleft()
            value = pending.norm.value()
            whose = pending.optimizer()
            if pending.scale is not None:
                pending.step.scale = pending.scale.value()
            if pending.scaled and not math.isfinite(value):
                self._amp.skips(pending.step, whose)
                continue
            anomaly = self._judge.norm(pending.step, value, pending.norm_type)
            if anomaly is None:
                strip(pending.step)
                continue
            anomaly.exact = pending.exact and not math.isfinite(value)
            anomaly.notes = () if anomaly.exact else (_NOT_EXACT,)
            found.append((anomaly, whose))
        return found

    def _postpone(
        self,
        step: Step,
        norm: Tensor,
        norm_type: float,
        optimizer: Optimizer | None,
        held: Held,
        *,
        scaled: bool,
    ) -> None:
        """Leave the numbers of a step on their way from the device."""
        scale = self._amp.scale
        late = Late(scale) if scaled and isinstance(scale, Tensor) else None
        whose = held.optimizer if optimizer is not None else _nobody
        self._pending.append(Pending(step, Late(norm), norm_type, whose, late, scaled=scaled, exact=held.flagged))

    def _protect(self, optimizer: Optimizer, held: Held, norm: Tensor | float) -> None:
        """Have a fused optimizer skip this update on the device if its gradients are not finite."""
        if not is_fused(optimizer):
            self._guard.say("guard needs fused", f"guard is on, but this {type(optimizer).__name__} is not fused.")
            return
        if getattr(optimizer, "found_inf", None) is None:
            optimizer.found_inf = flag_of(norm, held.parameters[0].device)  # type: ignore[attr-defined]  # read by fused optimizers
            held.flagged = True


def _nobody() -> None:
    """Stand for an optimizer that is not torch's."""


__all__ = ["Found", "Look"]
