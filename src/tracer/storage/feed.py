"""What a run recorded, as it travels to back ends: its journals from some places on, in batches of columns.

Numpy, no DuckDB: a lane lives in a process beside the training and loads as little as it can.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from tracer import journal, transfer
from tracer.errors import StoreError
from tracer.storage import decoded_events, tails
from tracer.storage.columns import Decoder
from tracer.storage.folder import FAMILIES
from tracer.storage.tails import Span, Tail
from tracer.storage.walking import Reading, Walker

#: What is read at once: at most a megabyte, and of a small batch no more than its points may take.
_SMALLEST, _LARGEST = 1 << 16, 1 << 20
_BYTES_A_POINT = 40
_HEAD = struct.Struct("<II")
#: Records that weigh nothing: they declare, or hold what is not wanted.
_LIGHT = frozenset({journal.Kind.SCHEMA, journal.Kind.AXIS, journal.Kind.LAYERS, journal.Kind.HISTOGRAM})

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class FeedBatch:
    """What came, where to go on after it, and how many points it has."""

    events: list[transfer.Event]
    places: dict[str, Place]
    points: int


class Feed:
    """Reads on in all journals of a run, of every writer and rank; for one lane.

    Args:
        folder: The run's folder.
        places: Where each writer's journal goes on, as a batch before said; empty for everything.
        kinds: The kinds of `transfer` that are wanted.

    Example:
        >>> feed = Feed(run.folder, {}, kinds=frozenset({"points"}))  # doctest: +SKIP
        >>> feed.read(1000).points  # doctest: +SKIP
        1000
    """

    def __init__(self, folder: str, places: Mapping[str, Place], *, kinds: frozenset[str]) -> None:
        self._folder, self._kinds = folder, kinds
        self._walker = Walker(folder, places)
        wanted = ((journal.Kind.LAYERS, transfer.LAYER), (journal.Kind.HISTOGRAM, transfer.HISTOGRAM))
        self._heavy = frozenset(record for record, kind in wanted if kind in kinds)
        self._walker.gap = not places and _is_late(folder)

    @property
    def gap(self) -> bool:
        """Tell whether something that comes next is not in the journal any more: only whole series can be sent."""
        return self._walker.gap

    def read(self, limit: int) -> FeedBatch:
        """Return what was recorded since, up to about so many points; nothing when there is nothing.

        Of one series the order is that of the journal. The places may move though nothing came: a segment was ended.
        """
        decoder = Decoder()
        left = max(limit, 1)
        size = min(max(left * _BYTES_A_POINT, _SMALLEST), _LARGEST)
        readings = self._walker.readings()
        for reading in readings:
            while left > 0 and (data := reading.piece(size)):
                stop, weight = self._cut(data, left)
                left -= weight
                _decode(decoder, reading, data[:stop])
            if left <= 0:
                readings.close()
                break
        self._walker.mark()
        columns = decoder.columns
        found = list(decoded_events.of_columns(columns, self._folder, self._kinds))
        points = sum(len(event) for event in found if isinstance(event, transfer.Points))
        places = {writer: (place.segment, place.offset) for writer, place in self._walker.places.items()}
        return FeedBatch(found, places, points)

    def close(self) -> None:
        """Let go of the files."""
        self._walker.close()

    def _cut(self, data: bytes, left: int) -> tuple[int, int]:
        """Return where to cut a piece so that it holds about so many points, and how many those are."""
        at = weight = 0
        head, end, row = _HEAD.unpack_from, len(data) - journal.RECORD_OVERHEAD, journal.FIRST_ROW_SCHEMA
        while at <= end and weight < left:
            length, schema = head(data, at)
            if length < journal.RECORD_OVERHEAD:
                break
            if schema >= row:
                weight += (length - journal.RECORD_OVERHEAD) // 8
            elif schema in self._heavy:
                weight += length // 4
            elif schema not in _LIGHT:
                weight += 1
            at += length
        return min(at, len(data)), weight


def _decode(decoder: Decoder, reading: Reading, data: bytes) -> None:
    """Decode a piece of a segment, and move the reading behind it."""
    tail = reading.tail
    piece = Tail(
        tail.path, tail.writer, tail.number, tail.header, reading.at, reading.at, data,
        [Span(reading.at, reading.at + len(data), is_exact=False, is_sealed=True)], end=reading.at,
        schemas=tail.schemas, axes=tail.axes, declared=tail.declared,
    )  # fmt: skip
    decoder.add(piece)
    reading.at = piece.end


def _is_late(folder: str) -> bool:
    """Tell whether a lane that begins now comes too late to read everything: a file is older than the journal."""
    opened: list[int] = []
    for found in tails.list_segments(os.path.join(folder, "journal")).values():
        with contextlib.suppress(OSError, StoreError):
            at = tails.read_header(found[0][1]).identity.get("opened", 0)
            opened.append(at if isinstance(at, int) else 0)
    since = min(opened, default=None)
    for family in FAMILIES:
        with contextlib.suppress(OSError), os.scandir(os.path.join(folder, family)) as entries:
            for entry in entries:
                if entry.name.endswith(".parquet") and (since is None or entry.stat().st_mtime_ns < since * 1000):
                    return True
    return False


__all__ = ["Feed", "FeedBatch", "Place"]
