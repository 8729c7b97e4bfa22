"""Scalars out of many events at once: events of one length that are built alike differ in a few places only.

    09 <time f64> [10 <step varint>] 2a <length> 0a <length> 0a <length> <tag> 15 <value f32>          the older way
                                                                       <tag> 42 … <value> … 4a …       as a tensor

How the lengths must read follows from the length of the event and of its step. For tensors one event is read as the
message it is, and all that equal it in everything but time, step, tag and value are read like it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracer.backends.tensorboard_records import Group

_TIME, _STEP, _SUMMARY, _FIELD, _SIMPLE = 0x09, 0x10, 0x2A, 0x0A, 0x15
_STEP_AT = 9
_MORE, _PAYLOAD, _PAYLOAD_BITS, _LONGEST = 0x80, 0x7F, 7, 10
#: So many ways of building tensors are learned for one length before the rest is read one by one.
_WAYS = 6
_MIX = np.uint64(0x9E3779B97F4A7C15)

Array = np.ndarray[Any, Any]
#: Bytes of one value of a summary → its number and how it is packed (`<f` or `<d`), if it is marked as a scalar.
Reader = Callable[[bytes], "tuple[float, str] | None"]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Scalars of some events: the number of the event, the tag's number in `Tags`, step, time in seconds, value."""

    numbers: Array
    tags: Array
    steps: Array
    times: Array
    values: Array


class Tags:
    """Tags and the numbers they go by."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def number(self, tag: bytes) -> int:
        """Return the number of a tag."""
        return self._numbers.setdefault(tag, len(self._numbers))

    def names(self) -> list[str]:
        """Return all tags by their numbers."""
        return [tag.decode("utf-8", "replace") for tag in self._numbers]


def scalars(group: Group, tags: Tags, read: Reader) -> tuple[list[Part], Array]:
    """Return the scalars that events of one length hold, and which of its rows have to be read one by one."""
    columns, parts, left = group.columns, [], []
    sizes = _step_sizes(columns)
    for size in np.unique(sizes).tolist():
        rows = np.flatnonzero(sizes == size)
        if size < 0:
            left.append(rows)
            continue
        chosen = columns if len(rows) == columns.shape[1] else columns[:, rows]
        rest = np.arange(len(rows))
        for way, picked in _ways(chosen, 9 + size, read):
            part = way.part(chosen[:, picked], tags, size)
            parts.append(Part(group.numbers[rows[picked]], *part))
            rest = rest[~np.isin(rest, picked, assume_unique=True)]
        left.append(rows[rest])
    return parts, np.concatenate(left) if left else np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class _Way:
    """Where the tag and the value stand, and how the value is packed."""

    tag: slice
    value: slice
    packed: str

    def part(self, columns: Array, tags: Tags, size: int) -> tuple[Array, Array, Array, Array]:
        """Return tags, steps, times and values of events that are built in this way."""
        steps = np.zeros(columns.shape[1], np.uint64)
        for at in range(size - 1):
            steps |= (columns[_STEP_AT + 1 + at] & np.uint8(_PAYLOAD)).astype(np.uint64) << np.uint64(
                _PAYLOAD_BITS * at
            )
        values = _packed(columns[self.value], self.packed).astype(np.float64)
        return _numbers(columns[self.tag], tags), steps.view(np.int64), _packed(columns[1:9], "<f8"), values


def _step_sizes(columns: Array) -> Array:
    """Return how many bytes each event's step takes with its key, 0 where it has none, -1 where it begins otherwise."""
    has_step = columns[_STEP_AT] == _STEP
    sizes = np.where(has_step, 2, np.where(columns[_STEP_AT] == _SUMMARY, 0, -1))
    more = has_step & (columns[_STEP_AT + 1] >= _MORE)
    for at in range(1, min(_LONGEST, len(columns) - _STEP_AT - 1)):
        if not more.any():
            break
        sizes += more
        more &= columns[_STEP_AT + 1 + at] >= _MORE
    sizes[more | (columns[0] != _TIME)] = -1
    return sizes


def _ways(columns: Array, start: int, read: Reader) -> Iterator[tuple[_Way, Array]]:
    """Yield how events are built, and which; all have one length and their summary begins at one place."""
    length = len(columns)
    opening = _opening(length - start)
    if opening is None:
        return
    head, inner = opening
    at = start + len(head)
    if at >= length:
        return
    fits = _equal(columns[start:at], np.frombuffer(head, np.uint8)[:, None])
    tag = _lead(inner - 1 - 5)
    if tag is not None:
        said, tag_length = tag
        begin = at + len(said)
        is_simple = fits & _equal(columns[at:begin], np.frombuffer(said, np.uint8)[:, None])
        is_simple &= columns[length - 5] == _SIMPLE
        if is_simple.any():
            yield _Way(slice(begin, begin + tag_length), slice(length - 4, length), "<f4"), np.flatnonzero(is_simple)
            fits &= ~is_simple
    for _ in range(_WAYS):
        rows = np.flatnonzero(fits)
        if not len(rows):
            return
        way = _learned(columns[:, rows[0]].tobytes(), at, read)
        fits[rows[0]] = False
        if way is None:
            continue
        like = np.append(rows[0], np.flatnonzero(fits))
        first = columns[:, rows[:1]]
        is_like = np.ones(len(like), bool)
        for part in (slice(at, way.tag.start), slice(way.tag.stop, way.value.start), slice(way.value.stop, length)):
            is_like &= _equal(columns[part][:, like], first[part])
        fits[like[is_like]] = False
        yield way, np.sort(like[is_like])


def _learned(event: bytes, at: int, read: Reader) -> _Way | None:
    """Return how one event with a tensor is built, or None where it holds no plain scalar."""
    tag_length, begin = _varint(event, at)
    end = begin + tag_length
    found = read(event[at - 1 :]) if end < len(event) else None
    if found is None:
        return None
    value, packed = found
    raw = struct.pack(packed, value)
    for key in (b"\x22", b"\x2a", b"\x32"):  # tensor_content, float_val, double_val
        place = event.find(key + bytes([len(raw)]) + raw, end)
        if place >= 0:
            return _Way(slice(begin, end), slice(place + 2, place + 2 + len(raw)), f"<f{len(raw)}")
    return None


def _opening(left: int) -> tuple[bytes, int] | None:
    """Return how a summary of one value begins that fills so many bytes, and how many its value has."""
    outer = _lead(left - 1)
    inner = None if outer is None else _lead(outer[1] - 1)
    if outer is None or inner is None:
        return None
    return bytes([_SUMMARY]) + outer[0] + bytes([_FIELD]) + inner[0] + bytes([_FIELD]), inner[1]


def _lead(left: int) -> tuple[bytes, int] | None:
    """Return a length as it is written, and the length, where both together fill so many bytes."""
    for width in (1, 2):
        length = left - width
        if length >= 0 and (length < _MORE) == (width == 1):
            return (bytes([length]) if width == 1 else bytes([length & _PAYLOAD | _MORE, length >> 7])), length
    return None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number of varying width at a place, and where the next thing stands."""
    value = 0
    for shift in range(0, _PAYLOAD_BITS * 3, _PAYLOAD_BITS):
        if at >= len(data):
            break
        value |= (data[at] & _PAYLOAD) << shift
        at += 1
        if data[at - 1] < _MORE:
            return value, at
    return len(data), at


def _equal(columns: Array, expected: Array) -> Array:
    """Tell which columns hold what is expected in all rows."""
    found: Array = (columns == expected).all(axis=0)
    return found


def _packed(columns: Array, kind: str) -> Array:
    """Return the numbers that stand in columns of bytes."""
    return np.ascontiguousarray(columns.T).view(kind)[:, 0]


def _numbers(columns: Array, tags: Tags) -> Array:
    """Return the number of the tag in each column."""
    count = columns.shape[1]
    if not len(columns) or (columns == columns[:, :1]).all():
        return np.full(count, tags.number(columns[:, 0].tobytes()), np.int64)
    mixed = np.zeros(count, np.uint64)
    for row in columns:
        mixed = (mixed + row) * _MIX
        mixed ^= mixed >> np.uint64(29)
    _, first, inverse = np.unique(mixed, return_index=True, return_inverse=True)
    if (columns != columns[:, first][:, inverse]).any():  # two tags with one mix: only by intent
        return np.array([tags.number(column.tobytes()) for column in columns.T], np.int64)
    found = np.array([tags.number(columns[:, one].tobytes()) for one in first.tolist()], np.int64)
    return found[inverse]


__all__ = ["Part", "Reader", "Tags", "scalars"]
