"""The strands of a run's stream: each series, each text, each picture's name is one, with a running digest.

A strand's digest after n events says whether what was sent before is still the beginning of what is there now; then
only the rest has to go.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from tracer.transfer import Event, File, Histogram, LogLine, Media, Points, RunInfo, Span, Text

if TYPE_CHECKING:
    from tracer.transfer import Integers

#: So many points are held at once to be put in the order of time.
_HELD = 1_000_000


class Strand:
    """One strand: how many events it has had, and their digest."""

    __slots__ = ("_hash", "count")

    def __init__(self) -> None:
        self.count = 0
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """The digest of all events so far."""
        return self._hash.copy().hexdigest()[:32]

    def add(self, event: Event) -> None:
        """Take one more event, or some points of a series."""
        if isinstance(event, Points):
            self.count += len(event)
            self._hash.update(_bytes(event))
        else:
            self.count += 1
            self._hash.update(repr(_told(event)).encode("utf-8", "surrogatepass"))


def key_of(event: Event) -> str:
    """Return which strand an event belongs to."""
    if isinstance(event, File):
        return json.dumps([event.KIND, event.name, event.version])
    name = "" if isinstance(event, (LogLine, Span, RunInfo)) else event.name
    rank = 0 if isinstance(event, (File, RunInfo)) else event.rank
    return json.dumps([event.KIND, name, rank])


def length(event: Event) -> int:
    """Return how much an event counts in a batch."""
    return len(event) if isinstance(event, Points) else 1


def part(points: Points, start: int, stop: int) -> Points:
    """Return a range of a series."""
    if start == 0 and stop >= len(points):
        return points
    cut = slice(start, stop)
    return replace(points, steps=points.steps[cut], times=points.times[cut], values=points.values[cut])


class Comparison:
    """How what is there now goes on from what was sent before.

    Args:
        sent: What was sent: strand → (count, digest).
    """

    def __init__(self, sent: Mapping[str, tuple[int, str]]) -> None:
        self._sent = sent
        self._strands: dict[str, Strand] = {}
        self._agrees: dict[str, bool] = {}

    def add(self, event: Event) -> None:
        """Take what is there now, in order."""
        key = key_of(event)
        strand = self._strands.setdefault(key, Strand())
        count, digest = self._sent.get(key, (0, ""))
        if isinstance(event, Points) and strand.count < count < strand.count + len(event):
            border = count - strand.count
            self._take(key, part(event, 0, border), count, digest)
            self._take(key, part(event, border, len(event)), count, digest)
        else:
            self._take(key, event, count, digest)

    def _take(self, key: str, event: Event, count: int, digest: str) -> None:
        """Take an event, and look at the digest where the sent part ends."""
        strand = self._strands[key]
        strand.add(event)
        if strand.count == count:
            self._agrees[key] = strand.digest == digest

    @property
    def skipped(self) -> dict[str, int]:
        """Return how many events of each strand the peer has already."""
        return {key: self._sent[key][0] for key, agrees in self._agrees.items() if agrees}

    @property
    def changed(self) -> list[str]:
        """Return the strands of which something else was sent before."""
        return [key for key in self._strands if key in self._sent and not self._agrees.get(key, False)]

    @property
    def is_equal(self) -> bool:
        """Tell whether nothing is new."""
        return all(strand.count == self.skipped.get(key, 0) for key, strand in self._strands.items())


def woven(points: Iterable[Points], batch: int) -> Iterator[list[Points]]:
    """Yield batches of points in the order of time, so that peers that think in rows see what was logged together.

    Args:
        points: Series, one after the other.
        batch: At most so many points at once.
    """
    held: list[Points] = []
    count = 0
    for series in points:
        held.append(series)
        count += len(series)
        if count >= _HELD:
            yield from _batches(held, batch)
            held, count = [], 0
    yield from _batches(held, batch)


def _batches(held: list[Points], batch: int) -> Iterator[list[Points]]:
    """Yield the batches of some series."""
    series = _joined(held)
    ordered = [one for one in series if len(one) and bool(np.all(one.times[1:] >= one.times[:-1]))]
    others = [one for one in series if len(one) and not bool(np.all(one.times[1:] >= one.times[:-1]))]
    packed: list[Points] = []
    room = batch
    for window in _windows(ordered, batch):
        if sum(map(len, window)) > room and packed:
            yield packed
            packed, room = [], batch
        for one in window:
            start = 0
            while start < len(one):
                piece = part(one, start, start + room)
                packed.append(piece)
                start, room = start + len(piece), room - len(piece)
                if not room:
                    yield packed
                    packed, room = [], batch
    if packed:
        yield packed
    for one in others:
        for start in range(0, len(one), batch):
            yield [part(one, start, start + batch)]


def _windows(series: list[Points], batch: int) -> Iterator[list[Points]]:
    """Yield pieces of series that belong to one stretch of time, about a batch long; a moment is not parted."""
    if not series:
        return
    edges = _edges(np.concatenate([one.times for one in series]), batch)
    cuts = [np.searchsorted(one.times, edges, side="right") for one in series]
    before = [0] * len(series)
    for position in range(len(edges)):
        window = []
        for number, one in enumerate(series):
            stop = int(cuts[number][position])
            if stop > before[number]:
                window.append(part(one, before[number], stop))
                before[number] = stop
        yield window


def _edges(times: Integers, batch: int) -> Integers:
    """Return the last moment of each stretch of time that holds at most a batch, or one moment that holds more."""
    moments, counts = np.unique(times, return_counts=True)
    until = np.cumsum(counts)
    edges, start, before = [], 0, 0
    while start < len(moments):
        stop = max(start + 1, int(np.searchsorted(until, before + batch, side="right")))
        edges.append(stop - 1)
        start, before = stop, int(until[stop - 1])
    found: Integers = moments[edges]
    return found


def _joined(held: list[Points]) -> list[Points]:
    """Return the series with the chunks of each put together."""
    found: dict[tuple[str, int, str], list[Points]] = {}
    for one in held:
        found.setdefault((one.name, one.rank, one.KIND), []).append(one)
    return [
        chunks[0]
        if len(chunks) == 1
        else replace(
            chunks[0],
            steps=np.concatenate([chunk.steps for chunk in chunks]),
            times=np.concatenate([chunk.times for chunk in chunks]),
            values=np.concatenate([chunk.values for chunk in chunks]),
        )
        for chunks in found.values()
    ]


def _bytes(points: Points) -> bytes:
    """Return points as they count: step and value of each, bit for bit; every NaN is one NaN."""
    values = np.where(np.isnan(points.values), np.nan, points.values).astype("<f8")
    return np.column_stack((points.steps.astype("<i8"), values.view("<i8"))).tobytes()


def _told(event: Event) -> object:
    """Return what counts of an event that is no series; a file counts by its name and size, not by where it lies."""
    if isinstance(event, File):
        return (event.name, event.type, event.version, [(one.path, one.size, one.digest) for one in event.parts])
    if isinstance(event, Media):
        data = None if event.data is None else hashlib.sha256(event.data).hexdigest()
        path = None if event.path is None else (os.path.basename(event.path), os.path.getsize(event.path))
        fields = json.dumps(dict(event.fields), sort_keys=True, default=str)
        return (event.name, event.kind, event.step, event.time, path, data, event.suffix, event.caption, fields)
    if isinstance(event, (Text, Histogram)):
        return tuple(asdict(event).values())
    return json.dumps(asdict(event), sort_keys=True, default=str)


__all__ = ["Comparison", "Strand", "key_of", "length", "part", "woven"]
