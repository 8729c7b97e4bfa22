"""JSON Lines and the JSON of `tracer export`, read: a point a line, a row of metrics a line, or ours."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any

import numpy as np

from tracer.backends.files_columns import Columns
from tracer.backends.files_facts import finite
from tracer.errors import ConfigError
from tracer.transfer import Points, Text

_CHUNK, _LONGEST_LINE, _LARGEST_DOCUMENT = 1 << 20, 64 << 20, 256 << 20
_SECOND = 1_000_000
_LATEST, _LAST_STEP = 2**63 - 1, 2**63 - 1
_SECONDS, _MILLISECONDS, _MICROSECONDS = 1e11, 1e14, 1e17
_NUMBERS = {int, float}
_DEEPEST = 8
#: The fields of a point's line, as the back end and as `tracer export` write them.
_LONG = ({"name", "step", "time", "value"}, {"metric", "step", "timestamp", "value"})

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class Lines:
    """One run of a file."""

    facts: dict[str, object] = field(default_factory=dict)
    series: dict[tuple[str, int], list[tuple[Array, Array, Array]]] = field(default_factory=dict)
    texts: list[Text] = field(default_factory=list)
    first: int | None = None
    last: int | None = None
    steps: int = 0

    def points(self) -> Iterator[Points]:
        """Yield the numbers, one series after the other."""
        for (name, rank), chunks in self.series.items():
            steps, times, values = (np.concatenate(column) for column in zip(*chunks, strict=True))
            yield Points(name, steps, times, values, rank=rank)

    def add(self, name: str, rank: int, steps: Array, times: Array, values: Array) -> None:
        """Add numbers of one series."""
        self.series.setdefault((name, rank), []).append((steps, times, values))
        self._seen(int(times.min()), int(times.max()), int(steps.max()))

    def text(self, text: Text) -> None:
        """Add a value that is text."""
        self.texts.append(text)
        self._seen(text.time, text.time, text.step)

    def _seen(self, first: int, last: int, step: int) -> None:
        """Note when things happened."""
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)
        self.steps = max(self.steps, min(step, _LAST_STEP - 1) + 1)


class LineTable:
    """The runs of one file.

    Args:
        path: The file.
        options: Which fields are what, where that is not to be guessed; see `Columns.guessed`.
        started: The time of points whose line gives none.
    """

    def __init__(self, path: str, options: Mapping[str, object], started: int) -> None:
        self.runs: dict[str, Lines] = {}
        self.notes: list[str] = []
        self._path, self._options, self._started = path, options, started
        self._columns: dict[tuple[str, ...], Columns] = {}
        self._bad = self._row = 0
        with open(path, encoding="utf-8", errors="replace") as file:
            if path.lower().endswith(".json"):
                self._document(file)
            else:
                for chunk in self._chunks(file):
                    self._take(chunk)
        if self._bad:
            self.notes.append(f"{path}: {self._bad} lines are no JSON objects that hold values; left out.")

    def _chunks(self, file: IO[str]) -> Iterator[list[str]]:
        """Yield lines, some megabytes at a time; one that is too long is passed over."""
        while found := file.readlines(_CHUNK):
            if sum(map(len, found)) > _LONGEST_LINE:
                kept = [line for line in found if len(line) <= _LONGEST_LINE]
                self._bad += len(found) - len(kept)
                found = kept
            yield found

    def _take(self, lines: list[str]) -> None:
        """Take in some lines."""
        rows = self._rows(lines)
        first = rows[0] if rows else {}
        is_long = isinstance(first, dict) and any(one <= first.keys() for one in _LONG)
        if is_long and self._taken_alike(rows, first):
            return
        for row in rows:
            self._one(row)

    def _rows(self, lines: list[str]) -> list[Any]:
        """Return lines as objects."""
        try:
            found = json.loads("[" + ",".join(lines) + "]")
        except (ValueError, RecursionError):
            found = []
        if len(found) == len(lines):
            return list(found)
        rows = []
        for line in lines:
            if line.isspace():
                continue
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError):
                self._bad += 1
        return rows

    def _taken_alike(self, rows: Sequence[Any], first: Mapping[str, object]) -> bool:
        """Take in lines that are points of the same fields, all numbers; tell whether they are."""
        by_name = "name" if "name" in first else "metric"
        by_time = "time" if by_name == "name" else "timestamp"
        known = [name for name in ("run_id", "rank") if name in first]
        try:  # column by column: a tuple per row would keep the garbage collector busy
            values, steps, times, *keyed = (
                [row[name] for row in rows] for name in ("value", "step", by_time, by_name, *known)
            )
            is_same = all(len(set(column)) == 1 for column in keyed[1:])
            keys = keyed[0] if is_same else list(zip(*keyed, strict=True))
        except (KeyError, TypeError):
            return False
        if set(map(type, steps)) != {int} or not set(map(type, times)) <= _NUMBERS:
            return False
        if not set(map(type, values)) <= _NUMBERS:
            return False
        try:
            table = (np.array(steps, np.int64), _times(np.array(times, np.float64)), np.array(values, np.float64))
            numbers = {key: at for at, key in enumerate(dict.fromkeys(keys))}
            ids = np.fromiter(map(numbers.__getitem__, keys), np.int64, len(keys))
        except (OverflowError, TypeError):
            return False
        constant = [column[0] for column in keyed[1:]]
        told = [(key, *constant) if is_same else key for key in numbers]
        series = [{"run_id": "", "rank": 0, **dict(zip(("name", *known), one, strict=True))} for one in told]
        if not all(isinstance(one["name"], str) and type(one["rank"]) is int for one in series):
            return False
        order = np.argsort(ids, kind="stable")
        ends = np.searchsorted(ids[order], np.arange(len(numbers)), side="right").tolist()
        begin = 0
        for one, end in zip(series, ends, strict=True):
            chosen = order[begin:end]
            self._run(str(one["run_id"])).add(one["name"], one["rank"], *(column[chosen] for column in table))
            begin = end
        self._row += len(rows)
        return True

    def _one(self, row: Any) -> None:  # noqa: ANN401 -- whatever a line says
        """Take in one line."""
        if not isinstance(row, dict):
            self._bad += 1
            return
        kind = row.get("kind")
        if kind == "run" and "run_id" in row:
            self._run(str(row["run_id"])).facts |= row
            return
        if kind in {"checkpoint", "finding"} and "run_id" in row:
            return
        if kind == "point" and ("metric" in row or "name" in row):
            row = {name: value for name, value in row.items() if name != "kind"}
        flat = dict(_flat(row))
        columns = self._guessed(tuple(flat))
        step = _whole(flat.get(columns.step or ""), self._row)
        time = _time(flat.get(columns.time or ""), self._started)
        rank = _whole(flat.get(columns.rank or ""), 0)
        run = self._run(str(flat.get(columns.run or "", "") or ""))
        self._row += 1
        if columns.value is not None:
            named = str(flat.get(columns.name or "") or columns.only or "value")
            self._value(run, named, rank, step, time, flat[columns.value])
            return
        for name in columns.metrics:
            self._value(run, name, rank, step, time, flat[name])

    def _value(self, run: Lines, name: str, rank: int, step: int, time: int, value: object) -> None:
        """Take in one value."""
        value = finite(value)
        if isinstance(value, (bool, int, float)):
            try:
                number = float(value)
            except OverflowError:
                self._bad += 1
                return
            run.add(name, rank, np.array([step]), np.array([time]), np.array([number]))
        elif value is not None:
            body = value if isinstance(value, str) else json.dumps(value)
            run.text(Text(name, step, time, body, rank))

    def _guessed(self, names: tuple[str, ...]) -> Columns:
        """Return which fields are what."""
        found = self._columns.get(names)
        if found is None:
            try:
                found = Columns.guessed(names, self._options, self._path)
            except ConfigError:  # a line without the field that was named
                kept = {name: value for name, value in self._options.items() if value in names}
                found = Columns.guessed(names, kept, self._path)
            if len(self._columns) < _CHUNK:
                self._columns[names] = found
        return found

    def _run(self, key: str) -> Lines:
        """Return a run of the file."""
        return self.runs.setdefault(key, Lines())

    def _document(self, file: IO[str]) -> None:
        """Take in a document of `tracer export`."""
        text = file.read(_LARGEST_DOCUMENT + 1)
        if len(text) > _LARGEST_DOCUMENT:
            self.notes.append(f"{self._path} is too large for one document; export it as JSON Lines or Parquet.")
            return
        try:
            runs = json.loads(text)["runs"]
            for run in runs:
                held = self._run(str(run["run_id"]))
                held.facts |= {name: value for name, value in run.items() if name != "metrics"}
                for series in run["metrics"]:
                    self._series(held, series)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self.notes.append(f"{self._path} is no document of `tracer export` ({error!r}); what was read is kept.")

    def _series(self, run: Lines, said: Mapping[str, Any]) -> None:
        """Take in a series of a document."""
        name, rank = str(said["metric"]), int(said["rank"])
        rows = zip(said["steps"], said["timestamps"], said["values"], strict=True)
        numbers = []
        for step, time, value in rows:
            known = finite(value)
            if isinstance(known, (int, float)):
                numbers.append((int(step), _time(time, self._started), float(known)))
            else:
                self._value(run, name, rank, int(step), _time(time, self._started), known)
        if numbers:
            steps, times, values = zip(*numbers, strict=True)
            run.add(name, rank, np.array(steps, np.int64), np.array(times, np.int64), np.array(values, np.float64))


def _flat(row: Mapping[str, object], above: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """Yield the fields of an object, those of objects inside by their full names."""
    for name, value in row.items():
        if isinstance(value, dict) and depth < _DEEPEST:
            yield from _flat(value, f"{above}{name}/", depth + 1)
        else:
            yield f"{above}{name}", value


def _whole(value: object, default: int) -> int:
    """Return a step; a fraction is cut."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return default
    if isinstance(value, int):
        return max(-_LAST_STEP - 1, min(value, _LAST_STEP))
    if isinstance(value, float) and math.isfinite(value):
        return max(-_LAST_STEP - 1, min(int(value), _LAST_STEP))
    return default


def _time(value: object, default: int) -> int:
    """Return a time in microseconds: of seconds, milli-, micro- or nanoseconds, or of text."""
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            return default
        return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * _SECOND)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(_times(np.array([value], np.float64))[0]) if abs(value) < _LATEST else default
    return default


def _times(values: Array) -> Array:
    """Return times in microseconds, by how large they are."""
    size = np.abs(values)
    factor = np.select([size < _SECONDS, size < _MILLISECONDS, size < _MICROSECONDS], [1e6, 1e3, 1.0], 1e-3)
    scaled = np.where(np.isfinite(values), values, 0.0) * factor
    found: Array = np.rint(scaled).astype(np.int64)
    return found


__all__ = ["LineTable", "Lines"]
