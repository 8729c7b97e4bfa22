"""The connection on which the Tracer documents' SQL runs: their tables as temporary views of our catalog.

Reading: every statement sees what was recorded a moment ago, because pending journals are folded before it runs.
Writing: three statements of the documents mean something, and triggers hand them on. `DELETE FROM runs` moves the run
to the trash, `INSERT INTO anomalies` keeps a finding, `UPDATE runs` changes what is known of a run. A deletion and an
update happen when the statement has run; findings are gathered and kept together, at `commit` or before they are read.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import quote

from tracer import events, journal
from tracer.errors import StoreError
from tracer.storage.catalog import FILE

if TYPE_CHECKING:
    from tracer.storage.store import Store


class Served(Protocol):
    """What the connection needs of the backend that hands it out."""

    base_path: Path

    @property
    def store(self) -> Store:
        """The store underneath."""

    def get_gradient_stats(self, run_id: str) -> dict[str, dict[str, list[Any]]]:
        """Return the statistics of each layer's gradients."""

    def let_go(self, run_id: str) -> bool:
        """Close the backend's own writer of a run."""

    def write_record(self, run_id: str, kind: int, value: Mapping[str, object]) -> None:
        """Write a record of text into the journal of a run."""


_KEPT_RUNS = 4
#: Columns of `runs` that an UPDATE may change, and what they are called in the metadata of a run.
_CHANGEABLE = {"project_name": "project", "run_name": "name", "status": "status", "config": "config"}

_VIEWS = """
CREATE TEMP VIEW runs AS
  SELECT r.uid AS run_id, p.name AS project_name, r.name AS run_name, r.started / 1000000.0 AS start_time,
    r.ended / 1000000.0 AS end_time, r.status AS status, tracer_config(r.facts, r.config) AS config,
    r.steps AS total_steps, r.checkpoints AS total_checkpoints,
    datetime(r.created / 1000000, 'unixepoch') AS created_at, datetime(r.updated / 1000000, 'unixepoch') AS updated_at
  FROM run r JOIN project p ON p.id = r.project WHERE r.trashed IS NULL;

CREATE TEMP VIEW checkpoints AS
  SELECT r.uid || '_step_' || c.step AS checkpoint_id, r.uid AS run_id, c.step AS step, c.time / 1000000.0 AS timestamp,
    c.metrics AS metrics, c.samples IS NOT NULL AS has_samples, tracer_path(r.folder, c.samples) AS sample_path
  FROM checkpoint c JOIN run r ON r.id = c.run WHERE r.trashed IS NULL;

CREATE TEMP VIEW gradient_stats AS
  WITH c AS MATERIALIZED (
    SELECT c.run, c.step, r.uid, r.uid || '_step_' || c.step AS checkpoint_id
    FROM checkpoint c JOIN run r ON r.id = c.run WHERE r.trashed IS NULL)
  SELECT c.run << 48 | (c.step & 0xFFFFFFFF) << 16 | j.key AS id, c.checkpoint_id AS checkpoint_id,
    j.value ->> 0 AS layer_name, j.value ->> 1 AS norm, j.value ->> 2 AS mean, j.value ->> 3 AS std,
    j.value ->> 4 AS max_val, j.value ->> 5 AS min_val, j.value ->> 6 AS num_zeros, j.value ->> 7 AS num_nans,
    j.value ->> 8 AS num_infs
  FROM c CROSS JOIN json_each(tracer_layers(c.uid, c.step)) j;

CREATE TEMP VIEW system_metrics AS
  WITH c AS MATERIALIZED (
    SELECT c.run, c.step, c.system, r.uid || '_step_' || c.step AS checkpoint_id
    FROM checkpoint c JOIN run r ON r.id = c.run WHERE r.trashed IS NULL)
  SELECT c.run << 48 | c.step AS id, c.checkpoint_id AS checkpoint_id,
    tracer_part(c.system, 'cpu', 'percent') AS cpu_percent,
    tracer_part(c.system, 'memory', 'percent') AS memory_percent,
    coalesce(tracer_part(c.system, 'gpu', NULL), '{}') AS gpu_metrics
  FROM c;

CREATE TEMP VIEW anomalies AS
  SELECT f.id AS id, r.uid AS run_id, r.uid || '_step_' || f.step AS checkpoint_id, f.step AS step,
    f.kind AS anomaly_type, f.severity AS severity, f.details AS details,
    datetime(f.detected / 1000000, 'unixepoch') AS detected_at
  FROM finding f JOIN run r ON r.id = f.run WHERE r.trashed IS NULL;

CREATE TEMP VIEW schema_version AS
  SELECT 1 AS version, datetime(min(created) / 1000000, 'unixepoch') AS applied_at FROM run;

CREATE TEMP TRIGGER runs_delete INSTEAD OF DELETE ON runs BEGIN SELECT tracer_delete(OLD.run_id); END;

CREATE TEMP TRIGGER runs_update INSTEAD OF UPDATE ON runs BEGIN
  SELECT tracer_update(OLD.run_id, json_object(
    'project_name', NEW.project_name, 'run_name', NEW.run_name, 'status', NEW.status, 'config', NEW.config,
    'end_time', NEW.end_time, 'total_steps', NEW.total_steps), json_object(
    'project_name', OLD.project_name, 'run_name', OLD.run_name, 'status', OLD.status, 'config', OLD.config,
    'end_time', OLD.end_time, 'total_steps', OLD.total_steps));
END;

CREATE TEMP TRIGGER anomalies_insert INSTEAD OF INSERT ON anomalies BEGIN
  SELECT tracer_finding(NEW.run_id, NEW.step, NEW.anomaly_type, coalesce(NEW.severity, 'medium'), NEW.details);
END;
"""


class SeedCursor(sqlite3.Cursor):
    """A cursor that brings the catalog up to date before a statement and does what triggers asked for after it."""

    connection: DocumentConnection

    def execute(self, sql: str, parameters: Any = (), /) -> SeedCursor:  # noqa: ANN401 -- as sqlite3 declares it
        """Run one statement; see `sqlite3.Cursor.execute`."""
        self.connection.before(sql)
        super().execute(sql, parameters)
        self.connection.after()
        return self

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> SeedCursor:
        """Run one statement for each row; see `sqlite3.Cursor.executemany`."""
        self.connection.before(sql)
        super().executemany(sql, parameters)
        self.connection.after()
        return self

    def executescript(self, sql_script: str, /) -> SeedCursor:
        """Run several statements; see `sqlite3.Cursor.executescript`."""
        self.connection.before("")
        super().executescript(sql_script)
        self.connection.after()
        return self


class DocumentConnection(sqlite3.Connection):
    """A connection whose writes go to the store, not into the catalog's file."""

    backend: Served

    def serve(self, backend: Served) -> None:
        """Make the views and triggers, and answer them from this backend."""
        self.backend = backend
        self._layers: OrderedDict[str, dict[int, str]] = OrderedDict()
        self._findings: list[tuple[str, events.Finding]] = []
        self._deletions: list[str] = []
        self._updates: list[tuple[str, dict[str, Any]]] = []
        self.row_factory = sqlite3.Row
        self.create_function("tracer_layers", 2, self._layers_at)
        self.create_function("tracer_config", 2, _config, deterministic=True)
        self.create_function("tracer_part", 3, _part, deterministic=True)
        self.create_function("tracer_path", 2, self._path)
        self.create_function("tracer_delete", 1, self._deletions.append)
        self.create_function("tracer_update", 3, self._update)
        self.create_function("tracer_finding", 5, self._finding)
        super().executescript(_VIEWS)

    def cursor(self, factory: Any = None) -> Any:  # noqa: ANN401 -- as sqlite3 declares it
        """Return a cursor; see `sqlite3.Connection.cursor`."""
        return super().cursor(SeedCursor if factory is None else factory)

    # Some Pythons call the cursor's own `execute` from here, some the one it inherits.

    def execute(self, sql: str, parameters: Any = (), /) -> SeedCursor:  # noqa: ANN401 -- as sqlite3 declares it
        """Run one statement; see `sqlite3.Connection.execute`."""
        return self._made().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> SeedCursor:
        """Run one statement for each row; see `sqlite3.Connection.executemany`."""
        return self._made().executemany(sql, parameters)

    def executescript(self, sql_script: str, /) -> SeedCursor:
        """Run several statements; see `sqlite3.Connection.executescript`."""
        return self._made().executescript(sql_script)

    def before(self, sql: str) -> None:
        """Bring the catalog up to date for a statement that reads."""
        words = sql.split(None, 1)
        if words and words[0].upper() in ("INSERT", "COMMIT", "END", "ROLLBACK"):
            return
        self._keep_findings()
        self._layers.clear()
        self.backend.store.fold()
        self.backend.store.runs(limit=1)  # looks for runs that began, ended or died since

    def after(self) -> None:
        """Do what the triggers of a statement asked for."""
        deletions, self._deletions[:] = list(self._deletions), []
        updates, self._updates[:] = list(self._updates), []
        for uid in deletions:
            # Our own writer is no reason to refuse; a run that another process writes is.
            self.backend.store.delete(uid, force=self.backend.let_go(uid))
        for uid, changes in updates:
            self._apply(uid, changes)

    def commit(self) -> None:
        """Keep the findings that were inserted."""
        self._keep_findings()
        super().commit()

    def rollback(self) -> None:
        """Forget the findings that were inserted since the last commit."""
        self._findings.clear()
        super().rollback()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> Literal[False]:
        """Commit, or roll back after an exception."""
        if kind is None:
            self.commit()
        else:
            self.rollback()
        return False

    def _made(self) -> SeedCursor:
        """Return a cursor with the connection's rows."""
        made: SeedCursor = self.cursor()
        return made

    def _keep_findings(self) -> None:
        """Hand the findings to the store, each run's together."""
        findings, self._findings = self._findings, []
        by_run: dict[str, list[events.Finding]] = {}
        for uid, finding in findings:
            by_run.setdefault(uid, []).append(finding)
        for uid, found in by_run.items():
            self.backend.store.add_findings(uid, found)

    def _finding(self, uid: str, step: int, kind: str, severity: str, details: str | None) -> None:
        """Take a row of `INSERT INTO anomalies`."""
        self._findings.append((uid, events.Finding(kind, severity, int(step), json.loads(details or "{}"))))

    def _update(self, uid: str, new: str, old: str) -> None:
        """Take a row of `UPDATE runs`: only what the statement changed."""
        after, before = json.loads(new), json.loads(old)
        changes = {column: value for column, value in after.items() if value != before[column]}
        if changes:
            self._updates.append((uid, changes))

    def _apply(self, uid: str, changes: dict[str, Any]) -> None:
        """Write changed columns of a run as metadata of it."""
        status = changes.get("status")
        if status is not None and status not in events.STATUSES:
            message = f"{status!r} is no status of a run. Choose one of: {', '.join(events.STATUSES)}."
            raise StoreError(message)
        facts: dict[str, Any] = {
            _CHANGEABLE[column]: value for column, value in changes.items() if column in _CHANGEABLE
        }
        if "config" in facts:
            facts["config"] = json.loads(facts["config"] or "{}")
        if "end_time" in changes:
            facts["ended"] = None if changes["end_time"] is None else round(changes["end_time"] * 1_000_000)
        if "total_steps" in changes:
            facts["steps"] = int(changes["total_steps"])
        self.backend.write_record(uid, journal.Kind.METADATA, facts)
        self.backend.store.fold(uid)

    def _path(self, folder: str, inside: str | None) -> str | None:
        """Return the absolute path of a file of a run."""
        return None if inside is None else str((self.backend.base_path / "runs" / folder / inside).absolute())

    def _layers_at(self, uid: str, step: int) -> str:
        """Return the statistics of a run's layers at a step: a JSON array of `[layer, norm, mean, …]`."""
        found = self._layers.get(uid)
        if found is None:
            found = self._layers[uid] = _rows_by_step(self.backend.get_gradient_stats(uid))
            if len(self._layers) > _KEPT_RUNS:
                self._layers.popitem(last=False)
        # A checkpoint is recorded when its step has ended: what the optimizer saw in it belongs to the step before.
        return found.get(step) or found.get(step - 1, "[]")


def connect(backend: Served) -> DocumentConnection:
    """Return a connection on which the Tracer documents' SQL runs.

    Args:
        backend: What the statements read and change.

    Returns:
        A connection with rows that answer to column names, usable from any thread, one at a time.

    Raises:
        StoreError: The store has no catalog on the disk, because nobody may write it.
    """
    backend.store.fold()
    path = os.path.join(backend.store.folder, FILE)
    if not os.path.exists(path):
        message = (
            f"There is no catalog in {backend.store.folder}, so SQL has nothing to run on. Mend the folder's rights."
        )
        raise StoreError(message)
    connection = sqlite3.connect(
        f"file:{quote(os.path.abspath(path))}?mode=ro",
        uri=True,
        check_same_thread=False,
        isolation_level=None,  # a read transaction left open would keep the catalog from shrinking
        factory=DocumentConnection,
    )
    connection.serve(backend)
    return connection


def _config(facts: str, config: str) -> str:
    """Return the settings and hyperparameters of a run as one JSON object."""
    settings = json.loads(facts).get("settings")
    return json.dumps({**(settings or {}), **json.loads(config)})


def _part(text: str | None, first: str, second: str | None) -> float | str | None:
    """Return a part of a JSON object; in Python, because SQLite's JSON knows no NaN."""
    found = json.loads(text or "{}").get(first)
    if second is not None:
        found = found.get(second) if isinstance(found, dict) else None
    return json.dumps(found) if isinstance(found, (dict, list)) else found


def _rows_by_step(stats: dict[str, dict[str, list[Any]]]) -> dict[int, str]:
    """Return the rows of `gradient_stats` of one run by step, as JSON."""
    rows: dict[int, list[str]] = {}
    for layer, lists in stats.items():
        name = json.dumps(layer)
        for step, *values in zip(*lists.values(), strict=True):
            rows.setdefault(step, []).append(f"[{name}, {', '.join(_literals(values))}]")
    return {step: f"[{', '.join(found)}]" for step, found in rows.items()}


def _literals(values: Iterable[float]) -> Iterator[str]:
    """Yield numbers as SQLite's JSON reads them: it has no NaN, and takes 9e999 for infinity."""
    for value in values:
        if math.isnan(value):
            yield "null"
        elif math.isinf(value):
            yield "9e999" if value > 0 else "-9e999"
        else:
            yield repr(value)


__all__ = ["DocumentConnection", "SeedCursor", "connect"]
