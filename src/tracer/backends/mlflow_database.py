"""MLflow's SQLite database, read by SQL: a million points in seconds, and nothing in it is changed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

from tracer.backends.base import Rejected, Unreachable
from tracer.backends.mlflow_found import Found, Model, Series

if TYPE_CHECKING:
    import numpy as np

_ROWS = 100_000
_RUNS = """
    SELECT r.run_uuid, e.name, r.name, r.status, r.start_time, r.end_time, r.artifact_uri
    FROM runs r LEFT JOIN experiments e ON e.experiment_id = r.experiment_id
    WHERE ? OR 'deleted' NOT IN (coalesce(r.lifecycle_stage, ''), coalesce(e.lifecycle_stage, ''))
    ORDER BY r.start_time, r.run_uuid
"""
# The order of rowid is the order in which values were stored: it parts those of one millisecond.
_VALUES = "SELECT step, timestamp, value, is_nan FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY rowid"
_NAMES = "SELECT key FROM latest_metrics WHERE run_uuid = ? ORDER BY key"
_ALL_NAMES = "SELECT DISTINCT key FROM metrics WHERE run_uuid = ? ORDER BY key"
_MODELS = """
    SELECT model_id, name, artifact_location FROM logged_models WHERE source_run_id = ? AND lifecycle_stage <> 'deleted'
"""


class Database:
    """A database, opened for reading.

    Args:
        path: Its file.
        notes: Where it is said what could not be read.

    Raises:
        Unreachable: It is not there.
    """

    def __init__(self, path: str, notes: list[str]) -> None:
        self.path, self._notes = os.path.abspath(path), notes
        if not os.path.isfile(self.path):
            message = f"There is no database {path!r}. Name MLflow's file, as sqlite:///mlflow.db."
            raise Unreachable(message)

    def runs(self, *, deleted: bool) -> Iterator[Found]:
        """Yield the runs."""
        with self._opened() as database:
            for uid, experiment, name, status, started, ended, artifacts in database.execute(
                _RUNS, (deleted,)
            ).fetchall():
                tags = _pairs(database, "tags", uid)
                yield Found(
                    id=str(uid),
                    experiment=str(experiment or "default"),
                    name=str(tags.get("mlflow.runName") or name or uid),
                    status=str(status),
                    started=_whole(started) or 0,
                    ended=_whole(ended),
                    artifacts=str(artifacts or ""),
                    params=_pairs(database, "params", uid),
                    tags=tags,
                    models=_models(database, uid),
                )

    def series(self, found: Found) -> Iterator[Series]:
        """Yield the metrics of a run."""
        with self._opened() as database:
            for name in _metrics(database, found.id):
                cursor = database.execute(_VALUES, (found.id, name))
                read = _Columns()
                while rows := cursor.fetchmany(_ROWS):
                    read.add(rows)
                if read.skipped:
                    self._notes.append(f"{found.name}: {read.skipped} values of {name!r} are no numbers; left out.")
                steps, times, values = read.arrays()
                if len(steps):
                    yield Series(str(name), steps, times, values)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Open it, for reading only.

        Raises:
            Rejected: It is no database of MLflow.
        """
        database = sqlite3.connect(f"file:{quote(self.path)}?mode=ro", uri=True)
        database.text_factory = lambda data: data.decode("utf-8", "replace")
        try:
            yield database
        except sqlite3.DatabaseError as error:
            message = f"{self.path} cannot be read as a database of MLflow: {error}."
            raise Rejected(message) from error
        finally:
            database.close()


class _Columns:
    """Rows of values, gathered as columns."""

    def __init__(self) -> None:
        self._chunks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.skipped = 0

    def add(self, rows: list[tuple[object, ...]]) -> None:
        """Take rows of `step, time, value, is_nan`."""
        import numpy as np

        try:
            self._chunks.append(_columns(rows))
        except (TypeError, ValueError, OverflowError):  # SQLite lets any column hold anything
            kept = []
            for row in rows:
                with contextlib.suppress(TypeError, ValueError, OverflowError):
                    kept.append(_columns([row]))
            self.skipped += len(rows) - len(kept)
            if kept:
                steps, times, values = (np.concatenate(column) for column in zip(*kept, strict=True))
                self._chunks.append((steps, times, values))

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return steps, times and values."""
        import numpy as np

        if not self._chunks:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64)
        steps, times, values = (np.concatenate(column) for column in zip(*self._chunks, strict=True))
        return steps, times, values


def _columns(rows: list[tuple[object, ...]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows as columns; a NaN stands in the table as 0 with a mark."""
    import numpy as np

    steps, times, values, nans = zip(*rows, strict=True)
    numbers = np.array(values, np.float64)
    numbers[np.array(nans, np.int8) != 0] = np.nan
    return np.array(steps, np.int64), np.array(times, np.int64), numbers


def _metrics(database: sqlite3.Connection, uid: str) -> list[str]:
    """Return the metrics of a run."""
    try:
        found = database.execute(_NAMES, (uid,)).fetchall()
    except sqlite3.OperationalError:  # before MLflow 1.3 there was no such table
        found = []
    return [str(row[0]) for row in found or database.execute(_ALL_NAMES, (uid,)).fetchall()]


def _pairs(database: sqlite3.Connection, table: str, uid: str) -> dict[str, str]:
    """Return the parameters or tags of a run."""
    rows = database.execute(f"SELECT key, value FROM {table} WHERE run_uuid = ? ORDER BY key", (uid,))  # noqa: S608
    return {str(key): str("" if value is None else value) for key, value in rows}


def _models(database: sqlite3.Connection, uid: str) -> tuple[Model, ...]:
    """Return the models that a run made; before MLflow 3 there are none."""
    try:
        rows = database.execute(_MODELS, (uid,)).fetchall()
    except sqlite3.OperationalError:
        return ()
    return tuple(Model(str(model), str(name or model), str(location or "")) for model, name, location in rows)


def _whole(value: object) -> int | None:
    """Return a whole number, where it is one."""
    return int(value) if isinstance(value, (int, float)) and abs(value) < 2**53 else None
