"""A run as it records: its journal read again and again; standard library.

A segment is kept open while it is read: when the maintainer folds and removes it, its last records can still be read.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tracer import clock, journal
from tracer.errors import StoreError
from tracer.storage import resolve, tails
from tracer.storage.log_rows import log_rows, micros, numbers, text_value
from tracer.storage.names import clean_text
from tracer.storage.snapshot import places_of
from tracer.storage.tails import Place, Tail
from tracer.storage.values import Update

if TYPE_CHECKING:
    from tracer.storage.ground import Ground

_PIECE = 1 << 20
Value = tuple[str, int, int, int, object]


@dataclass(slots=True)
class _Open:
    """A segment that is being read."""

    tail: Tail
    fd: int
    at: int
    ended: bool = False
    values: list[Value] = field(default_factory=list)


class Follower:
    """Reads on in all journals of a run."""

    def __init__(self, folder: str, places: dict[str, Place]) -> None:
        self.places = dict(places)
        self._folder = os.path.join(folder, "journal")
        self._open: dict[str, _Open] = {}

    def poll(self) -> list[Value]:
        """Return what was recorded since the last time."""
        values: list[Value] = []
        for writer, segments in sorted(tails.list_segments(self._folder).items()):
            for number, path in segments:
                place = self.places.get(writer, Place(-1, 0))
                if number < place.segment:
                    continue
                current = self._open.get(writer)
                if current is not None and number > current.tail.number:
                    if not tails.has_records(path):
                        break  # it is only prepared
                    values += self._read(current)  # once more: the next segment began after this one was full
                    self._close(writer)
                    self.places[writer] = Place(number, 0)
                    current = None
                if current is None:
                    self._enter(writer, path, number, self.places.get(writer, Place(-1, 0)))
        for writer, current in self._open.items():
            values += self._read(current)
            self.places[writer] = Place(current.tail.number, current.at)
        return values

    def close(self) -> None:
        """Let go of the segments."""
        for writer in list(self._open):
            self._close(writer)

    def position(self) -> str:
        """Return where to go on."""
        return json.dumps({writer: [place.segment, place.offset] for writer, place in self.places.items()})

    def _enter(self, writer: str, path: str, number: int, place: Place) -> None:
        """Open a segment where reading goes on."""
        start = place.offset if number == place.segment else 0
        try:
            tail = tails.load(path, Place(number, start), [], clock.boot_id())
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, StoreError):
            return
        tail.data = b""
        self._open[writer] = _Open(tail, descriptor, tail.start)

    def _close(self, writer: str) -> None:
        """Close a writer's segment."""
        current = self._open.pop(writer, None)
        if current is not None:
            with contextlib.suppress(OSError):
                os.close(current.fd)

    def _read(self, current: _Open) -> list[Value]:
        """Return the values of the records that a segment got since."""
        values: list[Value] = []
        size = _PIECE
        while True:
            data = tails.settled(current.fd, current.at, os.pread(current.fd, size, current.at))
            before = current.at
            for record in journal.scan(data, 0, len(data), current.tail.header.generation):
                record.offset += before
                current.at = record.offset + record.length
                values += _values(record, current.tail)
            if current.at > before:
                size = _PIECE
                continue
            length = int.from_bytes(data[:4], "little")
            if len(data) < size or length <= size:
                return values
            size = length  # a record longer than a piece


def follow(store: Ground, uid: str, position: str | None, *, poll_s: float) -> Iterator[Update]:
    """Yield what a run records until it ends; see `Store.follow`."""
    row = resolve.find_run(store, uid)
    if position is None:
        run = store.catalog.value("SELECT id FROM run WHERE uid = ?", (row.uid,))
        places = places_of(store.catalog, run) if run is not None else {}
    else:
        places = {writer: Place(*place) for writer, place in json.loads(position).items()}
    follower = Follower(store.run_folder(row), places)
    pause = threading.Event()
    try:
        while True:
            is_live = resolve.find_run(store, row.uid).is_live
            values = follower.poll()
            if values:
                yield Update(follower.position(), tuple(values))
            elif not is_live:
                return
            else:
                clock.wait(pause, poll_s)
    finally:
        follower.close()


def _values(record: journal.Record, tail: Tail) -> Iterator[Value]:
    """Yield the values of one record."""
    kind = journal.Kind
    if record.schema >= journal.FIRST_ROW_SCHEMA:
        time = micros(record.time)
        for name, value in zip(tail.schemas.get(record.schema, ()), record.values(), strict=False):
            yield clean_text(name), tail.rank, record.step, time, value
    elif record.schema in (kind.SCHEMA, kind.AXIS):
        tail.declare(record)
    elif record.schema == kind.TYPED:
        for name, number in numbers(record).items():
            yield name, tail.rank, record.step, micros(record.time), number
        for row in log_rows(record, tail):
            if row.name not in numbers(record):
                yield row.name or "", tail.rank, record.step, row.time, text_value(row)


__all__ = ["Follower", "follow"]
