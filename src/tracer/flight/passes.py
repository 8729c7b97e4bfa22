"""What a rerun reads from a step before it runs: its backward passes, and in which state each call ran."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tracer.flight.steps import Call, Step
from tracer.flight.trees import Slot, Tree
from tracer.flight.undisturbed import compiled_from


@dataclass(slots=True)
class Pass:
    """One backward pass: where it starts, with what, and the calls it needs."""

    starts: list[tuple[int, int, Tensor | None]] = field(default_factory=list)  # call, output, ∂L/∂out (None: a loss)

    def calls(self) -> list[int]:
        """Return the calls that it goes through."""
        return sorted({call for call, _, _ in self.starts})


def passes_of(step: Step) -> dict[int, Pass]:
    """Return the backward passes by their recorded ids; without any, one per call that returned a loss."""
    passes: dict[int, Pass] = {}
    for number, call in enumerate(step.calls):
        for output in call.differentiable:
            for identity, gradient in output.upstream:
                passes.setdefault(identity, Pass()).starts.append((number, output.index, gradient))
    return passes


def share_a_pass(passes: Mapping[int, Pass], number: int) -> bool:
    """Tell whether a call and the one before it are part of one backward pass."""
    return any(number in calls and number - 1 in calls for calls in (one.calls() for one in passes.values()))


def loss_among(outputs: Tree) -> int | None:
    """Return the place of a loss that the model returned: its only number, or what it calls `loss`."""
    structure = outputs.structure
    named = structure.get("loss") if isinstance(structure, Mapping) else getattr(structure, "loss", None)
    if isinstance(named, Slot):
        return named.index
    scalars = [index for index, one in enumerate(outputs.tensors) if one.requires_grad and one.numel() == 1]
    return scalars[0] if len(scalars) == 1 else None


def entry_of(model: torch.nn.Module) -> torch.nn.Module:
    """Return what is called: without `DistributedDataParallel`, which would talk to other ranks, but as compiled."""
    while True:
        original = compiled_from(model)
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(original, DistributedDataParallel):
            model = original
        else:
            return model


def autocast_of(call: Call) -> ExitStack:
    """Return a context with the autocast of a call."""
    stack = ExitStack()
    for one in call.autocast:
        if one.enabled or torch.is_autocast_enabled(one.device):
            stack.enter_context(torch.autocast(one.device, getattr(torch, one.dtype), enabled=one.enabled))
    return stack


def eagerly(*, wanted: bool) -> AbstractContextManager[Any]:
    """Return a context in which compiled parts of a model run eagerly, so that their operations can be seen."""
    stance = getattr(torch.compiler, "set_stance", None)
    # Nothing is compiled before this module is loaded, and loading it takes seconds.
    if wanted and stance is not None and "torch._dynamo" in sys.modules:
        eager: AbstractContextManager[Any] = stance("force_eager")
        return eager
    return nullcontext()


__all__ = ["Pass", "autocast_of", "eagerly", "entry_of", "loss_among", "passes_of", "share_a_pass"]
