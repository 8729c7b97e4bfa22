"""The search's eyes while a step runs again: what is bad before anything ran, and whether enough has been seen."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tracer.flight.bad_values import Event, Flow, Source, storage
from tracer.flight.blame import causes
from tracer.flight.dataflow import Search
from tracer.flight.finiteness import FINE, describe, examine
from tracer.flight.rerun import Phases, unwrapped
from tracer.flight.steps import Step
from tracer.flight.trees import Slot, Tree


class Enough(Exception):
    """What is needed has been seen: the rerun may end."""


class Looking(Phases):
    """The search's eyes at the beginnings and ends of calls and passes."""

    def __init__(self, model: torch.nn.Module, step: Step, limit_s: float | None) -> None:
        self.model, self.step, self.flow = unwrapped(model), step, Flow()
        self.search = Search(self.model, self.flow, limit_s=limit_s)
        self.ends: list[Event | Source] = []
        self.finished = False
        self.batch: dict[int, int] = {}  # rows per call
        self._passes = 0
        self._begun = False
        self._outputs: list[Event | Source] = []  # bad ones, of all calls
        self.ranges: dict[int, list[dict[str, Any]]] = {}  # of each call's outputs

    def before_call(self, number: int, inputs: Tree) -> None:
        """Take note of what is bad before anything has run."""
        self.search.call = number
        with self.search.paused():
            if not self._begun:
                self._begun = True
                for name, parameter in self.model.named_parameters():
                    self.flow.introduce(parameter, "parameter", name)
                for name, buffer in self.model.named_buffers():
                    self.flow.introduce(buffer, "buffer", name)
            for tensor, name in zip(inputs.tensors, argument_names(self.model, inputs), strict=True):
                if storage(tensor) not in self.flow.names or not isinstance(tensor, torch.nn.Parameter):
                    self.flow.introduce(tensor, "input", name, number)
            self.batch[number] = rows_of(inputs)

    def after_call(self, number: int, outputs: Tree) -> None:
        """Note which outputs are bad."""
        with self.search.paused():
            self.ranges[number] = [describe(tensor) for tensor in outputs.tensors]
            self._outputs.extend(self._bad(outputs.tensors))

    def before_backward(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor], calls: Sequence[int]) -> None:
        """Stop here when an output is bad and its gradient too, or when the loss outside brought a bad gradient."""
        self.search.call = calls[-1]
        self._passes += 1
        with self.search.paused():
            through = _passed_through(outputs)
            blamed: list[Event | Source] = []
            for place, (output, gradient) in enumerate(zip(outputs, gradients, strict=True)):
                if examine(gradient) != FINE or output.numel() == 1 or self._bad_loss:
                    blamed.extend(self._bad([output]))
                # What reached an output through others began with those.
                if place not in through:
                    name = f"gradient of output {place}"
                    source = self.flow.introduce(gradient, "upstream", name, calls[-1])
                    self.ends.extend([source] if source is not None else [])
        found = causes(blamed)
        if found.real:
            self.ends = blamed
        if self.ends:
            raise Enough

    def arrived(self, computed: Tensor, recorded: Tensor) -> None:
        """Let a bad gradient at an output that others were computed from go back to what made it there."""
        with self.search.paused():
            maker = self.flow.makers(computed) if examine(computed) != FINE else None
            if isinstance(maker, Event):
                self.flow.latest[storage(recorded)] = [maker]

    def after_backward(self) -> None:
        """Stop at bad gradients."""
        with self.search.paused():
            gradients = [one.grad for one in self.model.parameters() if one.grad is not None]
            self.ends = self._bad(gradients)
        if self.ends:
            raise Enough

    def _bad(self, tensors: Sequence[Tensor]) -> list[Event | Source]:
        """Return what made those of the tensors that are bad."""
        makers = [self.flow.makers(one) for one in tensors if examine(one) != FINE]
        return [maker for maker in makers if maker is not None]

    def last_resort(self) -> list[Event | Source]:
        """Return what to blame without a bad gradient: outputs if there was no pass, the last event if it broke off."""
        if not self.finished:
            return list(self.flow.events[-1:])
        real = [one for one in self._outputs if causes([one]).real]
        if self._bad_loss:
            return real or self._outputs
        return [] if self._passes else real

    @property
    def _bad_loss(self) -> bool:
        """Whether the loss is known not to be finite."""
        return self.step.loss is not None and not math.isfinite(self.step.loss)

    def samples(self, cause: Event | Source, chain: Sequence[Event]) -> tuple[int, ...]:
        """Return the rows of the batch that are bad, where the first dimension is the batch."""
        batch = self.batch.get(cause.call, 0)
        if isinstance(cause, Source):
            shape = cause.facts["shape"]
            return cause.rows if cause.kind in {"input", "upstream"} and shape and shape[0] == batch else ()
        if cause.shape and cause.shape[0] == batch:
            return cause.rows
        # Where the cause has another shape, what it made bad may tell; but only when that tells samples apart.
        for event in chain:
            if event.call == cause.call and event.shape and event.shape[0] == batch:
                return event.rows if len(event.rows) < batch else ()
        return ()


def rows_of(inputs: Tree) -> int:
    """Return how many rows a call's batch has: the first dimension of most of its tensors."""
    sizes = [tensor.shape[0] for tensor in inputs.tensors if tensor.dim()]
    return max(sizes, key=sizes.count) if sizes else 0


def argument_names(model: torch.nn.Module, inputs: Tree) -> list[str]:
    """Return what a call's tensors are called: `x`, `batch['labels']`, `states[0]`."""
    args, kwargs = inputs.structure
    try:
        names = list(inspect.signature(model.forward).parameters)
    except (TypeError, ValueError):
        names = []
    found = [""] * len(inputs.tensors)
    for place, value in enumerate(args):
        _name_slots(value, names[place] if place < len(names) else f"argument {place}", found)
    for name, value in kwargs.items():
        _name_slots(value, name, found)
    return found


def _name_slots(value: Any, name: str, found: list[str]) -> None:  # noqa: ANN401 -- any nesting of anything
    """Write the names of the tensors below a value into the list."""
    if type(value) is Slot:
        found[value.index] = name
    elif isinstance(value, Mapping):
        for key, part in value.items():
            _name_slots(part, f"{name}[{key!r}]", found)
    elif isinstance(value, (list, tuple)):
        for place, part in enumerate(value):
            _name_slots(part, f"{name}[{place}]", found)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _name_slots(getattr(value, field.name), f"{name}.{field.name}", found)


def _passed_through(outputs: Sequence[Tensor]) -> set[int]:
    """Return the places of outputs from which others of them were computed."""
    places = {output.grad_fn: place for place, output in enumerate(outputs) if output.grad_fn is not None}
    if len(outputs) == 1:
        return set()
    found: set[int] = set()
    for start in places:
        rest, seen = [start], {start}
        while rest:
            for node, _ in rest.pop().next_functions:
                if node is not None and node not in seen:
                    seen.add(node)
                    rest.append(node)
        found |= {place for node, place in places.items() if node in seen and node is not start}
    return found


__all__ = ["Enough", "Looking", "argument_names", "rows_of"]
