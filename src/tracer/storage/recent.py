"""What the journals of a run hold and no file does yet: summarised record by record, with the standard library alone.

`tracer list` and `show` lay it over the catalog's rows. A run that is being maintained has a few seconds of it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field

from tracer import journal
from tracer.storage.log_rows import LogRow, is_number, log_rows, micros, numbers
from tracer.storage.names import clean_text
from tracer.storage.tails import Lost, Place, Tail, read_tails, walk

_FINITE = float("inf")
#: Kinds whose content no summary shows.
_ARRAYS = frozenset({journal.Kind.SCHEMA, journal.Kind.LAYERS, journal.Kind.HISTOGRAM})


@dataclass(slots=True)
class Summary:
    """The running summary of one series."""

    n: int = 0
    first_step: int = 2**63 - 1
    last_step: int = -(2**63)
    last: float = 0.0
    last_time: int = 0
    min: float | None = None
    max: float | None = None
    sum: float = 0.0
    nan: int = 0
    inf: int = 0

    def add(self, step: int, time: int, value: float) -> None:
        """Count one more value."""
        self.n += 1
        self.first_step = min(self.first_step, step)
        if step >= self.last_step:
            self.last_step, self.last, self.last_time = step, value, time
        if -_FINITE < value < _FINITE:
            self.sum += value
            if self.min is None or value < self.min:
                self.min = value
            if self.max is None or value > self.max:
                self.max = value
        elif value == value:  # noqa: PLR0124 -- NaN is the one value that differs from itself
            self.inf += 1
        else:
            self.nan += 1


@dataclass(slots=True)
class Recent:
    """Everything recent of one run."""

    series: dict[tuple[str, int], Summary] = field(default_factory=dict)
    rows: list[LogRow] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    axes: list[dict[str, object]] = field(default_factory=list)
    points: int = 0

    def texts(self) -> list[LogRow]:
        """Return the rows that are values of metrics but no numbers."""
        return [row for row in self.rows if row.kind == "text" and not is_number(row)]


def read_recent(folder: str, places: Mapping[str, Place]) -> Recent:
    """Summarise what a journal folder holds beyond the places up to which it was folded."""
    recent = Recent()
    for tail in read_tails(folder, places):
        _add(recent, tail)
        recent.lost += tail.lost
    recent.rows.sort(key=lambda row: row.time)
    return recent


def _add(recent: Recent, tail: Tail) -> None:  # noqa: C901 -- one case per record kind
    """Add the records of one segment."""
    rows: dict[int, list[Summary]] = {}
    for record in walk(tail):
        if record.schema >= journal.FIRST_ROW_SCHEMA:
            series = rows.get(record.schema)
            if series is None:
                names = tail.schemas.get(record.schema)
                if names is None:
                    recent.lost.append(
                        Lost(tail.path, record.offset, record.offset + record.length, "its schema is lost")
                    )
                    continue
                series = rows[record.schema] = [_series(recent, name, tail.rank) for name in names]
            step, time = record.step, micros(record.time)
            for summary, value in zip(series, record.values(), strict=False):
                summary.add(step, time, value)
            recent.points += len(series)
        elif record.schema == journal.Kind.AXIS:
            recent.axes += [axis for axis in tail.axes.values() if axis not in recent.axes]
        elif record.schema not in _ARRAYS:
            for name, number in numbers(record).items() if record.schema == journal.Kind.TYPED else ():
                _series(recent, name, tail.rank).add(record.step, micros(record.time), number)
                recent.points += 1
            found = list(log_rows(record, tail))
            recent.rows += found
            for row in found:
                if row.kind == "tombstone":
                    _void(recent, row)
                    rows.clear()


def _series(recent: Recent, name: str, rank: int) -> Summary:
    """Return the summary of a series, begun where it is new."""
    return recent.series.setdefault((clean_text(name), rank), Summary())


def _void(recent: Recent, row: LogRow) -> None:
    """Forget the summaries that a rewind reaches; the fold makes them exact."""
    for key, summary in list(recent.series.items()):
        if fnmatch.fnmatchcase(key[0], row.name or "*") and summary.last_step >= row.step:
            del recent.series[key]


__all__ = ["Recent", "Summary", "read_recent"]
