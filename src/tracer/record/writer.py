"""One thread's writer: the hot path of `log`.

A call of plain floats is one `pack_into` a mapped file: no lock, no queue, no system call, nothing that releases the
GIL (each release costs up to 5 ms beside a busy data loader). The commit word is the last word of the record, and the
offset advances after the pack returned: a torn record is simply the tail, and is overwritten.

Everything that is odd takes another path and ends in the same records.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Mapping, Sequence

    from tracer.events import Axis
    from tracer.record.segments import Segment

import itertools
import os
import struct
import threading

from tracer import clock, journal
from tracer.errors import UsageError
from tracer.record.values import checked_name, plain_numbers, refusal, sort_values

_INT64 = 2**63
_ONE_VALUE = journal.RECORD_OVERHEAD + 8
#: Single-name schemas are kept for reuse up to here, then the table starts anew: memory stays bounded.
_MAX_NAMES = 65_536
#: How often another thread tries to read the current values before it takes older ones.
_READ_TRIES = 5
#: A checkpoint of more names than this keeps the newest.
_MAX_CARRIED = 10_000


class Steps:
    """The run's own step counter, shared by its writers; at step `due` the end of a step takes more than counting.

    `ahead` is 1 where metrics of a step are logged after it was counted, as frameworks do: what is seen inside the step
    belongs to the number that they will log at.
    """

    __slots__ = ("ahead", "checkpoints", "due", "step")

    def __init__(self, step: int = 0) -> None:
        self.step, self.checkpoints, self.due, self.ahead = step, 0, 0, 0


class Schema:
    """A key tuple with what packs its row; `segment` is where it was declared last, `at` where its last row lies."""

    __slots__ = ("at", "keys", "length", "number", "pack", "segment")

    def __init__(self, keys: tuple[str, ...]) -> None:
        packer = journal.row_struct(len(keys))
        self.keys, self.pack, self.length = keys, packer.pack_into, packer.size
        self.number, self.segment, self.at = 0, -1, -1


class Writer:
    """A chain of segments that one thread fills; `open_next` makes the next one, `odd` takes what the device holds."""

    __slots__ = (
        "__weakref__", "_axes", "_inner", "_numbers", "_schemas", "at", "buffer", "busy", "carried", "closed", "host",
        "id", "key", "limit", "now", "numbers", "prepared", "retired", "schema", "segment", "sequence", "steps",
        "thread",
    )  # fmt: skip

    at: int
    buffer: mmap.mmap
    key: int
    limit: int
    schema: Schema
    segment: Segment
    sequence: int
    _numbers: int

    def __init__(self, host: Host, steps: Steps) -> None:
        self.host, self.steps = host, steps
        self.id = os.urandom(16)
        self.numbers = itertools.count()  # taken by this thread and by the upkeep thread, each number once
        self.now: Callable[[], float] = clock.now  # bound here: each look-up by name costs the hot path 15 ns
        self.thread: threading.Thread | None = threading.current_thread()
        self.retired: list[Segment] = []
        self.prepared: Segment | None = None
        self.carried: dict[str, object] = {}
        self._schemas: dict[tuple[str, ...], Schema] = {}
        self._axes: dict[tuple[object, ...], int] = {}
        self._inner: Writer | None = None
        self.busy = self.closed = False
        self.schema = Schema(())
        self._enter(host.open_segment(self, journal.HEADER_SIZE))

    def log(self, metrics: Mapping[str, object], step: int | None = None) -> None:  # noqa: C901, PLR0912 -- one frame is the point
        """Record the values of one call."""
        try:
            values = metrics.values()
        except AttributeError:
            message = (
                f"`log` takes a dictionary of name and value, such as {{'loss': 0.5}}; got {type(metrics).__name__}."
            )
            raise TypeError(message) from None
        for value in values:
            if type(value) is not float:
                return self._log_odd(metrics, step)
        if step is None:
            step = self.steps.step
        elif type(step) is not int:
            step = _whole(step)
        if self.busy:
            # A signal handler or a finaliser runs inside a call of ours on this thread: it gets its own segment.
            return self._nested().log(metrics, step)
        self.busy = True
        try:
            keys = tuple(metrics)
            schema = self.schema
            if keys != schema.keys:
                switched = self._switch(keys)
                if switched is None:
                    return self._log_apart(metrics, step)
                schema = switched
            at = self.at
            end = at + schema.length
            if end > self.limit:
                at = self._room(schema)
                end = at + schema.length
            sequence = self.sequence
            commit, buffer, length, number, pack = (
                self.key ^ sequence,
                self.buffer,
                schema.length,
                schema.number,
                schema.pack,
            )
            if length == _ONE_VALUE:  # without unpacking a view of values: 160 of 900 ns
                pack(buffer, at, length, number, step, self.now(), value, sequence, commit)
            else:
                pack(buffer, at, length, number, step, self.now(), *values, sequence, commit)
            schema.at = at
            self.at = end
            self.sequence = sequence + 1
        except (struct.error, OverflowError) as error:
            self._settle()
            raise ValueError(_step_message(step)) from error
        except BaseException as error:  # an interrupt too: the record may be complete already
            self._settle()
            if self.closed and isinstance(
                error, ValueError
            ):  # another thread finished the run in the middle of this call
                raise UsageError(self.host.finished_message()) from None
            raise
        finally:
            self.busy = False
        return None

    def append(self, kind: int, payload: bytes, step: int | None = None, time: float | None = None) -> None:
        """Record something that is not a row."""
        if self.busy:
            return self._nested().append(kind, payload, step, time)
        self.busy = True
        try:
            self._put(kind, payload, self.steps.step if step is None else step, self.now() if time is None else time)
        finally:
            self.busy = False
        return None

    def append_layers(self, axis: Axis, matrix: bytes, step: int, time: float) -> None:
        """Record one value per statistic and layer; the axis is declared once in each segment."""
        if self.busy:
            return self._nested().append_layers(axis, matrix, step, time)
        self.busy = True
        try:
            number = self._declared(axis, journal.RECORD_OVERHEAD + 16 + len(matrix), step, time)
            self._store(journal.Kind.LAYERS, journal.layers_payload(number, matrix), step, time)
        finally:
            self.busy = False
        return None

    def append_histograms(self, axis: Axis, histograms: tuple[int, int, bytes], step: int, time: float) -> None:
        """Record lowest exponent, number of bins and counts of each layer; the axis is declared as for layer values."""
        if self.busy:
            return self._nested().append_histograms(axis, histograms, step, time)
        self.busy = True
        try:
            number = self._declared(axis, journal.RECORD_OVERHEAD + 24 + len(histograms[2]), step, time)
            self._store(journal.Kind.HISTOGRAM, journal.histogram_payload(number, *histograms), step, time)
        finally:
            self.busy = False
        return None

    def row(self, values: Mapping[str, float], step: int, time: float) -> None:
        """Record a row whose time is not now: late values of a device, checkpoints written by hand."""
        keys = tuple(values)
        if self.busy:
            return self._nested().row(values, step, time)
        self.busy = True
        try:
            schema = self.schema if keys == self.schema.keys else self._switch(keys)
            if schema is None:
                return self._log_apart(values, step, time)
            self._pack(schema, tuple(values.values()), step, time)
        except (struct.error, OverflowError) as error:
            raise ValueError(_step_message(step)) from error
        finally:
            self.busy = False
        return None

    def last_values(self) -> dict[str, object]:
        """Return the last value of each name logged since `forget_values`, read back from the journal itself."""
        for _ in range(_READ_TRIES):  # another thread asks, and this one may enter its next segment meanwhile
            segment = self.segment
            values = dict(self.carried)
            # `segment` before `at`: a schema that is declared here has forgotten where its row lay before.
            rows = sorted((schema.segment, schema.at, schema.keys) for schema in tuple(self._schemas.values()))
            rows = [row for row in rows if row[0] == segment.number and row[1] >= 0]
            try:
                for _, at, keys in rows:
                    values.update(zip(keys, struct.unpack_from(f"<{len(keys)}d", segment.buffer, at + 24), strict=True))
            except ValueError:  # the segment was closed under our eyes
                continue
            if self.segment is segment:
                return values
        return dict(self.carried)

    def forget_values(self) -> None:
        """Begin a new checkpoint: what was logged before it is no longer current."""
        self.carried = {}
        for schema in tuple(self._schemas.values()):
            schema.at = -1

    def take_over(self, thread: threading.Thread | None) -> None:
        """Serve this thread from now on; the one before has ended."""
        self.thread, self._inner = thread, None

    def end_segment(self) -> None:
        """Note where the segment ends and leave the rest of it to the upkeep thread."""
        segment = self.segment
        segment.end = self.at
        segment.count = self.sequence - (self._numbers - journal.FIRST_ROW_SCHEMA) - len(self._axes)
        self.retired.append(segment)

    def close(self) -> None:
        """Take no more records; the segments are the host's to finish."""
        self.closed = True
        self.leave_segment()
        if self._inner is not None:
            self._inner.close()

    def enter_next(self) -> None:
        """Enter a new segment now; for a writer that no thread uses."""
        self.leave_segment()
        self._fit(0)

    def leave_segment(self) -> None:
        """Have the next call enter a new segment; called by the upkeep thread when the disk refused this one."""
        self.limit = -1

    # What follows runs once per schema, per segment, or for odd values.

    def _log_odd(self, metrics: Mapping[str, object], step: int | None) -> None:
        """Record a call with other values than plain floats."""
        numbers = plain_numbers(metrics)
        if numbers is not None:  # epochs and token counts are common
            return self.log(numbers, step)
        found = sort_values(metrics)
        step = self.steps.step if step is None else _whole(step)
        if found.numbers:
            self.log(found.numbers, step)
        if found.typed:
            self.carried.update(found.typed)
            self.append(journal.Kind.TYPED, journal.json_payload({"values": found.typed}), step)
        if found.device:
            self.host.hold_device_values(found.device, step)
        if found.refused:
            raise refusal(found)
        return None

    def _log_apart(self, metrics: Mapping[str, object], step: int, time: float | None = None) -> None:
        """Record each name as a row of its own: the program makes new key tuples without end."""
        for name, value in metrics.items():
            key = (name,)
            schema = self._schemas.get(key) or self._declare(key)
            self._pack(schema, (value,), step, self.now() if time is None else time)

    def _pack(self, schema: Schema, values: Sequence[object], step: int, time: float) -> None:
        """Store one row, as `log` does."""
        if schema.segment != self.segment.number:
            schema = self._declare(schema.keys)
        at = self.at
        if at + schema.length > self.limit:
            at = self._room(schema)
        sequence = self.sequence
        schema.pack(self.buffer, at, schema.length, schema.number, step, time, *values, sequence, self.key ^ sequence)
        schema.at, self.at, self.sequence = at, at + schema.length, sequence + 1

    def _switch(self, keys: tuple[str, ...]) -> Schema | None:
        """Return the schema of these keys and make it current; None when rows must be split."""
        if not keys:  # a call without values becomes a filler
            self.schema = Schema(keys)
            return self.schema
        schema = self._schemas.get(keys)
        if schema is None or schema.segment != self.segment.number:
            if len(keys) != 1 and schema is None and self._numbers >= journal.FIRST_ROW_SCHEMA + journal.MAX_SCHEMAS:
                self.host.say_many_schemas()
                return None
            schema = self._declare(keys)
        self.schema = schema
        return schema

    def _declare(self, keys: tuple[str, ...]) -> Schema:
        """Write a schema into the current segment, with room for the row that made it necessary."""
        schema = self._schemas.get(keys)
        if schema is None:
            for name in keys:
                checked_name(name)
            if len(self._schemas) >= _MAX_NAMES:
                self.carried = dict(list(self.last_values().items())[-_MAX_CARRIED:])
                self._schemas = {}
            schema = self._schemas[keys] = Schema(keys)
        payload = journal.schema_payload(self._numbers, keys)
        self._fit(journal.record_size(payload) + schema.length)
        schema.number, self._numbers = self._numbers, self._numbers + 1
        self._store(journal.Kind.SCHEMA, journal.schema_payload(schema.number, keys), self.steps.step, self.now())
        schema.segment = self.segment.number
        return schema

    def _declared(self, axis: Axis, size: int, step: int, time: float) -> int:
        """Return the number of an axis in the segment that has room for a record of a size which refers to it."""
        key = (axis.what, axis.layers, axis.statistics)
        if key not in self._axes or self.at + size > self.limit:
            # Both records in one segment: the values refer to the declaration by its number there.
            declared = journal.axis_payload(0, axis.what, axis.layers, axis.statistics, axis.shapes)
            self._fit(size + journal.record_size(declared) + 16)
            if key not in self._axes:
                number = self._axes[key] = len(self._axes)
                declared = journal.axis_payload(number, axis.what, axis.layers, axis.statistics, axis.shapes)
                self._store(journal.Kind.AXIS, declared, step, time)
        return self._axes[key]

    def _put(self, kind: int, payload: bytes, step: int, time: float) -> None:
        """Store a record of a kind at the current offset."""
        size = journal.record_size(payload)
        if self.at + size > self.limit:
            self._fit(size)
        self._store(kind, payload, step, time)

    def _store(self, kind: int, payload: bytes, step: int, time: float) -> None:
        """Store a record for which there is room: what was declared for a segment must not end up in the next."""
        size = journal.record_size(payload)
        sequence, at = self.sequence, self.at
        record = journal.record_bytes(kind, payload, step, time, sequence, self.key)
        # The commit word last: a slice is copied from low to high, but nothing promises it.
        self.buffer[at : at + size - 4] = record[:-4]
        self.buffer[at + size - 4 : at + size] = record[-4:]
        self.at, self.sequence = at + size, sequence + 1

    def _room(self, schema: Schema) -> int:
        """Return the offset for a row of this schema that did not fit before the limit."""
        self._fit(schema.length)
        if schema.segment != self.segment.number:
            self._declare(schema.keys)
        return self.at

    def _fit(self, size: int) -> None:
        """Make room for so many bytes: past the first half the next segment is asked for, at the end it is entered."""
        if self.closed:
            raise UsageError(self.host.finished_message())
        if self.at + size <= self.segment.size and self.limit >= 0:
            if self.at + size > self.limit:
                self.limit = self.segment.size
                self.host.ask_for_segment(self)
            return
        following, self.prepared = self.prepared, None
        # A reader goes by the numbers: a segment that came too late must not be entered after a younger one.
        if following is not None and (
            following.number < self.segment.number or journal.HEADER_SIZE + size > following.size
        ):
            following.close(journal.HEADER_SIZE, self.steps.step)  # empty, so that the numbers have no gap
            following = None
        if following is None:
            following = self.host.open_segment(self, journal.HEADER_SIZE + size)
        self.carried = dict(list(self.last_values().items())[-_MAX_CARRIED:])
        self.end_segment()
        self._enter(following)

    def _enter(self, segment: Segment) -> None:
        """Begin to fill a segment; it knows no schemas and no axes yet."""
        self.segment, self.buffer, self.key = segment, segment.buffer, segment.key
        self.at, self.sequence, self._numbers = journal.HEADER_SIZE, 0, journal.FIRST_ROW_SCHEMA
        self.limit = segment.size // 2
        self._axes = {}
        for schema in self._schemas.values():
            schema.at = -1
        self.schema = Schema(())

    def _settle(self) -> None:
        """After an exception inside `log`: if the record was complete already, keep it."""
        try:
            record = next(iter(journal.scan(self.buffer, self.at, self.segment.size, 1)), None)
        except ValueError:  # the run was finished by another thread: its mapping is gone
            return
        if (
            record is not None
            and struct.unpack_from("<I", self.buffer, self.at + record.length - 8)[0] == self.sequence
        ):
            self.at += record.length
            self.sequence += 1

    def _nested(self) -> Writer:
        """Return the writer for a call inside a call."""
        if self._inner is None:
            self._inner = self.host.new_writer(self.thread)
        return self._inner


class Host:
    """What a writer needs of its recorder; a contract, so that the hot path is read and tested without one."""

    def open_segment(self, writer: Writer, needed: int) -> Segment:
        """Make a segment that holds at least so many bytes; never fails: the last resort is memory."""
        raise NotImplementedError

    def ask_for_segment(self, writer: Writer) -> None:
        """Have the next segment prepared in the background."""
        raise NotImplementedError

    def hold_device_values(self, values: Mapping[str, object], step: int) -> None:
        """Keep values that lie on a device until they have arrived."""
        raise NotImplementedError

    def new_writer(self, thread: threading.Thread | None) -> Writer:
        """Return a further writer for a thread."""
        raise NotImplementedError

    def say_many_schemas(self) -> None:
        """Tell the user once that the program makes new key tuples without end."""
        raise NotImplementedError

    def finished_message(self) -> str:
        """Return what a call after the end of the run is told."""
        raise NotImplementedError


def _whole(step: object) -> int:
    """Return a step as a whole number, or say why it is none."""
    if isinstance(step, float) and step.is_integer():
        step = int(step)
    elif getattr(getattr(step, "device", None), "type", "cpu") != "cpu":
        message = (
            f"step={type(step).__name__} lies on a device; reading it would wait for the device. Pass a Python int."
        )
        raise TypeError(message)
    try:
        whole = step.__index__()  # type: ignore[attr-defined]  # refused below where it is missing
    except (AttributeError, TypeError):
        message = f"step={step!r} is not a whole number. Steps are whole; log the fraction as a metric of its own."
        raise TypeError(message) from None
    if not -_INT64 <= whole < _INT64:
        raise ValueError(_step_message(whole))
    return int(whole)


def _step_message(step: object) -> str:
    """Say that a step is out of range."""
    return f"step={step!r} does not fit into 64 bits. Steps go from -2**63 to 2**63 - 1."
