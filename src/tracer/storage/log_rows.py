"""Records that are not numbers → rows of the `logs` family, and what such rows mean to the catalog.

Everything that has a time and a body lies in `logs`: texts, checkpoints, findings, metadata, ends. The catalog's rows
about them are made from these rows only, whether they come from a journal or, when the catalog is built anew, from
Parquet. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from tracer import journal
from tracer.storage.names import clean_text
from tracer.storage.tails import json_of

if TYPE_CHECKING:
    from tracer.storage.tails import Tail

_US = 1_000_000
_MAX_TIME = 2**62
#: Roles whose end is the run's end, and whose metadata its own process writes into run.json as well.
_OWNERS = ("main", "command")
_IDENTIFYING = ("metric", "layer", "layer_name", "parameter")


class LogRow(NamedTuple):
    """One row of the family; `time` in microseconds."""

    time: int
    step: int
    rank: int
    kind: str
    level: str | None
    name: str | None
    body: str | None
    fields: str | None

    def object(self) -> dict[str, Any]:
        """Return the fields as an object."""
        found = json.loads(self.fields) if self.fields else {}
        return found if isinstance(found, dict) else {}


def micros(seconds: float) -> int:
    """Return a record's time in whole microseconds; what is no time is 0."""
    scaled = seconds * _US
    if scaled != scaled:  # noqa: PLR0124 -- NaN
        return 0
    return (
        max(-_MAX_TIME, min(_MAX_TIME, round(scaled)))
        if abs(scaled) < _MAX_TIME
        else (_MAX_TIME if scaled > 0 else -_MAX_TIME)
    )


def numbers(record: journal.Record) -> dict[str, float]:
    """Return those values of a typed record that are numbers: integers too large to be exact in a row."""
    return {
        clean_text(name): _double(value) for name, value in _values(record).items() if isinstance(value, (int, float))
    }


def log_rows(record: journal.Record, tail: Tail) -> Iterator[LogRow]:  # noqa: C901 -- one case per record kind
    """Yield the rows that a record becomes; none for rows of numbers, layers and declarations."""
    time, step, rank = micros(record.time), record.step, tail.rank
    kind = journal.Kind
    if record.schema == kind.TYPED:
        for name, value in _values(record).items():
            body = None if value is None else clean_text(value) if isinstance(value, str) else _text(value)
            typed = None if isinstance(value, str) else _text({"type": type(value).__name__})
            yield LogRow(time, step, rank, "text", None, clean_text(str(name)), body, typed)
        return
    said = json_of(record)
    if record.schema == kind.CHECKPOINT:
        yield LogRow(time, step, rank, "checkpoint", None, None, None, _text(said))
    elif record.schema == kind.FINDING:
        found = {**said, "step": said.get("step", step)}
        name, level = str(said.get("kind", "anomaly")), str(said.get("severity", "medium"))
        yield LogRow(time, _whole(found["step"], step), rank, "finding", level, name, None, _text(found))
    elif record.schema == kind.METADATA:
        is_command = tail.header.identity.get("role") == "command"
        yield LogRow(time, step, rank, "metadata", None, None, None, _text({"command": is_command, "changes": said}))
    elif record.schema == kind.END:
        owner = tail.header.identity.get("role", "main") in _OWNERS and rank == 0
        yield LogRow(time, step, rank, "end", None, None, None, _text({"owner": owner, "changes": said}))
    elif record.schema == kind.TOMBSTONE:
        at = _whole(said.get("step"), step)
        yield LogRow(time, at, rank, "tombstone", None, str(said.get("pattern", "*")), None, None)
    elif record.schema == kind.SAMPLES:
        yield LogRow(time, step, rank, "samples", None, clean_text(str(said.get("path", ""))), None, _text(said))
    elif record.schema == kind.MEDIA:
        shown = _optional(said.get("caption") if said.get("text") is None else said["text"])
        yield LogRow(time, step, rank, "media", None, _optional(said.get("name")), shown, _text(said))
    elif record.schema == kind.DROPPED:
        yield LogRow(time, step, rank, "dropped", None, None, None, _text(said))
    elif record.schema == kind.LOG:
        fields = said.get("fields")
        yield LogRow(
            time, step, rank, str(said.get("kind", "event")), _optional(said.get("level")), _optional(said.get("name")),
            _optional(said.get("body")), None if fields is None else _text(fields),
        )  # fmt: skip


def finding_id(run: str, row: LogRow) -> str:
    """Return what makes a finding the same as another: run, rank, kind, step, and what it is about."""
    details = row.object().get("details")
    about = [details.get(key) for key in _IDENTIFYING] if isinstance(details, dict) else []
    text = _text([run, row.rank, row.name, row.step, about])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def change(row: LogRow) -> list[Any] | None:
    """Return a row's change to what is known of the run, as `[time, is_command, changes]`, or None."""
    said = row.object()
    changes = said.get("changes")
    if not isinstance(changes, dict) or not changes:
        return None
    if row.kind == "metadata":
        return [row.time, bool(said.get("command")), changes]
    if row.kind == "end" and said.get("owner"):
        return [row.time, False, changes]
    return None


def text_value(row: LogRow) -> object:
    """Return the value of a row of kind `text` as it was logged."""
    if row.fields is None:
        return row.body
    return None if row.body is None else json.loads(row.body)


def is_number(row: LogRow) -> bool:
    """Tell whether a row of kind `text` stands beside a point: an integer that no double holds exactly."""
    return row.fields is not None and row.body is not None


def _values(record: journal.Record) -> dict[str, object]:
    """Return the values of a typed record."""
    values = json_of(record).get("values")
    return values if isinstance(values, dict) else {}


def _double(value: float) -> float:
    """Return a number as a double; beyond its range it is infinite."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _text(value: object) -> str:
    """Return JSON text without anything that has no UTF-8."""
    return json.dumps(value, separators=(",", ":"))


def _optional(value: object) -> str | None:
    """Return text, or None."""
    return None if value is None else clean_text(str(value))


def _whole(value: object, default: int) -> int:
    """Return a whole number that 64 bits hold."""
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else default


__all__ = ["LogRow", "change", "finding_id", "is_number", "log_rows", "micros", "numbers", "text_value"]
