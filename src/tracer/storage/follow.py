"""A run as it records: its journal read again and again, value by value; standard library."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tracer import clock, journal
from tracer.storage import resolve
from tracer.storage.log_rows import log_rows, micros, numbers, text_value
from tracer.storage.names import clean_text
from tracer.storage.snapshot import places_of
from tracer.storage.tails import Place, Tail
from tracer.storage.values import Update
from tracer.storage.walking import Walker

if TYPE_CHECKING:
    from tracer.storage.ground import Ground

_PIECE = 1 << 20
Value = tuple[str, int, int, int, object]


class Follower:
    """Reads on in all journals of a run."""

    def __init__(self, folder: str, places: Mapping[str, Place]) -> None:
        self._walker = Walker(folder, places)

    def poll(self) -> list[Value]:
        """Return what was recorded since the last time."""
        values: list[Value] = []
        for reading in self._walker.readings():
            while data := reading.piece(_PIECE):
                begin = reading.at
                for record in journal.scan(data, 0, len(data), reading.tail.header.generation):
                    record.offset += begin
                    reading.at = record.offset + record.length
                    values += _values(record, reading.tail)
        return values

    def close(self) -> None:
        """Let go of the segments."""
        self._walker.close()

    def position(self) -> str:
        """Return where to go on."""
        return self._walker.position()


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
