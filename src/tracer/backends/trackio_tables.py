"""The tables of a trackio project, from its database or from the Parquet files that it exports; nothing is changed.

    metrics         run_id, run_name, timestamp, step, metrics (JSON)
    system_metrics  run_id, run_name, timestamp, metrics (JSON)
    configs         run_id, run_name, config (JSON)

In Parquet the keys of the JSON are columns of their own.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

#: A row of more JSON than this is skipped: a hostile file must not fill the memory.
ROW_BYTES = 1 << 26
_COLUMNS = frozenset({"id", "run_id", "run_name", "timestamp", "step", "created_at", "log_id", "space_id"})
_PARQUET = {"metrics": "", "system_metrics": "_system", "configs": "_configs"}

Values = dict[str, object]


class Tables(Protocol):
    """One project's tables."""

    project: str
    folder: Path
    #: Rows that could not be read, so far.
    damaged: int

    def runs(self) -> list[tuple[str, str, str, str]]:
        """Return run id, name, first and last time of each run that has rows."""
        ...

    def rows(self, table: str, run: str) -> Iterator[tuple[str, int | None, Values]]:
        """Yield time, step and values of each row of a run, in the order in which they were written."""
        ...

    def alerts(self, run: str) -> list[tuple[str, int | None, str, str | None, str]]:
        """Return time, step, title, text and level of each alert."""
        ...

    def artifacts(self, run: str) -> list[tuple[str, str, int, str, str | None, str]]:
        """Return name, type, version, manifest, metadata and time of each artifact that a run made."""
        ...


class Database:
    """A project's SQLite database."""

    def __init__(self, path: Path) -> None:
        self.project, self.folder, self.damaged = path.stem, path.parent, 0
        # A database whose log is folded in is opened as one that cannot change, so that no file appears beside it.
        how = "mode=ro" if os.path.exists(f"{path}-wal") else "mode=ro&immutable=1"
        self._uri = f"file:{quote(str(path.absolute()))}?{how}"
        with closing(self._opened()) as database:
            # Only true tables are read: a view of a hostile file could run for ever.
            named = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            self._tables = {name for (name,) in named}
            told = {row[1] for row in database.execute("PRAGMA table_info(metrics)").fetchall()}
        if "metrics" not in self._tables:
            message = "it has no table of metrics"
            raise sqlite3.DatabaseError(message)
        self._run = "run_id" if "run_id" in told else "run_name"  # before trackio 0.24 a run was its name

    def runs(self) -> list[tuple[str, str, str, str]]:
        """See `Tables`."""
        query = f"SELECT {self._run}, max(run_name), min(timestamp), max(timestamp) FROM metrics GROUP BY 1 ORDER BY 3"  # noqa: S608
        with closing(self._opened()) as database:
            return [(str(run), str(name), str(first), str(last)) for run, name, first, last in database.execute(query)]

    def rows(self, table: str, run: str) -> Iterator[tuple[str, int | None, Values]]:
        """See `Tables`."""
        if table not in self._tables:
            return
        value = "config" if table == "configs" else "metrics"
        time = "created_at" if table == "configs" else "timestamp"
        step = "step" if table == "metrics" else "NULL"
        query = (
            f"SELECT {time}, {step}, {value} FROM {table} WHERE {self._run} = ? AND length({value}) <= ? ORDER BY id"  # noqa: S608
        )
        with closing(self._opened()) as database:
            for at, number, told in database.execute(query, (run, ROW_BYTES)):
                values = _json(told)
                self.damaged += values is None
                yield str(at), number if isinstance(number, int) else None, values or {}

    def alerts(self, run: str) -> list[tuple[str, int | None, str, str | None, str]]:
        """See `Tables`."""
        if "alerts" not in self._tables:
            return []
        query = f"SELECT timestamp, step, title, text, level FROM alerts WHERE {self._run} = ? ORDER BY id"  # noqa: S608
        with closing(self._opened()) as database:
            return database.execute(query, (run,)).fetchall()

    def artifacts(self, run: str) -> list[tuple[str, str, int, str, str | None, str]]:
        """See `Tables`."""
        if not {"artifacts", "artifact_versions", "run_artifact_links"} <= self._tables:
            return []
        query = (
            "SELECT a.name, a.type, v.version, v.manifest, v.metadata, v.created_at FROM run_artifact_links AS l"
            " JOIN artifact_versions AS v ON v.id = l.artifact_version_id JOIN artifacts AS a ON a.id = v.artifact_id"
            " WHERE l.run_id = ? AND l.direction = 'output' ORDER BY v.id"
        )
        with closing(self._opened()) as database:
            return database.execute(query, (run,)).fetchall()

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._uri, uri=True, timeout=10)
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        database.execute("PRAGMA query_only = ON")
        database.execute("PRAGMA trusted_schema = OFF")
        return database


class Exported:
    """A project's Parquet files: metrics, system metrics and configurations are there, nothing else."""

    def __init__(self, path: Path) -> None:
        self.project, self.folder, self.damaged = path.stem, path.parent, 0

    def runs(self) -> list[tuple[str, str, str, str]]:
        """See `Tables`."""
        run = self._run("metrics")
        query = (
            f"SELECT {run}, max(run_name), min(timestamp), max(timestamp) FROM read_parquet(?) GROUP BY 1 ORDER BY 3"  # noqa: S608
        )
        return [(str(one), str(name), str(first), str(last)) for one, name, first, last in self._all(query, "metrics")]

    def rows(self, table: str, run: str) -> Iterator[tuple[str, int | None, Values]]:
        """See `Tables`."""
        if not self._path(table).is_file():
            return
        import duckdb

        query = (
            f"SELECT * FROM read_parquet(?, file_row_number=true) WHERE {self._run(table)} = ? ORDER BY file_row_number"  # noqa: S608
        )
        with duckdb.connect() as database:
            found = database.execute(query, [str(self._path(table)), run])
            names = [str(column[0]) for column in found.description or ()]
            while chunk := found.fetchmany(1000):
                for row in chunk:
                    told = dict(zip(names, row, strict=True))
                    values = {name: value for name, value in told.items() if value is not None and name not in _COLUMNS}
                    values.pop("file_row_number", None)
                    step = told.get("step")
                    time = told.get("timestamp") or told.get("created_at")
                    yield str(time), step if isinstance(step, int) else None, values

    def alerts(self, run: str) -> list[tuple[str, int | None, str, str | None, str]]:
        """See `Tables`."""
        del run
        return []

    def artifacts(self, run: str) -> list[tuple[str, str, int, str, str | None, str]]:
        """See `Tables`."""
        del run
        return []

    def _path(self, table: str) -> Path:
        return self.folder / f"{self.project}{_PARQUET[table]}.parquet"

    def _run(self, table: str) -> str:
        names = {str(row[0]) for row in self._all("DESCRIBE SELECT * FROM read_parquet(?)", table)}
        return "run_id" if "run_id" in names else "run_name"

    def _all(self, query: str, table: str) -> list[tuple[object, ...]]:
        import duckdb

        with duckdb.connect() as database:
            return database.execute(query, [str(self._path(table))]).fetchall()


def _json(told: object) -> Values | None:
    """Return the values of a row; None for one that is damaged."""
    try:
        found = json.loads(told) if isinstance(told, (str, bytes)) else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
