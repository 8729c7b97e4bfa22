"""The records of an event file of TensorBoard, each compared with its checksums before anybody reads it.

    length u64 · masked crc of the length u32 · that many bytes · masked crc of them u32      little-endian, repeated

A record whose bytes fail their check is left out. Where a length fails, all that follows would be guesswork: the next
place at which a length checks is looked for. What a file that is still being written ends with is no damage.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracer.backends import tensorboard_checks as checks

#: So much of a file is held at a time, and a longer record is passed over.
WINDOW, LARGEST = 1 << 24, 1 << 28
_HEADER, _FRAME = 12, 16
#: Fewer records of one length are not worth a table.
_FEW = 16
#: How far is looked at a time for a header behind damage, at first and at most, and how much damage is borne.
_NEAR, _FAR, _MOST_BAD = 1 << 9, 1 << 20, 10_000
_MOST_HEADERS = 1 << 20

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Records of one length: their numbers in the file, where their bytes begin, and the bytes, a column for each."""

    numbers: Array
    offsets: Array
    columns: Array


@dataclass(frozen=True, slots=True)
class Single:
    """One record."""

    number: int
    offset: int
    data: bytes


@dataclass(slots=True)
class Batch:
    """Neighbouring records that passed their checks."""

    groups: list[Group] = field(default_factory=list)
    singles: list[Single] = field(default_factory=list)


class Records:
    """One file.

    Args:
        path: The event file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        #: Records and bytes that were passed over, and how many bytes an unfinished record at the end has.
        self.bad = self.bad_bytes = self.torn = 0
        self._known: dict[bytes, int] = {}
        self._number = 0

    @property
    def is_hopeless(self) -> bool:
        """Whether there is so much damage that the rest is not read."""
        return self.bad > _MOST_BAD

    def batches(self) -> Iterator[Batch]:
        """Yield the records in the order of the file, by windows of it.

        Raises:
            OSError: It cannot be read.
        """
        with open(self.path, "rb", buffering=0) as file:
            size, at = os.fstat(file.fileno()).st_size, 0
            while at < size and not self.is_hopeless:
                window = _read(file.fileno(), at, WINDOW)
                starts, lengths, used = self._walked(window)
                if used == 0:
                    window, starts, lengths, used = self._stuck(file.fileno(), at, size, window)
                if len(starts):
                    yield self._checked(window, at, starts, lengths)
                at += used

    def _walked(self, window: bytes) -> tuple[Array, Array, int]:
        """Return where the bytes of the records in a window begin, how long they are, and where the first fault is."""
        at, end, known = 0, len(window), self._known
        starts: list[int] = []
        lengths: list[int] = []
        while at + _HEADER <= end:
            header = window[at : at + _HEADER]
            length = known.get(header)
            if length is None:
                length = _length(header)
                if length is None:
                    at = self._passed(window, at)
                    if self.is_hopeless:
                        break
                    continue
                if len(known) < _MOST_HEADERS:
                    known[header] = length
            after = at + _FRAME + length
            if after > end:
                break
            starts.append(at + _HEADER)
            lengths.append(length)
            at = after
        return np.array(starts, np.int64), np.array(lengths, np.int64), at

    def _stuck(self, descriptor: int, at: int, size: int, window: bytes) -> tuple[bytes, Array, Array, int]:
        """Go on where a window holds no whole record: a long one is read whole, an unfinished one ends the file."""
        nothing = np.zeros(0, np.int64)
        length = _length(window[:_HEADER]) if len(window) >= _HEADER else None
        if length is None or at + _FRAME + length > size:
            self.torn = size - at
            return window, nothing, nothing, size - at
        whole = _FRAME + length
        if length > LARGEST:
            self.bad, self.bad_bytes = self.bad + 1, self.bad_bytes + whole
            return window, nothing, nothing, whole
        return _read(descriptor, at, whole), np.array([_HEADER]), np.array([length]), whole

    def _passed(self, window: bytes, at: int) -> int:
        """Pass over damage: return where the next header that checks begins."""
        after = _next(window, at + 1)
        self.bad, self.bad_bytes = self.bad + 1, self.bad_bytes + after - at
        return after

    def _checked(self, window: bytes, at: int, starts: Array, lengths: Array) -> Batch:
        """Return the records of a window whose bytes check, those of one length together."""
        held = np.frombuffer(window, np.uint8)
        numbers = np.arange(self._number, self._number + len(starts))
        self._number += len(starts)
        batch, rest = Batch(), []
        order = np.argsort(lengths, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
            length = int(lengths[rows[0]])
            if len(rows) < _FEW or not _FRAME <= length <= checks.ROW:
                rest.extend(rows.tolist())
                continue
            batch.groups.append(self._group(held, at, starts[rows], numbers[rows], length))
        for row in sorted(rest):
            start, length = int(starts[row]), int(lengths[row])
            data = window[start : start + length]
            if checks.of_one(data) == int.from_bytes(window[start + length : start + length + 4], "little"):
                batch.singles.append(Single(int(numbers[row]), at + start, data))
            else:
                self.bad, self.bad_bytes = self.bad + 1, self.bad_bytes + _FRAME + length
        return batch

    def _group(self, held: Array, at: int, starts: Array, numbers: Array, length: int) -> Group:
        """Return the records of one length whose bytes check."""
        columns = np.empty((length + 4, len(starts)), np.uint8)
        for row in range(length + 4):
            np.take(held, starts + row, out=columns[row])
        said = np.ascontiguousarray(columns[length:].T).view("<u4")[:, 0]
        is_good = checks.of_many(columns[:length]) == said
        good = int(is_good.sum())
        if good != len(starts):
            lost = len(starts) - good
            self.bad, self.bad_bytes = self.bad + lost, self.bad_bytes + lost * (_FRAME + length)
            return Group(numbers[is_good], at + starts[is_good], columns[:length, is_good])
        return Group(numbers, at + starts, columns[:length])


def record(path: str, offset: int, length: int) -> bytes:
    """Return bytes that were seen in a file before; they may have changed since."""
    with open(path, "rb", buffering=0) as file:
        return _read(file.fileno(), offset, length)


def _read(descriptor: int, at: int, size: int) -> bytes:
    """Return the bytes at a place, fewer only at the end of the file."""
    parts: list[bytes] = []
    while size > 0 and (part := os.pread(descriptor, size, at)):
        parts.append(part)
        at, size = at + len(part), size - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _length(header: bytes) -> int | None:
    """Return the length that a header gives, or None where it fails its check."""
    length, said = struct.unpack("<QI", header)
    return int(length) if checks.of_one(header[:8]) == said else None


def _next(window: bytes, begin: int) -> int:
    """Return where the next header that checks begins; without one, the first place that one could be cut off at."""
    held = np.frombuffer(window, np.uint8)
    last, reach = len(held) - _HEADER + 1, _NEAR
    while begin < last:
        count = min(reach, last - begin)
        found = checks.of_many(np.stack([held[begin + at : begin + at + count] for at in range(8)]))
        said = np.zeros(count, np.uint32)
        for at in range(4):
            said |= held[begin + 8 + at : begin + 8 + at + count].astype(np.uint32) << np.uint32(8 * at)
        hits = np.flatnonzero(found == said)
        if len(hits):
            return begin + int(hits[0])
        begin, reach = begin + count, min(2 * reach, _FAR)
    return max(last, begin)


__all__ = ["Batch", "Group", "Records", "Single", "record"]
