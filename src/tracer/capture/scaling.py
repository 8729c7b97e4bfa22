"""`GradScaler`, noticed: the scale of a step, and the steps that it skips because a gradient overflowed.

A scaler that skips does not call a plain optimizer at all, so nobody else would learn of it. `step` and `update` of the
class are replaced while somebody listens, and put back with the last listener. Nothing here waits for a device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from tracer.capture.listeners import Listeners


class ScalerListener(Protocol):
    """Who wants to know of a scaler; it guards itself."""

    def scaler_steps(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        """Look before the scaler lets an optimizer step, or does not."""

    def scaler_stepped(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        """Look after it; if the optimizer was not called meanwhile, its step was skipped."""

    def scaler_updated(self, scaler: GradScaler) -> None:
        """Look after the scale was adapted: the step is over for all optimizers."""


_listeners: Listeners[ScalerListener] = Listeners()
_originals: dict[str, Any] = {}


def listen(listener: ScalerListener) -> Callable[[], None]:
    """Tell a listener of every scaler from now on; return what ends that."""
    return _listeners.join(listener, _install, _remove)


def scale_of(scaler: GradScaler) -> Tensor | float:
    """Return the present scale: a number on the CPU, a copy that nobody waits for on a device."""
    scale: Tensor | None = scaler._scale  # noqa: SLF001 -- `get_scale` waits for the device
    if scale is None:
        return scaler.get_scale()
    return float(scale) if scale.device.type == "cpu" else scale.detach().clone()


def _install() -> None:
    """Put our methods in place of torch's."""
    for name, maker in (("step", _step), ("update", _update)):
        _originals[name] = getattr(GradScaler, name)
        setattr(GradScaler, name, maker(_originals[name]))


def _remove() -> None:
    """Put torch's methods back, except where somebody else has replaced ours since: theirs calls ours."""
    for name, original in _originals.items():
        if getattr(getattr(GradScaler, name), "__wrapped__", None) is original:
            setattr(GradScaler, name, original)
    _originals.clear()


def _step(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return `GradScaler.step` that tells the listeners."""

    @functools.wraps(original)
    def step(self: GradScaler, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- torch's own
        if not _listeners or torch.compiler.is_compiling() or not self.is_enabled():
            return original(self, optimizer, *args, **kwargs)
        for listener in tuple(_listeners):
            listener.scaler_steps(self, optimizer)
        value = original(self, optimizer, *args, **kwargs)
        for listener in tuple(_listeners):
            listener.scaler_stepped(self, optimizer)
        return value

    return step


def _update(original: Callable[..., None]) -> Callable[..., None]:
    """Return `GradScaler.update` that tells the listeners."""

    @functools.wraps(original)
    def update(self: GradScaler, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- torch's own
        original(self, *args, **kwargs)
        if _listeners and not torch.compiler.is_compiling() and self.is_enabled():
            for listener in tuple(_listeners):
                listener.scaler_updated(self)

    return update


__all__ = ["ScalerListener", "listen", "scale_of"]
