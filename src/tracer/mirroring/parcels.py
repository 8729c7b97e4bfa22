"""What is sent in one call, and what is true once the peer has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tracer.mirroring.routing import halves, size_of, split
from tracer.transfer import Event, RunInfo


@dataclass(frozen=True, slots=True)
class Parcel:
    """A batch on its way.

    Args:
        events: What is sent; empty where only a place moved on.
        after: What goes into the lane's file then.
    """

    events: list[Event]
    after: Mapping[str, object] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many points and other events it holds; what is known of the run counts as none."""
        return sum(size_of(event) for event in self.events if not isinstance(event, RunInfo))

    def parted(self) -> tuple[Parcel, Parcel] | None:
        """Return its two halves; None for a single point."""
        first, second = halves(self.events)
        return (Parcel(first), Parcel(second, self.after)) if second else None


def parcels(events: Iterable[Event], limit: int, after: Mapping[str, object]) -> list[Parcel]:
    """Return batches of a size that the peer takes; only the last moves the lane on."""
    batches = list(split(events, limit)) or [[]]
    return [*(Parcel(batch) for batch in batches[:-1]), Parcel(batches[-1], after)]


__all__ = ["Parcel", "parcels"]
