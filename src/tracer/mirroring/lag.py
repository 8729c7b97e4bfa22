"""How much a lane still owes: its part of the journal, counted, as far as there is time for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from tracer import clock, runfile
from tracer.cursors import BEHIND, COMPLETE
from tracer.mirroring.routing import Route, size_of
from tracer.mirroring.rules import Rule
from tracer.transfer import FACTS, FILE, POINTS

if TYPE_CHECKING:
    from tracer.cursors import Cursor

_BATCH = 10_000


class Lag(NamedTuple):
    """Points and other events that a peer has not; `is_exact` unless there are more."""

    points: int
    is_exact: bool


def lag(folder: str, cursor: Cursor, *, budget_s: float) -> Lag:
    """Return how much a lane owes.

    Args:
        folder: The run's folder.
        cursor: The lane's file.
        budget_s: Counting ends after this.
    """
    if cursor.state == COMPLETE:
        return Lag(0, is_exact=True)
    if cursor.state == BEHIND or not os.path.isdir(folder):
        return Lag(0, is_exact=False)
    from tracer.storage.feed import Feed  # numpy, which nothing needs that only asks for the state

    until = clock.monotonic() + budget_s
    rules = [Rule.of(rule) for rule in cursor.said.get("rules", ())]
    kinds = set(cursor.said.get("kinds") or (POINTS,)) - {FACTS, FILE}
    route = Route(cursor.name, rules, kinds)
    origins = runfile.read(folder).get("origins") or {}
    owed, is_exact = 0, False
    feed = Feed(folder, cursor.places, kinds=route.kinds)
    try:
        while clock.monotonic() < until and not feed.gap:
            batch = feed.read(_BATCH)
            if not batch.events:
                is_exact = True
                break
            owed += sum(size_of(event) for event, _ in route.through(batch.events, origins))
    finally:
        feed.close()
    return Lag(owed, is_exact)


__all__ = ["Lag", "lag"]
