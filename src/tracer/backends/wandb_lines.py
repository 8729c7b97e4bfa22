"""Lines of `output.log`: a time in front, as W&B itself writes them when it uploads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tracer.transfer import LogLine

LINES = "output.log"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})Z? (.*)", re.DOTALL)
_LONGEST = 1 << 20
_MOST = 10_000_000


def line_text(event: LogLine) -> str:
    """Return one line of the file for a line, a record or an event; a break inside it is escaped."""
    try:
        moment = (_EPOCH + timedelta(microseconds=event.time)).strftime("%Y-%m-%dT%H:%M:%S.%f")
    except OverflowError:
        moment = "1970-01-01T00:00:00.000000"
    said = " ".join(part for part in (event.level, event.name, event.body) if part)
    return f"{moment} {said}".replace("\r", "\\r").replace("\n", "\\n")


def read_lines(path: str, time: int) -> Iterator[LogLine]:
    """Yield the lines of an `output.log`; one without a time of its own has the one before it."""
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        for _ in range(_MOST):
            line = file.readline(_LONGEST)
            if not line:
                return
            line = line.rstrip("\n")
            found = _STAMPED.fullmatch(line)
            if found:
                time = _microseconds(found[1], time)
                line = found[2]
            yield LogLine("stdout", time, line)


def _microseconds(told: str, otherwise: int) -> int:
    """Return a time that stands in front of a line."""
    try:
        return (datetime.fromisoformat(told).replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
    except ValueError:
        return otherwise
