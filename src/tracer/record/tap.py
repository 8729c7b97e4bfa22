"""What this process' own writers committed since the last look, read from their segments in memory.

Nothing here writes, locks or waits: a writer never knows that somebody reads along. `Tap.look` runs on the upkeep
thread and reads every writer, up to a bound; `Glance` runs on the training thread at the end of a step and looks only
for a value that is not finite. NumPy is loaded at the first look and not with a run.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Protocol

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from tracer.record.segments import Segment
    from tracer.record.writer import Schema, Writer

    class Recording(Protocol):
        """What the tap needs of a recorder."""

        journal_folder: str
        writers: list[Writer]


import os
import struct

from tracer import journal
from tracer.events import Axis

#: What one look reads of one writer; the rest of a busier second is passed over, and said.
MAX_BYTES = 1 << 20
#: Records met one by one in a look, about a microsecond each; rows of one schema in a row count once.
MAX_RECORDS = 4096
_SHORT_RUN = 64
_PREFIX, _SUFFIX = struct.Struct("<IIqd"), struct.Struct("<II")
_HEAD, _STEP, _DOUBLE = struct.Struct("<II"), struct.Struct("<q"), struct.Struct("<d")
_ROW_AT = 24


class Rows:
    """Rows of one key tuple in the order in which they were logged."""

    __slots__ = ("names", "steps", "times", "values")

    def __init__(self, names: tuple[str, ...], steps: NDArray[Any], times: NDArray[Any], values: NDArray[Any]) -> None:
        self.names, self.steps, self.times, self.values = names, steps, times, values


class Layers:
    """One record of layer values: a row per statistic, a column per layer."""

    __slots__ = ("axis", "matrix", "step", "time")

    def __init__(self, axis: Axis, matrix: NDArray[Any], step: int, time: float) -> None:
        self.axis, self.matrix, self.step, self.time = axis, matrix, step, time


class Seen:
    """What one look found; `skipped_bytes` of the journal were passed over because they were too many."""

    __slots__ = ("layers", "rows", "skipped_bytes")

    def __init__(self) -> None:
        self.rows: list[Rows] = []
        self.layers: list[Layers] = []
        self.skipped_bytes = 0


class _Cursor:
    """How far one writer was read, and what its present segment declared."""

    __slots__ = ("at", "axes", "gathered", "number", "schemas", "segment")

    def __init__(self) -> None:
        self.segment: Segment | None = None
        self.number, self.at = -1, journal.HEADER_SIZE
        self.schemas: dict[int, tuple[str, ...]] = {}
        self.axes: dict[int, Axis] = {}
        self.gathered: dict[tuple[str, ...], list[tuple[float, ...]]] = {}

    def enter(self, number: int, segment: Segment | None) -> None:
        """Go to the beginning of a segment; it has declared nothing yet."""
        self.segment, self.number, self.at = segment, number, journal.HEADER_SIZE
        self.schemas, self.axes = {}, {}


class Tap:
    """Reads along with the writers of one recorder.

    Args:
        recorder: Whose writers.

    Example:
        >>> with tracer.init(project="docs", quiet=True, track_system_metrics=False) as run:
        ...     tap = Tap(run.recorder)
        ...     tracer.log({"loss": 0.5}, step=3)
        ...     [rows] = tap.look().rows
        >>> rows.names, rows.steps.tolist(), rows.values.tolist()
        (('loss',), [3], [[0.5]])
    """

    def __init__(self, recorder: Recording) -> None:
        self._recorder = recorder
        self._cursors: dict[bytes, _Cursor] = {}
        self.skipped_bytes = 0

    def look(self) -> Seen:
        """Return what was committed since the look before; one thread at a time may ask."""
        seen = Seen()
        for writer in tuple(self._recorder.writers):
            cursor = self._cursors.setdefault(writer.id, _Cursor())
            self._read_writer(writer, cursor, seen)
            _finish_gathered(cursor, seen)
        self.skipped_bytes += seen.skipped_bytes
        return seen

    def _read_writer(self, writer: Writer, cursor: _Cursor, seen: Seen) -> None:
        """Read what one writer committed: the rest of segments it left, then its present one."""
        budget = [MAX_BYTES, MAX_RECORDS]
        # In this order: the offset is set after the segment, and an offset that belongs to the next one only stops
        # the reading early.
        segment, end = writer.segment, writer.at
        while cursor.number < segment.number:
            self._read_left(writer, cursor, seen, budget)
        if cursor.number != segment.number:
            return
        cursor.segment = segment
        if self._read(writer, cursor, segment, end, seen, budget):
            return
        if segment.buffer.closed:
            self._read_file(writer, cursor, seen, budget)
        else:
            self._jump(writer, cursor, segment, end, seen)

    def _read_left(self, writer: Writer, cursor: _Cursor, seen: Seen, budget: list[int]) -> None:
        """Read the rest of a segment that the writer has left, and go on to the next."""
        segment = cursor.segment
        if cursor.number >= 0:
            end = segment.end if segment is not None else 0
            if segment is None or not self._read(writer, cursor, segment, end, seen, budget):
                self._read_file(writer, cursor, seen, budget)
        known = {one.number: one for one in (*writer.retired, writer.segment)}
        cursor.enter(cursor.number + 1, known.get(cursor.number + 1))

    def _read(self, writer: Writer, cursor: _Cursor, segment: Segment, end: int, seen: Seen, budget: list[int]) -> bool:
        """Read a segment in memory up to an offset; False when its memory is gone or it holds too much."""
        if end <= cursor.at:
            return True
        stop = min(end, cursor.at + budget[0])
        try:
            # A copy: a view would keep the upkeep thread from closing the mapping.
            data = segment.buffer[cursor.at : stop]
        except ValueError:  # it was closed meanwhile; the file has it
            return False
        budget[0] -= len(data)
        read = _parse(data, segment.key, cursor, seen, budget, lambda: _declared(writer, segment.number))
        cursor.at += read
        return stop == end and budget[1] > 0

    def _read_file(self, writer: Writer, cursor: _Cursor, seen: Seen, budget: list[int]) -> None:
        """Read the rest of a closed segment from its file; what was folded away already is passed over."""
        path = os.path.join(self._recorder.journal_folder, journal.segment_name(writer.id, cursor.number))
        try:
            with open(path, "rb") as file:
                header = journal.Header.unpack(file.read(journal.HEADER_SIZE))
                end = header.end if header.closed else 0
                file.seek(cursor.at)
                data = file.read(max(min(end - cursor.at, budget[0]), 0))
        except (OSError, ValueError):
            return
        budget[0] -= len(data)
        cursor.at += _parse(data, journal.commit_key(header.generation), cursor, seen, budget, dict)
        seen.skipped_bytes += max(end - cursor.at, 0)

    def _jump(self, writer: Writer, cursor: _Cursor, segment: Segment, end: int, seen: Seen) -> None:
        """Go on at the end: a look is bounded, and what is new matters more than what is old."""
        if writer.segment is not segment or end <= cursor.at:
            return
        seen.skipped_bytes += end - cursor.at
        cursor.at = end
        cursor.schemas, cursor.axes = _declared(writer, segment.number), _declared_axes(writer)


class Glance:
    """Sees a value that is not finite at the end of the step in which its thread logged it.

    Args:
        matters: Tells for which metrics it matters.

    Example:
        >>> glance = Glance(lambda name: name == "loss")
        >>> with tracer.init(project="docs", quiet=True) as run:
        ...     tracer.log({"loss": float("inf"), "accuracy": 0.5}, step=7)
        ...     glance.look(run.recorder.writer())
        [('loss', 7, inf)]
    """

    __slots__ = ("_at", "_known", "_matters", "_segment", "_watched")

    def __init__(self, matters: Callable[[str], bool]) -> None:
        self._matters = matters
        self._segment: Segment | None = None
        self._at, self._known = journal.HEADER_SIZE, 0
        self._watched: list[tuple[Schema, tuple[tuple[str, int], ...]]] = []

    def look(self, writer: Writer) -> list[tuple[str, int, float]]:
        """Return metric, step and value of what is not finite since the look before; on the writer's own thread.

        Only the last row of each key tuple is read, half a microsecond for one. If that is bad, the rows before it say
        where it began.
        """
        schemas = writer._schemas  # noqa: SLF001 -- the same room, and the same thread
        if len(schemas) != self._known:
            self._learn(schemas)
        if writer.segment is not self._segment:
            self._segment, self._at = writer.segment, journal.HEADER_SIZE
        buffer, begin, number = writer.buffer, self._at, writer.segment.number
        self._at = writer.at
        found: list[tuple[str, int, float]] = []
        for schema, columns in self._watched:
            at = schema.at
            if at < begin or schema.segment != number:
                continue
            for name, place in columns:
                (value,) = _DOUBLE.unpack_from(buffer, at + place)
                if value - value != 0.0:  # NaN, and an infinity minus itself
                    step, value = _first_bad(buffer, begin, at, schema.number, place)
                    found.append((name, step, value))
        return found

    def _learn(self, schemas: Mapping[tuple[str, ...], Schema]) -> None:
        """Look up which columns of the rows matter."""
        self._known, self._watched = len(schemas), []
        for names, schema in schemas.items():
            columns = [(name, _ROW_AT + 8 * place) for place, name in enumerate(names) if self._matters(name)]
            if columns:
                self._watched.append((schema, tuple(columns)))


def _first_bad(buffer: Buffer, begin: int, end: int, schema: int, place: int) -> tuple[int, float]:
    """Return step and value of the first row between two offsets, the last included, whose value is not finite."""
    at = begin
    while True:
        length, kind = _HEAD.unpack_from(buffer, at)
        if kind == schema:
            (value,) = _DOUBLE.unpack_from(buffer, at + place)
            if value - value != 0.0 or at >= end:
                return _STEP.unpack_from(buffer, at + 8)[0], value
        at += length


def _parse(
    data: bytes,
    key: int,
    cursor: _Cursor,
    seen: Seen,
    budget: list[int],
    declared: Callable[[], dict[int, tuple[str, ...]]],
) -> int:
    """Read the committed records of some bytes; return how many bytes they took."""
    at, size, left = 0, len(data), budget[1]
    while at + journal.RECORD_OVERHEAD <= size and left > 0:
        length, schema, step, time = _PREFIX.unpack_from(data, at)
        end = at + length
        if length < journal.RECORD_OVERHEAD or length % 8 or end > size:
            break
        sequence, commit = _SUFFIX.unpack_from(data, end - 8)
        if commit != key ^ sequence:
            break
        left -= 1
        if schema >= journal.FIRST_ROW_SCHEMA:
            names = cursor.schemas.get(schema)
            if names is None:
                cursor.schemas.update(declared())
                names = cursor.schemas.get(schema, ())
            if end + 8 <= size and data[end : end + 8] == data[at : at + 8]:
                _finish_gathered(cursor, seen)
                end = at + _read_run(memoryview(data)[at:], length, key, names, seen)
            elif names:
                row = struct.unpack_from(f"<{len(names)}d", data, at + _ROW_AT)
                cursor.gathered.setdefault(names, []).append((step, time, *row))
        elif schema in (journal.Kind.SCHEMA, journal.Kind.AXIS):
            _learn(journal.Record(at, length, schema, step, time, memoryview(data)[at + _ROW_AT : end - 8]), cursor)
        elif schema == journal.Kind.LAYERS:
            _read_layers(data[at + _ROW_AT : end - 8], step, time, cursor, seen)
        at = end
    budget[1] = left
    return at


def _learn(record: journal.Record, cursor: _Cursor) -> None:
    """Take note of what a segment declares."""
    said = record.json()
    if record.schema == journal.Kind.SCHEMA:
        cursor.schemas[_number(said, "schema")] = _texts(said.get("keys"))
    else:
        axis = Axis(str(said.get("what")), _texts(said.get("layers")), _texts(said.get("statistics")))
        cursor.axes[_number(said, "axis")] = axis


def _read_run(data: memoryview, length: int, key: int, names: tuple[str, ...], seen: Seen) -> int:
    """Read rows of one schema that follow each other, all at once; return how many bytes they took."""
    import numpy as np

    most = len(data) // length
    for count in (min(most, _SHORT_RUN), most):  # a short run must not cost a look at all that follows
        words = np.frombuffer(data, np.uint32, count * length // 4).reshape(count, length // 4)
        whole = (words[:, 0] == words[0, 0]) & (words[:, 1] == words[0, 1])
        whole &= words[:, -1] == (np.uint32(key) ^ words[:, -2])
        if not whole.all():
            count = int(np.argmin(whole))  # noqa: PLW2901 -- the run ends here
            break
    if names:
        columns = np.frombuffer(data, np.float64, count * length // 8).reshape(count, length // 8)
        steps = np.frombuffer(data, np.int64, count * length // 8).reshape(count, length // 8)[:, 1]
        seen.rows.append(Rows(names, steps, columns[:, 2], columns[:, 3 : 3 + len(names)]))
    return count * length


def _read_layers(payload: bytes, step: int, time: float, cursor: _Cursor, seen: Seen) -> None:
    """Read one record of layer values; one whose axis was passed over is left out."""
    import numpy as np

    axis = cursor.axes.get(_HEAD.unpack_from(payload)[0])
    if axis is None:
        return
    shape = (len(axis.statistics), len(axis.layers))
    count = shape[0] * shape[1]
    if count and len(payload) >= 8 + 4 * count:
        matrix = np.frombuffer(payload, np.float32, count, 8).reshape(shape)
        seen.layers.append(Layers(axis, matrix, step, time))


def _finish_gathered(cursor: _Cursor, seen: Seen) -> None:
    """Make arrays of the rows that were met one by one."""
    if not cursor.gathered:
        return
    import numpy as np

    for names, rows in cursor.gathered.items():
        steps = np.array([row[0] for row in rows], np.int64)  # apart: a double does not hold every step
        table = np.array(rows, np.float64)
        seen.rows.append(Rows(names, steps, table[:, 1], table[:, 2:]))
    cursor.gathered = {}


def _declared(writer: Writer, number: int) -> dict[int, tuple[str, ...]]:
    """Return the schemas that a writer has declared in its segment of this number."""
    schemas = tuple(writer._schemas.values())  # noqa: SLF001 -- the same room; copied, for its thread goes on
    return {schema.number: schema.keys for schema in schemas if schema.segment == number}


def _declared_axes(writer: Writer) -> dict[int, Axis]:
    """Return the axes that a writer has declared in its present segment."""
    axes: Iterable[tuple[Any, int]] = tuple(writer._axes.items())  # noqa: SLF001 -- as above
    return {number: Axis(what, layers, statistics) for (what, layers, statistics), number in axes}


def _number(said: dict[str, object], name: str) -> int:
    """Return a whole number of a declaration."""
    value = said.get(name)
    return value if isinstance(value, int) else -1


def _texts(value: object) -> tuple[str, ...]:
    """Return the names of a declaration."""
    return tuple(str(part) for part in value) if isinstance(value, list) else ()


__all__ = ["Glance", "Layers", "Recording", "Rows", "Seen", "Tap"]
