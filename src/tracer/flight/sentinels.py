"""The norm of all gradients without reading all of them at every step: small ones stand watch for the rest.

Reading every gradient once costs more than one per cent of a training step where nothing else reads them. But what is
not finite spreads: it reaches the gradients of biases and norms at its own layer and of all layers before it. So the
small tensors are read at every step, everything as often as half a per cent of the time allows, and at once when a
small one is not finite. A bad number that shows in large gradients alone is noticed at the next full look, or in the
step after its own, when the parameters carry it on.
"""

from __future__ import annotations

import math
import weakref

from torch import Tensor

from tracer import clock
from tracer.flight.checks import gradient_norm
from tracer.flight.holdings import Held

#: The part of the time that full looks may take.
_SHARE = 0.005
#: What stands watch is at most this part of all values.
_SMALL_PART = 1 / 32
_MOST_STEPS = 32


class Sentinels:
    """Reads the norm of the gradients of a model on the CPU, fully or only where a bad number would show.

    Args:
        thorough: Whether every gradient is read at every step, because the training is to be protected.
    """

    def __init__(self, *, thorough: bool) -> None:
        self._thorough = thorough
        self._small: weakref.WeakKeyDictionary[Held, list[Tensor]] = weakref.WeakKeyDictionary()
        self._interval, self._until_full = 1, 0

    @property
    def interval(self) -> int:
        """Every how many steps all gradients are read."""
        return self._interval

    def norm(self, held: Held, step_s: float, *, fully: bool = False) -> Tensor | float | None:
        """Return the norm of all gradients, or None where only the small ones were read, and found finite.

        Args:
            held: What the optimizer holds.
            step_s: How long steps are; 0 while that is not known.
            fully: Read all of them: an overflow may be skipped, and then it must not pass for a finite step.
        """
        small = self._small_of(held)
        if not (self._thorough or fully) and small and self._until_full > 0:
            self._until_full -= 1
            norm = gradient_norm([one.grad for one in small if one.grad is not None])
            if not isinstance(norm, float) or math.isfinite(norm):
                return None
        began = clock.monotonic()
        norm = gradient_norm([one.grad for one in held.parameters if one.grad is not None])
        if step_s > 0 and isinstance(norm, float):
            wanted = math.ceil((clock.monotonic() - began) / (_SHARE * step_s))
            self._interval = min(max(wanted, 1), _MOST_STEPS)
        self._until_full = self._interval - 1
        return norm

    def _small_of(self, held: Held) -> list[Tensor]:
        """Return the parameters that stand watch: as many of the smallest as fit; none if they lie on a device."""
        found = self._small.get(held)
        if found is None:
            found, room = [], sum(one.numel() for one in held.parameters) * _SMALL_PART
            for one in sorted(held.parameters, key=Tensor.numel):
                room -= one.numel()
                if room < 0 or not one.is_cpu:
                    break
                found.append(one)
            self._small[held] = found
        return found


__all__ = ["Sentinels"]
