"""What the recorder keeps of a step: values that the recorder fills, capsules store, and a rerun reads.

A step is the calls of one watched model between two commits (the moments before its optimizer changes it). Nothing
here computes; tensors are references to the user's own as long as they live in the ring.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tracer.capture.randomness import States
from tracer.flight.trees import Tree


@dataclass(slots=True)
class Autocast:
    """Whether autocast was on for a kind of device, and with which type."""

    device: str
    enabled: bool
    dtype: str  # as `str(torch.bfloat16).removeprefix("torch.")` gives it


@dataclass(slots=True)
class Output:
    """One differentiable tensor among a call's outputs, and what each backward pass brought to it."""

    index: int  # its place in `Call.outputs`, the tree's list of tensors
    upstream: list[tuple[int, Tensor]] = field(default_factory=list)  # (id of the backward pass, ∂L/∂out)


@dataclass(slots=True)
class Call:
    """One call of the model: everything that decided what it computed."""

    inputs: Tree  # of the pair (args, kwargs)
    versions: tuple[int, ...]  # `_version` of each input tensor when the call began: a later one was changed in place
    states: States  # of the random generators when the call began
    autocast: tuple[Autocast, ...]
    training: bool
    buffers: dict[str, Tensor]  # as they were before the call: those that calls change
    differentiable: list[Output] = field(default_factory=list)
    output_hashes: tuple[str, ...] = ()  # filled when a capsule is made
    returned: bool = False  # whether the call came back; one that raised did not


@dataclass(slots=True)
class Clip:
    """A clipping of gradients that the user did between backward and the optimizer's step."""

    kind: str  # "norm" or "value"
    limit: float
    norm_type: float
    parameters: tuple[str, ...]  # names in the model
    total_norm: Tensor | float | None


@dataclass(slots=True)
class Step:
    """One step of one model, up to the moment before its optimizer changed it."""

    number: int
    calls: list[Call] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)
    loss: float | None = None
    norm: float | None = None
    scale: float | None = None  # of a GradScaler whose unscaled gradients the optimizer saw; None without one
    still_scaled: bool = False  # a fused optimizer divides by the scale itself: gradients at the commit are scaled
    learning_rates: tuple[float, ...] = ()
    seconds: float | None = None
    rows: tuple[Any, ...] = ()  # the batch's places in the data set, where the user gave them
    data_seconds: float | None = None  # from the end of the step before to the first call: mostly waiting for data
    shapes: tuple[str, ...] = ()  # of the input tensors, once the batch itself was given up
    batch_hash: str | None = None  # likewise
    index: int = 0  # which step of the recorder it is; `number` is the program's own, which may stand still or leap
    notes: list[str] = field(default_factory=list)  # why a replay of this step may not be exact, a sentence each

    @property
    def replayable(self) -> bool:
        """Whether every call was kept."""
        return bool(self.calls) and all(call.inputs is not None for call in self.calls)


__all__ = ["Autocast", "Call", "Clip", "Output", "Step"]
