"""What W&B's records say: a walker of protobuf's wire format for the few messages that matter, without their classes.

Everything is bounded and nothing is trusted: a message that does not parse is skipped and counted by the caller.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT, _MORE = 10, 0x80
_MOST_FIELDS = 2_000_000
_DEEPEST = 64

#: Field numbers of `Record`.
HISTORY, SUMMARY, OUTPUT, CONFIG, STATS, ARTIFACT, METRIC, OUTPUT_RAW, RUN, EXIT = 2, 3, 4, 5, 7, 8, 12, 13, 17, 18
_KINDS = frozenset({HISTORY, SUMMARY, OUTPUT, CONFIG, STATS, ARTIFACT, METRIC, OUTPUT_RAW, RUN, EXIT})


class Malformed(ValueError):
    """The bytes are no message of protobuf's."""


def fields(data: bytes) -> Iterator[tuple[int, int, bytes | int]]:
    """Yield number, wire type and value of each field of a message.

    Raises:
        Malformed: The bytes end within a field, or no message looks like this.
    """
    at, size, count = 0, len(data), 0
    while at < size:
        count += 1
        if count > _MOST_FIELDS:
            raise Malformed
        tag, at = (data[at], at + 1) if data[at] < _MORE else _varint(data, at)
        number, wire = tag >> 3, tag & 7
        value: bytes | int
        if wire == _BYTES:
            if at >= size:
                raise Malformed
            length, at = (data[at], at + 1) if data[at] < _MORE else _varint(data, at)
            value, at = data[at : at + length], at + length
        elif wire == _VARINT:
            value, at = _varint(data, at)
        elif wire in {_FIXED64, _FIXED32}:
            width = 8 if wire == _FIXED64 else 4
            value, at = data[at : at + width], at + width
        else:
            raise Malformed
        if at > size or number == 0:
            raise Malformed
        yield number, wire, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(_LONGEST_VARINT):
        if at >= len(data):
            raise Malformed
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * shift)
        if byte < _MORE:
            return value, at
    raise Malformed


def signed(value: bytes | int) -> int:
    """Return an int64 as protobuf's two's complement means it."""
    if not isinstance(value, int):
        raise Malformed
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def text(value: bytes | int) -> str:
    """Return a string field."""
    if isinstance(value, int):
        raise Malformed
    return value.decode("utf-8", "replace")


def message(value: bytes | int) -> bytes:
    """Return a field that is a message."""
    if isinstance(value, int):
        raise Malformed
    return value


def kind_of(record: bytes) -> tuple[int, bytes]:
    """Return which kind of `Record` this is and its message; 0 for one that is of no use here."""
    for number, wire, value in fields(record):
        if wire == _BYTES and number in _KINDS:
            return number, message(value)
    return 0, b""


def timestamp(value: bytes | int) -> int:
    """Return a `Timestamp` as whole microseconds."""
    seconds = nanos = 0
    for number, _, found in fields(message(value)):
        if number == 1:
            seconds = signed(found)
        elif number == 2:  # noqa: PLR2004 -- as the schema counts
            nanos = signed(found)
    return max(min(seconds, 1 << 42), -(1 << 42)) * 1_000_000 + nanos // 1000


def item(data: bytes) -> tuple[tuple[str, ...], str]:
    """Return the key of a history, summary, config or stats item, parted where it is nested, and its value as JSON."""
    # Nearly every item is a short key (field 2) and a short value (field 16): taken apart without the walk.
    if len(data) > 1 and data[:1] == b"\x12" and (end := 2 + data[1]) < len(data) - 2 and data[1] < _MORE:
        length = data[end + 2]
        if data[end : end + 2] == b"\x82\x01" and length < _MORE and end + 3 + length == len(data):
            return (data[2:end].decode("utf-8", "replace"),), data[end + 3 :].decode("utf-8", "replace")
    return _walked(data)


def _walked(data: bytes) -> tuple[tuple[str, ...], str]:
    """Return what `item` returns, field by field."""
    key, nested, value = "", [], "null"
    for number, _, found in fields(data):
        if number == 1:
            key = text(found)
        elif number == 2:  # noqa: PLR2004 -- as the schema counts, here and below
            nested.append(text(found))
        elif number in {8, 16}:
            value = text(found)
        elif number == 4:  # noqa: PLR2004
            value = "true" if found else "false"
        elif number == 5:  # noqa: PLR2004 -- sint64: zigzag
            whole = found if isinstance(found, int) else 0
            value = str((whole >> 1) ^ -(whole & 1))
        elif number == 6:  # noqa: PLR2004
            value = _double(message(found))
        elif number == 7:  # noqa: PLR2004
            value = json.dumps(text(found))
    return (tuple(nested) if nested else (key,)), value


def _double(data: bytes) -> str:
    """Return a double as JSON text."""
    if len(data) != 8:  # noqa: PLR2004 -- bytes of a double
        raise Malformed
    return json.dumps(struct.unpack("<d", data)[0])


def items(data: bytes, within: int = 1) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the items of a message; which field holds them is `within`."""
    for number, _, value in fields(data):
        if number == within:
            yield item(message(value))


def parsed(value: str) -> object:
    """Return JSON, or the text where it is none.

    Raises:
        Malformed: It is nested deeper than anything that makes sense.
    """
    if value.count("[") + value.count("{") > _DEEPEST and _depth(value) > _DEEPEST:
        raise Malformed
    try:
        found: object = json.loads(value)
    except ValueError:
        return value
    return found


def _depth(value: str) -> int:
    """Return at most how deep brackets nest."""
    deepest = depth = 0
    for one in value:
        if one in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif one in "]}":
            depth -= 1
    return deepest


def number(told: str) -> float | None:
    """Return a number of JSON, with its NaN and infinities; truth counts as 1 and 0."""
    first = told[:1]
    if first in "-0123456789NI" and first:
        try:
            return float(told)
        except ValueError:
            return None
    return {"true": 1.0, "false": 0.0}.get(told)


@dataclass(slots=True)
class Row:
    """One history record: values by name as JSON, W&B's own among them."""

    step: int = 0
    values: dict[str, str] = field(default_factory=dict)


def history(data: bytes) -> Row:
    """Return a history record; nested keys are joined by a dot, parts of a medium are put together again."""
    row = Row()
    nested: dict[str, dict[str, object]] = {}
    for number, _, value in fields(data):
        if number == 1:
            path, told = item(message(value))
            if len(path) == 1:
                row.values[path[0]] = told
            else:
                _put(nested.setdefault(path[0], {}), path[1:], told)
        elif number == 2:  # noqa: PLR2004 -- as the schema counts
            for inner, _, step in fields(message(value)):
                row.step = signed(step) if inner == 1 else row.step
    for name, parts in nested.items():
        if "_type" in parts:
            row.values[name] = json.dumps(parts)
        else:
            row.values |= {path: json.dumps(value) for path, value in flat(name, parts)}
    return row


def _put(into: dict[str, object], path: tuple[str, ...], value: str) -> None:
    """Set a nested value."""
    if len(path) > _DEEPEST:
        raise Malformed
    for key in path[:-1]:
        inner = into.get(key)
        if not isinstance(inner, dict):
            inner = into[key] = {}
        into = inner
    into[path[-1]] = parsed(value)


def flat(name: str, parts: dict[str, object]) -> Iterator[tuple[str, object]]:
    """Yield the leaves of nested values, their names joined by dots."""
    for key, value in parts.items():
        if isinstance(value, dict) and value and "_type" not in value:
            yield from flat(f"{name}.{key}", value)
        else:
            yield f"{name}.{key}", value


def update(into: dict[str, object], data: bytes) -> None:
    """Apply a config or summary record: what it sets and what it removes."""
    for path, value in items(data, 1):
        _put(into, path, value)
    for path, _ in items(data, 2):
        into.pop(path[0], None) if len(path) == 1 else None
