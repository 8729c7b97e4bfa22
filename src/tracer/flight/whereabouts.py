"""Where in the model an operation runs: its module, its line, and for one of a backward pass those of its forward part.

Every node of the autograd graph has a sequence number, given when the forward operation runs. Reading the counter at
each operation tells which node it made, so a backward operation finds its forward line without torch's anomaly mode,
which would write a traceback for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch._C._autograd import _get_sequence_nr

from tracer.flight.frames import Frame, user_frame


@dataclass(slots=True, frozen=True)
class Place:
    """Where an operation ran."""

    module: str
    frame: Frame | None
    backward: bool = False
    node: str = ""  # of the autograd graph, for an operation of a backward pass: `SqrtBackward0`
    forward: Frame | None = None  # of a backward operation: the line whose derivative it computes


class Whereabouts:
    """Follows which module runs; a context for the time of a rerun."""

    def __init__(self, model: torch.nn.Module) -> None:
        # A compiled module inside of the model is a wrapper around the user's; both bear the user's name.
        self._modules = list(model.modules())
        self._names = {id(module): name.replace("._orig_mod", "") for name, module in model.named_modules()}
        self._stack: list[str] = []
        self._made: dict[int, tuple[str, Frame | None]] = {}  # by sequence number: where a node was made
        self._last = -1
        self._hooks: list[Any] = []

    def start(self) -> None:
        """Begin to follow; nodes that exist already are none of ours."""
        self._last = _get_sequence_nr() - 1
        # Not torch's hooks for all modules: those make compiled ones warn, and other threads' models slow.
        for module in self._modules:
            self._hooks.append(module.register_forward_pre_hook(self._enter, prepend=True))
            self._hooks.append(module.register_forward_hook(self._leave, always_call=True))

    def stop(self) -> None:
        """Follow no longer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def here(self) -> Place:
        """Return where the present operation runs."""
        node: Any = torch._C._current_autograd_node()  # noqa: SLF001 -- torch has no other door to it
        frame, module = user_frame(), self._stack[-1] if self._stack else ""
        if node is None or torch.is_grad_enabled():  # in a backward pass: a checkpoint computes its forward part again
            return Place(module, frame)
        made_in, made_at = self._made.get(node._sequence_nr(), ("", None))  # noqa: SLF001 -- as above
        return Place(made_in, frame or made_at, backward=True, node=node.name(), forward=made_at)

    def note(self) -> None:
        """Note that the nodes made since the last operation were made by this one; call it at each."""
        now = _get_sequence_nr()
        if now > self._last + 1:
            place = (self._stack[-1] if self._stack else "", user_frame())
            self._made.update(dict.fromkeys(range(self._last + 1, now), place))
            self._last = now - 1

    def _enter(self, module: torch.nn.Module, args: tuple[Any, ...]) -> None:  # noqa: ARG002 -- as torch calls it
        inside = self._stack[-1] if self._stack else ""
        self._stack.append(self._names.get(id(module), inside))

    def _leave(self, module: torch.nn.Module, args: tuple[Any, ...], output: object) -> None:  # noqa: ARG002 -- as torch calls it
        if self._stack:
            self._stack.pop()


__all__ = ["Place", "Whereabouts"]
