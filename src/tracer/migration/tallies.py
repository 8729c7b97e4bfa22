"""What a stream of events holds, counted while it passes: a digest of each series, the texts, the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from tracer.transfer import Event, File, Points, Text, digest, settled

if TYPE_CHECKING:
    from tracer.transfer import Floats, Integers

#: Called with a series when it is complete: name, rank, steps, values, digest.
OnSeries = Callable[[str, int, "Integers", "Floats", str], None]
Key = tuple[str, int]
_MOST_KEPT = 10_000_000


class Tally:
    """Counts what passes.

    Series come one after the other. One that comes again is put together with what was kept of it.

    Args:
        on_series: Told of each series with its values whenever it ends.
        names: Their names → ours.
    """

    def __init__(self, on_series: OnSeries | None = None, names: Callable[[Key], Key] | None = None) -> None:
        self._on_series, self._names = on_series, names or (lambda key: key)
        self._key: Key | None = None
        self._chunks: list[Points] = []
        self._kept: dict[Key, Points] = {}
        self._room = _MOST_KEPT
        #: Series → how many steps it has, and its digest.
        self.series: dict[Key, tuple[int, str]] = {}
        #: Series of which too much was held to put them together.
        self.unknown: set[Key] = set()
        self.texts: dict[Key, list[tuple[int, str]]] = {}
        self.files: dict[str, dict[str, str]] = {}
        self.counts: Counter[str] = Counter()
        self.points = 0

    def watch(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yield events as they come, counted."""
        for event in events:
            self.add(event)
            yield event
        self.end()

    def add(self, event: Event) -> None:
        """Count an event."""
        if isinstance(event, Points):
            self.points += len(event)
            key = self._names((event.name, event.rank))
            if key != self._key:
                self.end()
                self._key = key
            self._chunks.append(event)
            return
        self.counts[event.KIND] += 1
        if isinstance(event, Text):
            key = self._names((event.name, event.rank))
            self.texts.setdefault(key, []).append((event.step, event.body))
        elif isinstance(event, File):
            self.files.setdefault(event.name, {}).update({one.path: one.digest for one in event.parts})

    def end(self) -> None:
        """End the series that came last."""
        key, chunks, self._key, self._chunks = self._key, self._chunks, None, []
        if key is None:
            return
        if key in self.series and key not in self._kept:
            self.unknown.add(key)
            return
        before = self._kept.pop(key, None)
        if before is not None:
            self._room += len(before)
        steps, times, values = settled([*([before] if before is not None else []), *chunks])
        series = Points(key[0], steps, times, values, key[1])
        told = digest([series])
        self.series[key] = (len(series), told)
        if len(series) <= self._room:
            self._kept[key] = series
            self._room -= len(series)
        if self._on_series is not None:
            self._on_series(key[0], key[1], steps, values, told)


__all__ = ["Key", "Tally"]
