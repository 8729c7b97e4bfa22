"""What a back end has not, from the store: for a lane that came too late for the journal, or too far behind it.

Whole series are compared by count and last step. One of which the peer has everything up to a step is continued; one
in which something is missing before that is sent again whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from tracer.mirroring.routing import name_of, part, rank_of
from tracer.transfer import FACTS, FILE, Event, Points

if TYPE_CHECKING:
    from tracer.mirroring.tally import Counts


def owed(store_path: str, uid: str, kinds: Collection[str], sent: Counts, *, is_last: bool = True) -> Iterator[Event]:
    """Yield what a run has and a back end has not; artifacts apart, which a lane knows by name.

    Args:
        store_path: The store's folder.
        uid: The run.
        kinds: The kinds of events.
        sent: What it has.
        is_last: The run is over: series in which something is missing are sent whole now.
    """
    from tracer.storage.store import Store

    with Store.open(store_path) as store:
        found = store.outgoing(uid, frozenset(kinds) - {FACTS, FILE})
        for _, series in groupby(found, key=lambda event: (event.KIND, name_of(event), rank_of(event))):
            chunks = list(series)  # of points, views of what the store has read in any case
            points = [event for event in chunks if isinstance(event, Points)]
            if points:
                yield from _points(points, sent, is_last=is_last)
                continue
            for event in chunks:
                last = sent.last(event)
                if last is None or sent.position(event) > last:
                    yield event


def _points(chunks: list[Points], sent: Counts, *, is_last: bool) -> Iterator[Points]:
    """Yield what is owed of one series, which is sorted by step."""
    import numpy as np

    last = sent.last(chunks[0])
    if last is None:
        yield from chunks
        return
    passed = [int(np.searchsorted(chunk.steps, last, side="right")) for chunk in chunks]
    if is_last and sum(passed) > sent.count(chunks[0]):
        yield from chunks
        return
    for chunk, first in zip(chunks, passed, strict=True):
        if first < len(chunk):
            yield part(chunk, slice(first, None))


__all__ = ["owed"]
