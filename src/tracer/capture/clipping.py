"""Clipping of gradients, noticed: what was clipped, at what limit, and the norm that came out, for nothing.

`torch.nn.utils.clip_grad_norm_` and `clip_grad_value_` are replaced in both modules that offer them while somebody
listens, and put back with the last listener. A name that a program imported before that is not ours and is not noticed.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import utils
from torch.nn.utils import clip_grad

from tracer.capture.listeners import Listeners

_PLACES: tuple[types.ModuleType, ...] = (utils, clip_grad)
_NAMES = ("clip_grad_norm_", "clip_grad_value_")


class Clipped:
    """One clipping: how, at what limit, of which parameters, and the norm before it.

    Args:
        kind: `norm` or `value`.
        limit: The largest norm or value that is left.
        norm_type: Which norm; 2 for values.
        parameters: What was clipped.
        total_norm: The norm before, as torch returned it; None when values were clipped.
        waits: Whether the call waited for the device anyway.
    """

    __slots__ = ("kind", "limit", "norm_type", "parameters", "total_norm", "waits")

    def __init__(
        self,
        kind: str,
        limit: float,
        norm_type: float,
        parameters: list[Tensor],
        total_norm: Tensor | None,
        *,
        waits: bool = False,
    ) -> None:
        self.kind, self.limit, self.norm_type = kind, limit, norm_type
        self.parameters, self.total_norm, self.waits = parameters, total_norm, waits


class ClipListener(Protocol):
    """Who wants to know of clipping; it guards itself."""

    def clipped(self, clip: Clipped) -> None:
        """Take what was clipped; the gradients are clipped already."""


_listeners: Listeners[ClipListener] = Listeners()
_originals: dict[tuple[types.ModuleType, str], Any] = {}


def listen(listener: ClipListener) -> Callable[[], None]:
    """Tell a listener of every clipping from now on; return what ends that."""
    return _listeners.join(listener, _install, _remove)


def _install() -> None:
    """Put our functions in place of torch's."""
    ours: dict[str, Any] = {
        "clip_grad_norm_": _norm(clip_grad.clip_grad_norm_),
        "clip_grad_value_": _value(clip_grad.clip_grad_value_),
    }
    for place in _PLACES:
        for name in _NAMES:
            _originals[place, name] = getattr(place, name)
            setattr(place, name, ours[name])


def _remove() -> None:
    """Put torch's functions back, except where somebody else has replaced ours since: theirs calls ours."""
    for (place, name), original in _originals.items():
        if getattr(getattr(place, name), "__wrapped__", None) is original:
            setattr(place, name, original)
    _originals.clear()


def _norm(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `clip_grad_norm_` that tells the listeners."""

    @functools.wraps(original)
    def clip_grad_norm_(
        parameters: Tensor | Iterable[Tensor],
        max_norm: float,
        norm_type: float = 2.0,
        error_if_nonfinite: bool = False,  # noqa: FBT001, FBT002 -- torch's own signature
        foreach: bool | None = None,  # noqa: FBT001 -- torch's own signature
    ) -> Tensor:
        if torch.compiler.is_compiling() or not _listeners:
            return original(parameters, max_norm, norm_type, error_if_nonfinite, foreach)
        several, handed_on = _twice(parameters)
        total = original(handed_on, max_norm, norm_type, error_if_nonfinite, foreach)
        _tell(Clipped("norm", float(max_norm), float(norm_type), several, total.detach(), waits=error_if_nonfinite))
        return total

    return clip_grad_norm_


def _value(original: Callable[..., None]) -> Callable[..., None]:
    """Return `clip_grad_value_` that tells the listeners."""

    @functools.wraps(original)
    def clip_grad_value_(
        parameters: Tensor | Iterable[Tensor],
        clip_value: float,
        foreach: bool | None = None,  # noqa: FBT001 -- torch's own signature
    ) -> None:
        if torch.compiler.is_compiling() or not _listeners:
            original(parameters, clip_value, foreach)
            return
        several, handed_on = _twice(parameters)
        original(handed_on, clip_value, foreach)
        _tell(Clipped("value", float(clip_value), 2.0, several, None))

    return clip_grad_value_


def _twice(parameters: Tensor | Iterable[Tensor]) -> tuple[list[Tensor], Any]:
    """Return the parameters as a list, and in a form for torch: it warns of generators that are empty."""
    if isinstance(parameters, Tensor):
        return [parameters], parameters
    several = list(parameters)
    if isinstance(parameters, types.GeneratorType) and not several:
        return several, (parameter for parameter in several)
    return several, several


def _tell(clip: Clipped) -> None:
    """Tell the listeners."""
    for listener in tuple(_listeners):
        listener.clipped(clip)


__all__ = ["ClipListener", "Clipped", "listen"]
