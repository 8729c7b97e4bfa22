"""Runs out of the SQLite database of the earlier program of the same name, LayerClaw's `tracer.db`.

Tables `runs`, `checkpoints` (the metrics as JSON), `gradient_stats`, `system_metrics`, `anomalies`; samples lie as
Parquet in the folder `samples` beside it. SQLite has no NaN: a figure that is missing beside NaNs that were counted
was one.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any, ClassVar

import numpy as np

from tracer import events
from tracer.backends.base import Rejected, Source, Unreachable
from tracer.transfer import Event, File, LayerPoints, LogLine, Part, Points, RunInfo, Text, sha256

_FILE = "tracer.db"
_MICROSECONDS = 1_000_000
_MOST_DEEP = 4
#: Their column → our statistic.
_STATISTICS = {
    "norm": "norm", "mean": "mean", "std": "std", "max_val": "max", "min_val": "min",
    "num_zeros": "zeros", "num_nans": "nans", "num_infs": "infs",
}  # fmt: skip
_COUNTS = frozenset({"num_zeros", "num_nans", "num_infs"})
_LARGEST_STEP = 2**63 - 1


class _Series:
    """Steps, times and values as they are read."""

    __slots__ = ("steps", "times", "values")

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.times: list[int] = []
        self.values: list[float] = []

    def add(self, step: int, time: int, value: float) -> None:
        """Add a point."""
        self.steps.append(step)
        self.times.append(time)
        self.values.append(value)

    def points(self, name: str, *, layer: bool = False) -> Points:
        """Return them as they travel."""
        arrays = (np.array(self.steps, np.int64), np.array(self.times, np.int64), np.array(self.values, np.float64))
        return LayerPoints(name, *arrays) if layer else Points(name, *arrays)


class LayerClawSource(Source):
    """Runs in a `tracer.db`.

    Args:
        uri: The database, or the folder in which it lies; `.tracer` where it is empty.
        options: None.
    """

    name: ClassVar[str] = "layerclaw"

    def __init__(self, uri: str, options: Mapping[str, object] | None = None) -> None:
        super().__init__(uri, options)
        path = os.path.abspath((uri or ".tracer").removeprefix("file://"))
        self._path = os.path.join(path, _FILE) if os.path.isdir(path) else path

    def runs(self) -> Iterator[RunInfo]:
        """Yield the runs, the oldest first."""
        with closing(self._connected()) as connection:
            for row in _rows(connection, "SELECT * FROM runs ORDER BY start_time, run_id"):
                yield self._info(row)

    def events(self, run: RunInfo) -> Iterator[Event]:
        """Yield the metrics, the system's figures, the statistics of the layers, texts, anomalies, samples."""
        run_id = run.origin.partition(":")[2].rpartition("#")[2]
        with closing(self._connected()) as connection:
            yield from self._metrics(connection, run_id)
            yield from self._system(connection, run_id)
            yield from self._layers(connection, run_id)
            yield from self._anomalies(connection, run_id)
            yield from self._samples(connection, run_id)

    def _connected(self) -> sqlite3.Connection:
        """Open the database, for reading only."""
        if not os.path.isfile(self._path):
            message = f"There is no database {self._path}. Name the file, or the folder that holds {_FILE}."
            raise Unreachable(message)
        quoted = self._path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        connection = sqlite3.connect(f"file:{quoted}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        return connection

    def _info(self, row: sqlite3.Row) -> RunInfo:
        """Return what is known of a run."""
        said: dict[str, Any] = dict(row)
        run_id, status = str(said.get("run_id")), str(said.get("status") or events.COMPLETED)
        config = _json(said.get("config"))
        ended = said.get("end_time")
        return RunInfo(
            uid="", project=str(said.get("project_name") or "default"), name=str(said.get("run_name") or run_id),
            started=_micros(said.get("start_time")), ended=None if ended is None else _micros(ended),
            # Who recorded it is gone: a run that still ran when the file was copied has crashed.
            status=status if status in events.STATUSES and status != events.RUNNING else events.CRASHED,
            steps=_whole(said.get("total_steps")) or 0, params=config if isinstance(config, dict) else {},
            origin=f"{self.name}:{self._path}#{run_id}",
        )  # fmt: skip

    def _metrics(self, connection: sqlite3.Connection, run_id: str) -> Iterator[Event]:
        """Yield what was logged: numbers as series, the rest as texts."""
        series: dict[str, _Series] = {}
        texts: list[Text] = []
        query = "SELECT step, timestamp, metrics FROM checkpoints WHERE run_id = ? ORDER BY step, timestamp"
        for row in _rows(connection, query, run_id):
            step, time, metrics = _whole(row["step"]), _micros(row["timestamp"]), _json(row["metrics"])
            if step is None or not isinstance(metrics, dict):
                self.notes.append(f"A checkpoint of {run_id} could not be read; it is left out.")
                continue
            for name, value in _flat(metrics):
                if isinstance(value, (int, float)):
                    series.setdefault(name, _Series()).add(step, time, float(value))
                elif value is not None:
                    texts.append(Text(name, step, time, value if isinstance(value, str) else json.dumps(value)))
        yield from (one.points(name) for name, one in series.items())
        yield from texts

    def _system(self, connection: sqlite3.Connection, run_id: str) -> Iterator[Event]:
        """Yield the figures of the machine."""
        series: dict[str, _Series] = {}
        query = (
            "SELECT c.step, c.timestamp, s.cpu_percent, s.memory_percent, s.gpu_metrics FROM system_metrics s "
            "JOIN checkpoints c USING (checkpoint_id) WHERE c.run_id = ? ORDER BY c.step"
        )
        for row in _rows(connection, query, run_id):
            step, time, gpu = _whole(row["step"]), _micros(row["timestamp"]), _json(row["gpu_metrics"])
            found: dict[str, object] = {"cpu_percent": row["cpu_percent"], "memory_percent": row["memory_percent"]}
            found |= {f"gpu/{name}": value for name, value in _flat(gpu if isinstance(gpu, dict) else {})}
            for name, value in found.items():
                if step is not None and isinstance(value, (int, float)):
                    series.setdefault(f"system/{name}", _Series()).add(step, time, float(value))
        yield from (one.points(name) for name, one in series.items())

    def _layers(self, connection: sqlite3.Connection, run_id: str) -> Iterator[Event]:
        """Yield each statistic of each layer's gradients."""
        series: dict[tuple[str, str], _Series] = {}
        query = (
            "SELECT c.step, c.timestamp, g.* FROM gradient_stats g JOIN checkpoints c USING (checkpoint_id) "
            "WHERE c.run_id = ? ORDER BY c.step"
        )
        for row in _rows(connection, query, run_id):
            said, step, time = dict(row), _whole(row["step"]), _micros(row["timestamp"])
            for column, statistic in _STATISTICS.items():
                value = said.get(column)
                if value is None and column not in _COUNTS and said.get("num_nans"):
                    value = math.nan
                if step is not None and isinstance(value, (int, float)):
                    series.setdefault((str(said["layer_name"]), statistic), _Series()).add(step, time, float(value))
        for (layer, statistic), one in series.items():
            yield one.points(f"gradients/{layer}/{statistic}", layer=True)

    def _anomalies(self, connection: sqlite3.Connection, run_id: str) -> Iterator[Event]:
        """Yield what that program found wrong, as events of the log."""
        for row in _rows(connection, "SELECT * FROM anomalies WHERE run_id = ? ORDER BY step, id", run_id):
            said = dict(row)
            details = _json(said.get("details"))
            yield LogLine(
                "event", _stamp(said.get("detected_at")), name=str(said.get("anomaly_type")),
                level=str(said.get("severity") or "medium"), step=_whole(said.get("step")),
                fields=details if isinstance(details, dict) else {"details": details},
            )  # fmt: skip

    def _samples(self, connection: sqlite3.Connection, run_id: str) -> Iterator[Event]:
        """Yield the files of samples: by their names only, from the folder beside the database."""
        folder = os.path.join(os.path.dirname(self._path), "samples")
        parts = []
        query = "SELECT sample_path FROM checkpoints WHERE run_id = ? AND has_samples ORDER BY step"
        for row in _rows(connection, query, run_id):
            name = os.path.basename(str(row["sample_path"] or "").replace("\\", "/"))
            path = os.path.join(folder, name)
            if not name or os.path.islink(path) or not os.path.isfile(path):
                self.notes.append(f"The samples {name!r} of {run_id} are not there.")
                continue
            parts.append(Part(name, path, os.path.getsize(path), sha256(path)))
        if parts:
            yield File("samples", "samples", "v0", tuple(parts))


def _rows(connection: sqlite3.Connection, query: str, *given: object) -> Iterator[sqlite3.Row]:
    """Yield the rows of a query; a table or a column that an older version lacked has none."""
    try:
        yield from connection.execute(query, given)
    except sqlite3.OperationalError as error:
        if "no such" not in str(error):
            raise _unreadable(error) from error
    except sqlite3.DatabaseError as error:
        raise _unreadable(error) from error


def _unreadable(error: sqlite3.Error) -> Rejected:
    """Return what is said of a damaged database."""
    return Rejected(f"The database cannot be read ({error}). Mend it with `sqlite3 FILE .recover`, or take a backup.")


def _flat(values: Mapping[str, object], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """Yield nested values by their path."""
    for key, value in values.items():
        if isinstance(value, dict) and depth < _MOST_DEEP:
            yield from _flat(value, f"{prefix}{key}/", depth + 1)
        else:
            yield f"{prefix}{key}", value


def _json(text: object) -> object:
    """Return what a text says; None where it is none."""
    with suppress(ValueError, TypeError, RecursionError):
        return json.loads(text)  # type: ignore[arg-type]  # whatever a column holds
    return None


def _whole(value: object) -> int | None:
    """Return a step; None for what is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and abs(value) <= _LARGEST_STEP else None


def _micros(value: object) -> int:
    """Return a time in seconds, or one that SQLite wrote, in microseconds."""
    if isinstance(value, (int, float)):
        return round(value * _MICROSECONDS) if math.isfinite(value) else 0
    return _stamp(value)


def _stamp(value: object) -> int:
    """Return a time as SQLite writes it, in UTC."""
    with suppress(ValueError, TypeError, OverflowError):
        moment = datetime.fromisoformat(str(value))
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return round(moment.timestamp() * _MICROSECONDS)
    return 0


__all__ = ["LayerClawSource"]
