"""From a bad result back to where it began."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tracer.flight.bad_values import Event, Source

_CHAIN = 20


@dataclass(slots=True)
class Causes:
    """What a bad value goes back to."""

    real: dict[Event | Source, None] = field(default_factory=dict)
    meant: dict[Event | Source, None] = field(default_factory=dict)  # somebody wrote it down, such as a mask

    def add(self, other: Causes) -> None:
        """Take in those of another."""
        self.real.update(other.real)
        self.meant.update(other.meant)

    def first(self) -> Event | Source | None:
        """Return the earliest; what was meant only when there is nothing else."""
        for group in (self.real, self.meant):
            if group:
                return min(group, key=lambda cause: cause.number)
        return None


def causes(ends: Iterable[Event | Source]) -> Causes:
    """Follow bad values back to what they began with.

    A NaN goes back to the NaN among its inputs. One that came from an Inf goes back to that, unless the Inf was meant:
    then the operation that could not stand it is the cause.
    """
    wanted = list(ends)
    known: dict[Event | Source, Causes] = {}
    for one in sorted(_ancestors(wanted), key=lambda cause: cause.number):
        known[one] = _of_source(one) if isinstance(one, Source) else _of_event(one, known)
    found = Causes()
    for end in wanted:
        found.add(known[end])
    return found


def _ancestors(ends: Iterable[Event | Source]) -> set[Event | Source]:
    """Return the ends and all that they came from."""
    found: set[Event | Source] = set()
    rest = list(ends)
    while rest:
        one = rest.pop()
        if one not in found:
            found.add(one)
            if isinstance(one, Event):
                rest.extend(parent for parent, _ in one.parents)
    return found


def _of_source(source: Source) -> Causes:
    """Return a source as its own cause."""
    return Causes(meant={source: None}) if source.purposeful else Causes(real={source: None})


def _of_event(event: Event, known: dict[Event | Source, Causes]) -> Causes:
    """Return the causes of an operation's bad result, those of its parents being known."""
    found = Causes()
    if event.op.unset:
        return Causes(real={event: None})
    nans = [parent for parent, bad in event.parents if bad.nan]
    for parent in nans if event.bad.nan and nans else [parent for parent, _ in event.parents]:
        found.add(known[parent])
    if event.purposeful:
        found.meant[event] = None
    elif event.born:
        found.real[event] = None
    elif event.bad.nan and not nans and not found.real:
        rows = [cause for cause in found.meant if isinstance(cause, Source) and cause.kind == "input"]
        if rows and not event.op.leaves_out:
            found.real.update(dict.fromkeys(rows))  # data, not a mask: nothing here reads it as one
        else:
            found.real[event] = None
    return found


def downstream(cause: Event | Source, events: Sequence[Event]) -> list[Event]:
    """Return the operations that got bad results from this one, in order."""
    reached: set[Event | Source] = {cause}
    found = []
    for event in events:
        if event not in reached and any(parent in reached for parent, _ in event.parents):
            reached.add(event)
            found.append(event)
            if len(found) == _CHAIN:
                break
    return found


__all__ = ["Causes", "causes", "downstream"]
