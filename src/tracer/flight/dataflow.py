"""Examines every operation while a step runs again: which made, passed on and consumed values that are not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tracer import clock
from tracer.flight.bad_values import Event, Flow, Source, met, storage
from tracer.flight.finiteness import FINE, Bad, describe, examine, mask, positions, rough_rows, rows
from tracer.flight.operations import (
    Operation,
    fits_wider,
    operation,
    tensors,
    written,
    written_numbers,
)
from tracer.flight.whereabouts import Whereabouts


class TookTooLong(Exception):
    """The search has used up its time."""


class Search(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Examines every operation's results."""

    def __init__(self, model: torch.nn.Module, flow: Flow, *, limit_s: float | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flow, self.call = flow, 0
        self.whereabouts = Whereabouts(model)
        self._paused = False
        self._until = None if limit_s is None else clock.monotonic() + limit_s

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say that nothing is compiled while this watches: torch's guard against it costs time at every operation."""
        return False

    def __enter__(self) -> Self:
        self.whereabouts.start()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: object) -> None:
        self.whereabouts.stop()
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Look away from what is done in the block."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def __torch_dispatch__(self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Any = None) -> Any:  # noqa: ANN401 -- as torch calls it
        """Run an operation and look at what it gives."""
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        nature = operation(func)
        self.whereabouts.note()
        changed = written(nature, args, kwargs)
        before = [(one, examine(one), describe(one, self._name(one))) for one in changed] if nature.reads else []
        result = func(*args, **kwargs)
        if nature.view:
            return result
        if self._until is not None and clock.monotonic() > self._until:
            raise TookTooLong
        results = [*changed, *(one for one in tensors(result) if not any(one is other for other in changed))]
        if nature.unset:
            for one in results:
                self._write(one, self._event(nature, one, FINE, (), born=True), whole=True)
            return result
        bad = [(one, found) for one in results if (found := examine(one)) != FINE]
        if bad:
            seen = _Seen(func, nature, args, kwargs, before, changed)
            event = self._judge(seen, bad)
            for one, _ in bad:
                self._write(one, event, whole=_covers(one))
        else:
            self._keep_name(nature, args, results)
        for one in results:
            if not any(one is other for other, _ in bad) and _covers(one):
                self.flow.latest[storage(one)] = []
        return result

    def _judge(self, seen: _Seen, results: list[tuple[Tensor, Bad]]) -> Event:
        """Make the event of an operation with bad results."""
        bad = [(one, found) for one, found in seen.inputs() if found != FINE]
        parents = tuple((self.flow.makers(one) or self.flow.written_down(one, found), found) for one, found in bad)
        result, total = results[0][0], FINE
        for _, found in results:
            total |= found
        # Below a true cause nothing needs to be looked at closely: the first cause counts.
        followed = any(not parent.harmless for parent, _ in parents)
        born = not parents or (not followed and seen.nature.pointwise and _new_places(result, [one for one, _ in bad]))
        event = self._event(seen.nature, result, total, parents, born=born)
        event.shown = results[0][1]
        if born:
            event.purposeful = total in written_numbers(seen.args, seen.kwargs)
            event.overflow = not event.purposeful and _overflow(seen, total)
        event.harmless = event.purposeful or not (
            born or followed or (total.nan and not any(found.nan for _, found in parents))
        )
        if not followed and not event.harmless:
            event.inputs = tuple(self._facts(seen))
            where = mask(result, nans=event.shown.nan)
            if where is not None:
                event.rows, event.positions = rows(where), positions(where)
        else:
            event.rows = rough_rows(result)
        if event.purposeful:
            self.flow.on_purpose.setdefault(met(event))
        return event

    def _event(
        self,
        nature: Operation,
        result: Tensor,
        found: Bad,
        parents: tuple[tuple[Event | Source, Bad], ...],
        *,
        born: bool,
    ) -> Event:
        """Note an operation with a bad result."""
        number, place, shape = len(self.flow.events), self.whereabouts.here(), tuple(result.shape)
        event = Event(number, nature, place, found, self.call, parents, shape, found, born=born)
        if not nature.unset:
            self.flow.events.append(event)
        return event

    def _write(self, tensor: Tensor, event: Event, *, whole: bool) -> None:
        """Note that a storage holds something bad now."""
        key = storage(tensor)
        if not key:
            return
        if whole:
            self.flow.latest[key] = [event]
        else:
            self.flow.latest.setdefault(key, []).append(event)

    def _name(self, tensor: Tensor) -> str:
        """Return what a tensor is called in the model, if it is known by a name."""
        return self.flow.names.get(storage(tensor), "")

    def _keep_name(self, nature: Operation, args: Sequence[Any], results: list[Tensor]) -> None:
        """Let a cast or copy of a parameter be known by its name, and whatever takes its memory later not."""
        named = self._name(args[0]) if nature.base in {"_to_copy", "clone"} and isinstance(args[0], Tensor) else ""
        for one in results:
            key = storage(one)
            if named:
                self.flow.names[key] = named
            elif not nature.writes:
                self.flow.names.pop(key, None)

    def _facts(self, seen: _Seen) -> Iterable[dict[str, Any]]:
        """Return what can be said of an operation's inputs."""
        yield from (facts for _, _, facts in seen.before)
        for one in tensors([*seen.args, *seen.kwargs.values()]):
            if not any(one is other for other in seen.changed):
                yield describe(one, self._name(one))


@dataclass(slots=True)
class _Seen:
    """An operation that has just run."""

    func: Callable[..., Any]
    nature: Operation
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    before: list[tuple[Tensor, Bad, dict[str, Any]]]  # what it changed, as it was
    changed: list[Tensor]

    def inputs(self) -> list[tuple[Tensor, Bad]]:
        """Return what it read, and what of that was bad."""
        read = [one for one in tensors([*self.args, *self.kwargs.values()]) if not any(one is c for c in self.changed)]
        return [*((one, found) for one, found, _ in self.before), *((one, examine(one)) for one in read)]


def _overflow(seen: _Seen, bad: Bad) -> bool:
    """Tell whether finite inputs gave something bad only because numbers of this type end where they do."""
    if not seen.changed and not seen.nature.random and fits_wider(seen.func, seen.args, seen.kwargs):
        return True
    return not bad.nan and not seen.nature.pole


def _new_places(result: Tensor, bad: Sequence[Tensor]) -> bool:
    """Tell whether an elementwise result is bad where all of its inputs are finite."""
    found = mask(result)
    if found is None:
        return False
    before = torch.zeros_like(found)
    for one in bad:
        where = mask(one)
        if where is not None and (where.dim() <= found.dim()):
            before |= where.expand_as(found)
    return bool((found & ~before).any())


def _covers(tensor: Tensor) -> bool:
    """Tell whether a tensor fills its storage."""
    if tensor.layout != torch.strided:
        return False
    return tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes()


__all__ = ["Search", "TookTooLong"]
