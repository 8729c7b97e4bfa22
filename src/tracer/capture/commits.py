"""The moments before and after an optimizer changes parameters: one pair of torch's global hooks for all who listen.

Listeners are called in the order in which they came, so what the first measured the second need not measure again.
Nothing hangs on a model or an optimizer, and a listener that raises is its own fault: each guards itself.

A step that is given a closure computes its gradients inside. Whoever wants to see them before they are used has a
method `after_closure`: torch lets a hook replace a step's arguments, so the closure is wrapped for that one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)


class CommitListener(Protocol):
    """Who wants to see gradients before they are used, and parameters after."""

    def before_commit(self, optimizer: Optimizer, *, closure: bool) -> None:
        """Look before the step; with a closure the gradients are only computed inside it."""

    def after_commit(self, optimizer: Optimizer, *, closure: bool) -> None:
        """Look after the step."""


class ClosureListener(CommitListener, Protocol):
    """Who wants to see the gradients of a closure too, before the optimizer uses them."""

    def after_closure(self, optimizer: Optimizer) -> None:
        """Look when a closure has returned; an optimizer may call it several times in one step."""


_listeners: list[CommitListener] = []
_handles: list[Any] = []


def listen(listener: CommitListener) -> Callable[[], None]:
    """Tell a listener of every step of every optimizer from now on; return what ends that."""
    _listeners.append(listener)
    if not _handles:
        _handles.extend((register_optimizer_step_pre_hook(_before), register_optimizer_step_post_hook(_after)))

    def end() -> None:
        if listener in _listeners:
            _listeners.remove(listener)

    return end


def _before(
    optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Tell the listeners that an optimizer is about to step; wrap its closure if one of them wants to look into it."""
    if not _listeners or torch.compiler.is_compiling():
        return None
    closure = _has_closure(args, kwargs)
    for listener in tuple(_listeners):
        listener.before_commit(optimizer, closure=closure)
    if not closure or not any(hasattr(listener, "after_closure") for listener in _listeners):
        return None
    if len(args) > 1 and callable(args[1]):
        return (args[0], _watched(optimizer, args[1]), *args[2:]), kwargs
    return args, {**kwargs, "closure": _watched(optimizer, kwargs["closure"])}


def _watched(optimizer: Optimizer, closure: Callable[[], Any]) -> Callable[[], Any]:
    """Return a closure that tells the listeners when it has computed the gradients."""

    def watched() -> Any:  # noqa: ANN401 -- what the user's closure returns
        value = closure()
        for listener in tuple(_listeners):
            look = getattr(listener, "after_closure", None)
            if look is not None:
                look(optimizer)
        return value

    return watched


def _after(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Tell the listeners that an optimizer has stepped."""
    if _listeners and not torch.compiler.is_compiling():
        closure = _has_closure(args, kwargs)
        for listener in tuple(_listeners):
            listener.after_commit(optimizer, closure=closure)


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether the step was called with a function that computes the gradients; `args[0]` is the optimizer."""
    return (len(args) > 1 and callable(args[1])) or callable(kwargs.get("closure"))


__all__ = ["ClosureListener", "CommitListener", "listen"]
