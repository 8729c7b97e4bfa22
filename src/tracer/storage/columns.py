"""Journal bytes → columns: whole runs of rows at once, because rows of one schema are columns by construction.

A row of k values is `length schema step time k·value sequence commit`, so n rows of one schema in a row are a table of
n * (k + 4) eight-byte words. The decoder looks at a few records one by one, finds the pattern in which their lengths
and schemas repeat (one schema; two in turn, …), and then checks and takes thousands of records with a handful of array
operations. What breaks the pattern is decoded by itself and the search begins anew.
"""

from __future__ import annotations

import fnmatch
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer import journal
from tracer.storage.log_rows import LogRow, log_rows, micros, numbers
from tracer.storage.names import clean_text
from tracer.storage.tails import Lost, Span, Tail

if TYPE_CHECKING:
    from tracer.storage.values import Floats, Integers

_WORD = 8
_HEAD = struct.Struct("<IIqd")
_FOOT = struct.Struct("<II")
_US = 1e6
_MAX_TIME = float(2**62)
#: Longest pattern of alternating schemas that is looked for, and how many records must show it.
_MAX_PERIOD = 16
_SHOWN = 32
#: A name that is declared weighs as much as so many points, and so many layer values as one point.
_NAME_WEIGHT, _VALUES_A_POINT = 8, 1
#: Rows of a schema below which they are kept value by value.
_FEW = 24
#: Records taken at once: large enough that the fixed cost of array operations vanishes, small enough for the caches.
_CHUNK_BYTES = 4 << 20


@dataclass(slots=True)
class Rows:
    """Rows of one schema: a table of values with the step and time of each row.

    `arrival` orders rows within their writer; `ordinal` is the writer's place among the writers of the fold.
    """

    keys: tuple[str, ...]
    rank: int
    ordinal: int
    step: Integers
    time: Integers
    values: Floats
    arrival: Integers


@dataclass(slots=True)
class Loose:
    """Values that came a few at a time, one list per field: a million names with one value each stay cheap."""

    names: list[str] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    ordinals: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(slots=True)
class Layers:
    """One record of layer values."""

    axis: dict[str, Any]
    rank: int
    step: int
    time: int
    matrix: Any
    arrival: int


@dataclass(slots=True)
class HistogramRecord:
    """One record of histograms: counts by sign (negative first), layer and bin."""

    axis: dict[str, Any]
    rank: int
    step: int
    time: int
    lowest: int
    counts: Any
    arrival: int


@dataclass(slots=True)
class Columns:
    """What some tails hold, by kind."""

    rows: list[Rows] = field(default_factory=list)
    loose: Loose = field(default_factory=Loose)
    layers: list[Layers] = field(default_factory=list)
    histograms: list[HistogramRecord] = field(default_factory=list)
    axes: list[dict[str, Any]] = field(default_factory=list)
    logs: list[LogRow] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    points: int = 0
    layer_values: int = 0
    unknown: int = 0

    @property
    def weight(self) -> int:
        """Return how much memory sorting and writing these will take, in points."""
        return self.points + _NAME_WEIGHT * len(self.loose) + self.layer_values // _VALUES_A_POINT


class Decoder:
    """Decodes tails into one `Columns`, writer by writer in the order in which they are given.

    Args:
        layer_values: Stop behind the record with which there are so many: a segment may hold more than memory should.
    """

    def __init__(self, layer_values: int | None = None) -> None:
        self.columns = Columns()
        self._layer_values = layer_values
        self.is_stopped = False
        self._ordinals: dict[str, int] = {}
        self._segment = 0

    def add(self, tail: Tail) -> None:
        """Decode the trusted part of a tail; sets `tail.end`, and `is_stopped` behind a tombstone or a full measure.

        What a tombstone voids was recorded before it, so what follows belongs to the next fold.
        """
        self.is_stopped = False
        ordinal = self._ordinals.setdefault(tail.writer, len(self._ordinals))
        self._segment += 1
        segment = _Segment(tail, ordinal, self._segment << 40, self.columns, self._layer_values)
        for span in tail.spans:
            segment.decode(span)
            if segment.is_stopped:
                break
        self.is_stopped = segment.is_stopped
        if not self.is_stopped:
            tail.end = max([tail.end, *(lost.stop for lost in tail.lost)])
        segment.flush()
        # What is lost further on is told by the fold that gets there.
        self.columns.lost += [lost for lost in tail.lost if not self.is_stopped or lost.start < tail.end]


class _Segment:
    """The decoding of one tail."""

    def __init__(
        self, tail: Tail, ordinal: int, arrival: int, columns: Columns, layer_values: int | None = None
    ) -> None:
        self._most = 2**63 if layer_values is None else layer_values
        self._tail, self._ordinal, self._arrival, self._columns = tail, ordinal, arrival, columns
        self._key = journal.commit_key(tail.header.generation)
        # Pieces of each schema: (step, time, values, arrival); joined at the end of the segment.
        self._pieces: dict[int, list[tuple[Any, Any, Any, Any]]] = {}
        self._single: dict[int, list[tuple[int, float, tuple[float, ...], int]]] = {}
        self._unpackers: dict[int, struct.Struct] = {}
        self._pattern: list[tuple[int, int]] = []
        self.is_stopped = False

    def decode(self, span: Span) -> None:
        """Decode a span, on to the next whole record where one is damaged."""
        tail = self._tail
        at = span.start
        while at < span.stop:
            at = self._run(at, span.stop)
            if self.is_stopped:
                tail.end = at
                return
            if at < span.stop and not span.is_sealed and tail.extend(at):
                continue
            tail.end = max(tail.end, at)
            at = tail.missed(at, span)
        if span.is_exact:
            tail.end = max(tail.end, span.stop)

    def flush(self) -> None:
        """Join the pieces of each schema into rows."""
        tail = self._tail
        for schema in [*self._single]:
            if schema not in self._pieces and len(self._single[schema]) < _FEW and schema in tail.schemas:
                self._loosen(schema, tail.schemas[schema])
        for schema in sorted({*self._pieces, *self._single}):
            keys = tail.schemas.get(schema)
            self._join_single(schema)
            pieces = self._pieces.pop(schema, [])
            if keys is None:
                count = sum(len(piece[0]) for piece in pieces)
                at = int(pieces[0][3][0]) - self._arrival
                tail.lost.append(Lost(tail.path, at, at + count * _WORD, "the schema of these rows is lost"))
                continue
            step, time, values, arrival = (_joined([piece[part] for piece in pieces]) for part in range(4))
            names = tuple(clean_text(key) for key in keys)
            if values.shape[1] != len(names):
                tail.lost.append(Lost(tail.path, tail.start, tail.start, "rows and their schema disagree"))
                continue
            self._columns.rows.append(Rows(names, tail.rank, self._ordinal, step, time, values, arrival))
            self._columns.points += values.size

    def _run(self, at: int, stop: int) -> int:  # noqa: C901, PLR0912 -- the loop over records: one frame is the point
        """Decode committed records up to an offset; return where the first one is that is not."""
        tail, base = self._tail, self._tail.base
        data = memoryview(tail.data)
        stop = min(stop, base + len(data))
        head, foot, key, row_schema = _HEAD.unpack_from, _FOOT.unpack_from, self._key, journal.FIRST_ROW_SCHEMA
        shown: list[tuple[int, int]] = []
        offset = at - base
        limit = stop - base
        patience = _SHOWN
        is_after_break = True
        while offset + journal.RECORD_OVERHEAD <= limit:
            length, schema, step, time = head(data, offset)
            end = offset + length
            if length < journal.RECORD_OVERHEAD or length % _WORD or end > limit:
                break
            sequence, commit = foot(data, end - 8)
            if commit != key ^ sequence:
                break
            if schema >= row_schema:
                if is_after_break and (length, schema) in self._pattern:
                    # A checkpoint or the like stood in between; the rows go on as before.
                    is_after_break = False
                    turn = self._pattern.index((length, schema))
                    taken = self._take(offset, limit, self._pattern[turn:] + self._pattern[:turn])
                    if taken > offset:
                        offset = taken
                        continue
                unpacker = self._unpackers.get(length)
                if unpacker is None:
                    unpacker = self._unpackers[length] = struct.Struct(f"<{(length - 32) // 8}d")
                self._single.setdefault(schema, []).append(
                    (step, time, unpacker.unpack_from(data, offset + 24), self._arrival + offset + base)
                )
                shown.append((length, schema))
                if len(shown) >= patience:
                    period = _period(shown)
                    if period:
                        self._pattern = shown[-period:]
                        taken = self._take(end, limit, self._pattern)
                        # A pattern that soon breaks is not sought again at once: the search costs more than it saves.
                        patience = _SHOWN if taken > end else min(patience * 2, 1 << 14)
                        end = taken
                    else:
                        patience = min(patience * 2, 1 << 14)
                    shown = []
            else:
                self._special(data[offset:end], schema, offset + base, length, step, time)
                if schema == journal.Kind.TOMBSTONE or self._columns.layer_values >= self._most:
                    self.is_stopped = True
                    return int(end + base)
                if schema != journal.Kind.SCHEMA:
                    shown, is_after_break = [], True
            offset = end
        return offset + base

    def _take(self, offset: int, limit: int, pattern: list[tuple[int, int]]) -> int:
        """Take as many whole repeats of a pattern as follow; return the offset behind them."""
        stride = sum(length for length, _ in pattern)
        most = max(_CHUNK_BYTES // stride, 1)
        block = min(
            _SHOWN * 4, most
        )  # it grows while the pattern holds: a break after a hundred rows must not cost a chunk
        words: Any = np.frombuffer(self._tail.data, np.uint32, len(self._tail.data) // 4)
        while True:
            count = min((limit - offset) // stride, block)
            if count < 2:  # noqa: PLR2004 -- one repeat is no run
                return offset
            good = count
            at = offset
            for length, schema in pattern:
                good = min(good, _matching(words, at, length, schema, stride, count, self._key))
                at += length
            at = offset
            for length, schema in pattern:
                if good:
                    self._slice(at, length, schema, stride, good)
                at += length
            offset += good * stride
            if good < count:
                return offset
            block = min(block * 4, most)

    def _slice(self, offset: int, length: int, schema: int, stride: int, count: int) -> None:
        """Take one schema's rows of a run."""
        data = self._tail.data
        keys = (length - journal.RECORD_OVERHEAD) // _WORD
        step = _strided(data, offset + 8, np.int64, stride, count).copy()
        time = micros_of(_strided(data, offset + 16, np.float64, stride, count))
        values = np.ndarray((count, keys), np.float64, data, offset + 24, (stride, _WORD)).copy()
        first = self._arrival + self._tail.base + offset
        arrival = np.arange(first, first + count * stride, stride, dtype=np.int64)
        self._join_single(schema)
        self._pieces.setdefault(schema, []).append((step, time, values, arrival))

    def _join_single(self, schema: int) -> None:
        """Turn the rows that were decoded one by one into a piece; pieces stay in the order of the journal."""
        rows = self._single.pop(schema, None)
        if not rows:
            return
        width = len(rows[0][2])
        rows = [row for row in rows if len(row[2]) == width]
        piece = (
            np.array([row[0] for row in rows], np.int64),
            micros_of(np.array([row[1] for row in rows], np.float64)),
            np.array([row[2] for row in rows], np.float64).reshape(len(rows), width),
            np.array([row[3] for row in rows], np.int64),
        )
        self._pieces.setdefault(schema, []).append(piece)

    def _loosen(self, schema: int, keys: tuple[str, ...]) -> None:
        """Keep the few rows of a schema value by value."""
        loose, rank = self._columns.loose, self._tail.rank
        for step, time, values, arrival in self._single.pop(schema):
            if len(values) != len(keys):
                continue
            count = len(keys)
            loose.names += [clean_text(key) for key in keys]
            loose.values += values
            loose.ranks += [rank] * count
            loose.ordinals += [self._ordinal] * count
            loose.steps += [step] * count
            loose.times += [time] * count
            loose.arrivals += [arrival] * count
            self._columns.points += count

    def _special(self, data: memoryview, schema: int, offset: int, length: int, step: int, time: float) -> None:
        """Decode a record that is not a row."""
        kind, tail, columns = journal.Kind, self._tail, self._columns
        record = journal.Record(offset, length, schema, step, time, data[24 : length - 8])
        if schema in (kind.SCHEMA, kind.AXIS):
            tail.declare(record)
            if schema == kind.AXIS:
                columns.axes += [axis for axis in tail.axes.values() if axis not in columns.axes]
        elif schema == kind.LAYERS:
            self._layers(record)
        elif schema == kind.HISTOGRAM:
            self._histograms(record)
        elif schema == kind.TYPED:
            loose = columns.loose
            for name, value in numbers(record).items():
                loose.names.append(name)
                loose.values.append(value)
                loose.ranks.append(tail.rank)
                loose.ordinals.append(self._ordinal)
                loose.steps.append(step)
                loose.times.append(time)
                loose.arrivals.append(self._arrival + offset)
                columns.points += 1
            columns.logs += log_rows(record, tail)
        elif schema in _KNOWN:
            columns.logs += log_rows(record, tail)
        else:
            columns.unknown += 1

    def _layers(self, record: journal.Record) -> None:
        """Decode one record of layer values; the matrix stays a view of the journal's bytes."""
        number, matrix = record.layers()
        axis: dict[str, Any] | None = self._tail.axes.get(number)
        shape = (len(axis.get("statistics", ())), len(axis.get("layers", ()))) if axis else (0, 0)
        size = shape[0] * shape[1]
        if axis is None or not size or size > len(matrix):
            self._lose(record, "the axis of these layer values is lost")
            return
        values = np.frombuffer(matrix.cast("B"), np.float32, size).reshape(shape)
        columns = self._columns
        columns.layer_values += size
        columns.layers.append(
            Layers(axis, self._tail.rank, record.step, micros(record.time), values, self._arrival + record.offset)
        )

    def _histograms(self, record: journal.Record) -> None:
        """Decode one record of histograms."""
        number, lowest, bins, counts = record.histograms()
        axis: dict[str, Any] | None = self._tail.axes.get(number)
        layers = len(axis.get("layers", ())) if axis else 0
        size = 2 * layers * bins
        if axis is None or not size or size > len(counts):
            self._lose(record, "the axis of these histograms is lost")
            return
        found = np.frombuffer(counts.cast("B"), np.uint32, size).reshape(2, layers, bins)
        columns = self._columns
        columns.layer_values += size
        arrival = self._arrival + record.offset
        columns.histograms.append(
            HistogramRecord(axis, self._tail.rank, record.step, micros(record.time), lowest, found, arrival)
        )

    def _lose(self, record: journal.Record, reason: str) -> None:
        """Note that a record cannot be understood."""
        self._tail.lost.append(Lost(self._tail.path, record.offset, record.offset + record.length, reason))


def void(columns: Columns, step: int, pattern: str) -> None:
    """Drop the values that a rewind voids: those of matching names from a step on."""
    kept: list[Rows] = []
    for one in columns.rows:
        before = one.step < step
        matching = [fnmatch.fnmatchcase(key, pattern) for key in one.keys]
        if before.all() or not any(matching):
            kept.append(one)
            continue
        for chosen, rows in ((True, before), (False, slice(None))):
            at = [column for column, is_matching in enumerate(matching) if is_matching is chosen]
            if at and len(one.step[rows]):
                keys = tuple(one.keys[column] for column in at)
                values = np.ascontiguousarray(one.values[rows][:, at])
                kept.append(
                    Rows(keys, one.rank, one.ordinal, one.step[rows], one.time[rows], values, one.arrival[rows])
                )
    columns.rows = kept
    loose = columns.loose
    stays = [
        at for at, (name, one) in enumerate(zip(loose.names, loose.steps, strict=True))
        if one < step or not fnmatch.fnmatchcase(name, pattern)
    ]  # fmt: skip
    columns.loose = Loose(*([getattr(loose, part)[at] for at in stays] for part in Loose.__slots__))
    columns.points = sum(one.values.size for one in columns.rows) + len(columns.loose)


def micros_of(seconds: Floats) -> Integers:
    """Return times in whole microseconds, as `log_rows.micros` does for one."""
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.nan_to_num(seconds * _US, nan=0.0, posinf=_MAX_TIME, neginf=-_MAX_TIME)
        return np.rint(np.clip(scaled, -_MAX_TIME, _MAX_TIME)).astype(np.int64)


def _joined(parts: list[Any]) -> Any:  # noqa: ANN401 -- arrays of one type
    """Return arrays end to end; a single one as it is."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _period(shown: list[tuple[int, int]]) -> int:
    """Return after how many records the lengths and schemas repeat, or 0."""
    for period in range(1, _MAX_PERIOD + 1):
        if shown[period:] == shown[:-period]:
            return period
    return 0


def _matching(words: Any, offset: int, length: int, schema: int, stride: int, count: int, key: int) -> int:  # noqa: ANN401
    """Return how many of the records expected at a stride are there, committed, before the first that is not."""
    at, every = offset // 4, stride // 4
    end = at + (count - 1) * every + 1
    good = (words[at:end:every] == length) & (words[at + 1 : end + 1 : every] == schema)
    last = at + length // 4 - 2
    sequence = words[last : last + (count - 1) * every + 1 : every]
    commit = words[last + 1 : last + (count - 1) * every + 2 : every]
    good &= (sequence ^ np.uint32(key)) == commit
    return count if good.all() else int(np.argmin(good))


def _strided(data: bytes, offset: int, kind: Any, stride: int, count: int) -> Any:  # noqa: ANN401 -- an array type
    """Return one field of a run of records as a view."""
    return np.ndarray((count,), kind, data, offset, (stride,))


_KNOWN = frozenset(
    {
        journal.Kind.LOG, journal.Kind.SAMPLES, journal.Kind.CHECKPOINT, journal.Kind.FINDING, journal.Kind.METADATA,
        journal.Kind.TOMBSTONE, journal.Kind.DROPPED, journal.Kind.END, journal.Kind.FILLER, journal.Kind.HEARTBEAT,
        journal.Kind.CLOCK, journal.Kind.MEDIA,
    }
)  # fmt: skip

__all__ = ["Columns", "Decoder", "HistogramRecord", "Layers", "Loose", "Rows", "micros_of", "void"]
