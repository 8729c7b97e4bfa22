"""Values that are not finite, as far as they are known: where they came from, and what made them.

Tensors are known by their storage, because autograd hands the same values on as other objects; a storage's events are
forgotten when something finite overwrites all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tracer.flight.finiteness import FINE, Bad, describe, examine, mask, positions, rows, stored
from tracer.flight.operations import Operation
from tracer.flight.whereabouts import Place


@dataclass(slots=True, eq=False)
class Source:
    """Something bad that no operation of the step made."""

    kind: str  # "input", "parameter", "buffer", "upstream" or "constant"
    name: str
    bad: Bad
    facts: dict[str, Any]
    call: int = 0
    rows: tuple[int, ...] = ()
    positions: tuple[tuple[int, ...], ...] = ()
    number: int = -1

    @property
    def purposeful(self) -> bool:
        """Whether it may be meant: constants are, and -Inf is how masks are written."""
        if self.kind == "constant":
            return True
        return self.kind in {"input", "buffer"} and not self.bad.nan and not self.bad.positive

    @property
    def harmless(self) -> bool:
        """Whether a bad value that goes back to it only is so too."""
        return self.purposeful


@dataclass(slots=True, eq=False)
class Event:
    """An operation whose result is not finite."""

    number: int
    op: Operation
    place: Place
    bad: Bad
    call: int
    parents: tuple[tuple[Event | Source, Bad], ...]
    shape: tuple[int, ...]
    shown: Bad  # what its first bad result holds; `bad` is of all results, also of those that only backward reads
    born: bool = False  # something bad stands where all inputs are finite
    purposeful: bool = False  # somebody wrote the bad number down
    harmless: bool = False  # it goes back to what was written down only
    overflow: bool = False
    rows: tuple[int, ...] = ()
    positions: tuple[tuple[int, ...], ...] = ()
    inputs: tuple[dict[str, Any], ...] = ()

    kind = "operation"


@dataclass(slots=True)
class Flow:
    """What is known of the bad values so far."""

    events: list[Event] = field(default_factory=list)
    on_purpose: dict[str, None] = field(default_factory=dict)  # in order, each once
    latest: dict[int, list[Event]] = field(default_factory=dict)  # by storage
    sources: dict[int, Source] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)  # of parameters, buffers and inputs, by storage

    def makers(self, tensor: Tensor) -> Event | Source | None:
        """Return what made a bad tensor, None when it is unknown."""
        key = storage(tensor)
        if key in self.latest:
            return self.latest[key][-1] if self.latest[key] else None
        return self.sources.get(key)

    def written_down(self, tensor: Tensor, bad: Bad) -> Source:
        """Return a bad tensor of which nobody knows how it came to be: somebody wrote it down."""
        found = Source("constant", f"of shape {list(tensor.shape)}", bad, describe(tensor))
        key = storage(tensor)
        self.latest.pop(key, None)
        self.sources[key] = found
        return found

    def introduce(self, tensor: Tensor, kind: str, name: str, call: int = 0) -> Source | None:
        """Take note of a tensor that comes from outside; return it as a source when it is bad."""
        key = storage(tensor)
        if not key:
            return None
        self.latest.pop(key, None)
        self.sources.pop(key, None)
        self.names[key] = name
        bad = examine(tensor)
        if bad == FINE:
            return None
        where = mask(tensor)
        found = Source(kind, name, bad, describe(tensor, name), call)
        if where is not None:
            found.rows, found.positions = rows(where), positions(where)
        self.sources[key] = found
        if found.purposeful:
            self.on_purpose.setdefault(met(found))
        return found


def storage(tensor: Tensor) -> int:
    """Return what tells one storage from another; 0 for a tensor without any."""
    tensor = stored(tensor)
    if tensor.layout != torch.strided or tensor.is_nested or tensor.device.type == "meta":
        return 0
    return tensor.untyped_storage().data_ptr()


def told(event: Event) -> str:
    """Return an event in a few words."""
    where = f" in {event.place.module}" if event.place.module else ""
    line = event.place.frame
    return f"{event.op.name}{where}" + (f" ({line.path}:{line.line})" if line else "")


def met(cause: Event | Source) -> str:
    """Return how an infinity that may be meant is listed."""
    return (
        f"{cause.bad} in the {cause.kind} {cause.name}"
        if isinstance(cause, Source)
        else f"{cause.bad} from {told(cause)}"
    )


__all__ = ["Event", "Flow", "Source", "met", "storage", "told"]
