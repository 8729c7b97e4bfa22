"""One log folder of TensorBoard, read: its scalars in arrays, and where everything else lies in its files.

Pictures and the like are read again when they are asked for, so that a folder of any size fits into memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracer.backends import tensorboard_values as values
from tracer.backends.tensorboard_records import Batch, Records, Single, record
from tracer.backends.tensorboard_scalars import Part, Tags, scalars
from tracer.transfer import Event, Points

_MICROSECONDS = 1_000_000
#: Times beyond this are no times: the year 9999.
_LAST = 253_402_300_799.0

Array = np.ndarray[Any, Any]
_Chunk = tuple[Array, Array, Array]


@dataclass(frozen=True, slots=True)
class _Place:
    """A record that holds something other than scalars."""

    path: str
    offset: int
    length: int
    step: int


class LogFolder:
    """The event files of one folder, as one run.

    Args:
        paths: Its event files, in the order in which they were begun.
    """

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        self.notes: list[str] = []
        #: Hyper-parameters, what Tracer itself wrote of a run, whether a session was begun and how it ended.
        self.said = values.Said()
        self.first: float | None = None
        self.last: float | None = None
        self._tags = Tags()
        self._chunks: dict[int, list[_Chunk]] = {}
        self._others: list[_Place] = []
        self._restarts: list[tuple[int, int]] = []
        for path in paths:
            self._read(path)

    @property
    def names(self) -> list[str]:
        """The tags of the scalars."""
        known = self._known()
        return [known[tag] for tag, chunks in self._chunks.items() if chunks]

    @property
    def last_step(self) -> int:
        """The highest step of a scalar, -1 where there is none."""
        return max((int(chunk[0].max()) for chunks in self._chunks.values() for chunk in chunks), default=-1)

    @property
    def has_others(self) -> bool:
        """Whether it holds anything besides scalars and hyper-parameters."""
        return bool(self._others)

    def points(self) -> Iterator[Points]:
        """Yield the scalars, one series after the other."""
        known = self._known()
        for tag, chunks in self._chunks.items():
            if chunks:
                steps, times, numbers = (np.concatenate(column) for column in zip(*chunks, strict=True))
                yield Points(known[tag], steps, _whole(times), numbers)

    def others(self) -> Iterator[Event]:
        """Yield everything else, read again from the files."""
        for place in self._others:
            data = record(place.path, place.offset, place.length)
            yield from values.events(data, self.said, self.notes)

    def _known(self) -> list[str]:
        """Return the tags by their numbers, as names that a store takes."""
        return [name.replace("\0", "\ufffd") or "untitled" for name in self._tags.names()]

    def _read(self, path: str) -> None:
        """Take in one file."""
        records = Records(path)
        try:
            for batch in records.batches():
                self._take(path, batch)
        except OSError as error:
            self.notes.append(f"{path} cannot be read to its end: {error.strerror or error}.")
        if records.bad:
            self.notes.append(
                f"{path}: {records.bad} damaged places were passed over, {records.bad_bytes} bytes in all."
            )
        if records.is_hopeless:
            self.notes.append(f"{path} is damaged in too many places; the rest of it is left out.")
        if records.torn:
            self.notes.append(f"{path} ends within an event; its {records.torn} bytes are left out.")

    def _take(self, path: str, batch: Batch) -> None:
        """Take in neighbouring records: those built alike together, the rest one by one, then restarts among them."""
        parts: list[Part] = []
        singles = batch.singles
        for group in batch.groups:
            found, left = scalars(group, self._tags, self.said.scalar)
            parts.extend(found)
            singles = singles + [
                Single(int(group.numbers[row]), int(group.offsets[row]), group.columns[:, row].tobytes())
                for row in left.tolist()
            ]
        self._restarts = []
        parts.append(self._singles(path, sorted(singles, key=lambda one: one.number)))
        self._keep(parts)

    def _singles(self, path: str, singles: list[Single]) -> Part:
        """Read records as the messages they are; return their scalars."""
        rows: list[tuple[int, int, int, float, float]] = []
        unread = 0
        for one in singles:
            event = values.parsed(one.data)
            if event is None:
                unread += 1
                continue
            self._timed(event.wall_time)
            if values.is_restart(event):
                self._restarts.append((one.number, event.step))
                self._others = [place for place in self._others if place.step < event.step]
                continue
            is_other = self.said.hear(event)
            for value in event.summary.value if event.WhichOneof("what") == "summary" else ():
                number = self.said.number(value)
                if number is None:
                    is_other = is_other or not self.said.is_known(value)
                else:
                    tag = self._tags.number(value.tag.encode())
                    rows.append((one.number, tag, event.step, event.wall_time, number))
            if is_other:
                self._others.append(_Place(path, one.offset, len(one.data), event.step))
        if unread:
            self.notes.append(f"{path}: {unread} events are none that TensorBoard's own package reads; left out.")
        kinds = (np.int64, np.int64, np.int64, np.float64, np.float64)
        columns = zip(*rows, strict=True) if rows else ((),) * 5
        return Part(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))

    def _keep(self, parts: list[Part]) -> None:
        """Add scalars to their series, in the order of the file, and drop what a restart began anew."""
        numbers, tags, steps, times, held = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("numbers", "tags", "steps", "times", "values")
        )
        for number, step in self._restarts:
            stays = (numbers >= number) | (steps < step)
            numbers, tags, steps, times, held = (one[stays] for one in (numbers, tags, steps, times, held))
            for tag, chunks in self._chunks.items():
                self._chunks[tag] = [_before(chunk, step) for chunk in chunks if (chunk[0] < step).any()]
        if not len(numbers):
            return
        order = np.lexsort((numbers, tags))
        tags, steps, times, held = (one[order] for one in (tags, steps, times, held))
        self._timed(float(times.min()))
        self._timed(float(times.max()))
        begins = np.append(0, np.flatnonzero(np.diff(tags)) + 1).tolist()
        for begin, end in zip(begins, [*begins[1:], len(tags)], strict=True):
            chunk = (steps[begin:end], times[begin:end], held[begin:end])
            self._chunks.setdefault(int(tags[begin]), []).append(chunk)

    def _timed(self, time: float) -> None:
        """Note when the first and the last thing happened."""
        if math.isfinite(time) and 0 < time <= _LAST:
            self.first = time if self.first is None else min(self.first, time)
            self.last = time if self.last is None else max(self.last, time)


def _before(chunk: _Chunk, step: int) -> _Chunk:
    """Return what stands before a step."""
    stays = chunk[0] < step
    return chunk[0][stays], chunk[1][stays], chunk[2][stays]


def _whole(times: Array) -> Array:
    """Return seconds as whole microseconds; what is no time is 1970."""
    is_time = np.isfinite(times) & (np.abs(times) <= _LAST)
    found: Array = np.rint(np.where(is_time, times, 0.0) * _MICROSECONDS).astype(np.int64)
    return found


def event_files(folder: str) -> list[str]:
    """Return the event files of a folder, in the order in which TensorBoard reads them."""
    with os.scandir(folder) as found:
        return sorted(one.path for one in found if "tfevents" in one.name and one.is_file())


__all__ = ["LogFolder", "event_files"]
