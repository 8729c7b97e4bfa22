"""Questions in SQL, by DuckDB over the store's own files, and no further.

Two gates, because one is not enough: only `SELECT` and `EXPLAIN` statements are accepted (a `COPY … TO` could write
into the store), and the connection may read below the store only (`read_csv('/etc/passwd')` is a `SELECT`).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from tracer.errors import StoreError
from tracer.storage import duck, layer_parts, listing
from tracer.storage import snapshot as snapshots
from tracer.storage.artifact_catalog import all_records
from tracer.storage.fold import try_fold
from tracer.storage.index import Columns
from tracer.storage.layer_points import TIMES
from tracer.storage.live import live_columns
from tracer.storage.points import Points, arrange
from tracer.storage.values import Table

if TYPE_CHECKING:
    from tracer.storage.ground import Ground
    from tracer.storage.snapshot import Snapshot

_TIMEOUT_S = 120.0
_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+)?(\([^()]*\)\s*)?", re.IGNORECASE)
_RUN_FIELDS = [
    "folder", "project", "name", "status", "reason", "started", "ended", "heartbeat", "steps", "checkpoints",
    "points", "group", "job_type", "notes", "host", "user", "world_size", "attempt", "bytes", "lost",
]  # fmt: skip
_NUMBERS = frozenset(
    ["started", "ended", "heartbeat", "steps", "checkpoints", "points", "world_size", "attempt", "bytes", "lost"]
)
#: Columns of each family, for a store that has no file of it yet.
_EMPTY = {
    "points": "metric VARCHAR, rank SMALLINT, step BIGINT, time BIGINT, value DOUBLE",
    "rollup": (
        "metric VARCHAR, rank SMALLINT, first_step BIGINT, last_step BIGINT, first_time BIGINT, last_time BIGINT, "
        'n BIGINT, nan BIGINT, inf BIGINT, min DOUBLE, max DOUBLE, sum DOUBLE, "first" DOUBLE, "last" DOUBLE'
    ),
    "layers": "axis VARCHAR, stat VARCHAR, rank SMALLINT, layer VARCHAR, step BIGINT, value FLOAT",
    "histograms": (
        "axis VARCHAR, layer VARCHAR, rank SMALLINT, step BIGINT, time BIGINT, exponent SMALLINT, negative BIGINT, "
        "positive BIGINT"
    ),
    "logs": (
        "time BIGINT, step BIGINT, rank SMALLINT, kind VARCHAR, level VARCHAR, name VARCHAR, thread VARCHAR, "
        "trace_id VARCHAR, span_id VARCHAR, body VARCHAR, fields VARCHAR"
    ),
}


def query(store: Ground, text: str, limit: int | None) -> Table:
    """Answer one question; see `Store.sql`."""
    check_question(text)
    store.refresh()  # a run that ended a moment ago is asked about too
    for uid in snapshots.unsettled(store.catalog, store.base):
        try_fold(store, uid)
    connection = duckdb.connect(config=duck.settings() | {"python_enable_replacements": False})
    try:
        _make_views(store, connection, text)
        _lock(connection, store.base)
        return _answer(connection, text, limit)
    finally:
        connection.close()


def check_question(text: str) -> None:
    """Refuse everything but a single question.

    Raises:
        StoreError: It is not one `SELECT` or `EXPLAIN`, or DuckDB does not understand it.
    """
    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as error:
        message = f"DuckDB does not understand the question: {_first_line(error)}"
        raise StoreError(message) from error
    kinds = [str(statement.type).rpartition(".")[2] for statement in statements]
    if kinds == ["SELECT"]:
        return
    inner = _EXPLAIN.match(text)
    if kinds == ["EXPLAIN"] and inner is not None:
        check_question(text[inner.end() :])
        return
    found = " ".join(kinds) if kinds else "nothing"
    message = f"A question is one SELECT or EXPLAIN; this is {found}. The store is changed by commands only."
    raise StoreError(message)


def _answer(connection: duckdb.DuckDBPyConnection, text: str, limit: int | None) -> Table:
    """Run a question, bounded in time and rows."""
    timer = threading.Timer(_TIMEOUT_S, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        found = connection.execute(text)
        names = tuple(str(column[0]) for column in found.description or ())
        types = tuple(str(column[1]) for column in found.description or ())
        rows = found.fetchall() if limit is None else found.fetchmany(limit + 1)
    except duckdb.InterruptException as error:
        message = f"The question took longer than {_TIMEOUT_S:.0f} s and was stopped. Ask for fewer runs or metrics."
        raise StoreError(message) from error
    except duckdb.Error as error:
        message = f"DuckDB does not answer the question: {_first_line(error)}"
        raise StoreError(message) from error
    finally:
        timer.cancel()
    is_complete = limit is None or len(rows) <= limit
    return Table(names, types, tuple(rows if is_complete else rows[:limit]), is_complete)


def _make_views(store: Ground, connection: duckdb.DuckDBPyConnection, text: str) -> None:
    """Register the catalog's tables and the files of each family as views."""
    catalog = store.catalog
    with catalog.snapshot():
        runs = listing.runs_where(catalog, "WHERE r.trashed IS NULL ORDER BY r.started")
        params = catalog.rows(
            "SELECT r.uid, p.key, p.num, p.text FROM param p JOIN run r ON r.id = p.run WHERE r.trashed IS NULL"
        )
        series = catalog.rows(
            "SELECT r.uid, m.name, s.rank, s.n, s.first_step, s.last_step, s.last, s.last_time, s.min, s.max, s.sum, "
            "s.nan, s.inf "
            "FROM series s JOIN run r ON r.id = s.run JOIN metric m ON m.id = s.metric WHERE r.trashed IS NULL"
        )
        checkpoints = catalog.rows(
            "SELECT r.uid, c.step, c.time, c.metrics, c.system, c.samples FROM checkpoint c JOIN run r ON r.id = c.run "
            "WHERE r.trashed IS NULL"
        )
        findings = catalog.rows(
            "SELECT r.uid, f.uid, f.rank, f.step, f.last_step, f.kind, f.severity, f.details, f.source, f.detected "
            "FROM finding f JOIN run r ON r.id = f.run WHERE r.trashed IS NULL"
        )
        snaps = [snapshots.take(catalog, store.base, row["uid"]) for row in runs]
    _artifacts(store, connection)
    _runs(connection, runs)
    _table(connection, "params", {"run": str, "key": str, "num": float, "text": str}, params)
    numbers = dict.fromkeys(("rank", "n", "first_step", "last_step"), int)
    summary = dict.fromkeys(("min", "max", "sum"), float)
    _table(
        connection, "series",
        {"run": str, "metric": str, **numbers, "last": float, "last_time": int, **summary, "nan": int, "inf": int},
        series,
    )  # fmt: skip
    _table(
        connection, "checkpoints",
        {"run": str, "step": int, "time": int, "metrics": str, "system": str, "samples": str}, checkpoints,
    )  # fmt: skip
    _table(
        connection, "findings",
        {"run": str, "id": str, "rank": int, "step": int, "last_step": int, "kind": str, "severity": str,
         "details": str, "source": str, "detected": int},
        findings,
    )  # fmt: skip
    # What the question does not name is not opened: layer values alone may be a gigabyte.
    asked = {family for family in _EMPTY if re.search(rf"\b{family}\b", text, re.IGNORECASE)}
    _name_layers(store, connection, is_asked="layers" in asked)
    for family in _EMPTY:
        _family(connection, family, snaps if family in asked else [])


def _runs(connection: duckdb.DuckDBPyConnection, runs: list[Columns]) -> None:
    """Register the runs: a column per field, tags as a list, `config` as JSON text."""
    types: dict[str, type] = {"run": str, **{name: int if name in _NUMBERS else str for name in _RUN_FIELDS}}
    rows = [
        (row["uid"], *(row[name] for name in _RUN_FIELDS), row["config"], json.dumps(sorted(json.loads(row["tags"]))))
        for row in runs
    ]
    _table(connection, "runs", {**types, "config": str, "tags": str}, rows)


def _artifacts(store: Ground, connection: duckdb.DuckDBPyConnection) -> None:
    """Register the versions of artifacts that runs made (`output`) and used (`input`)."""
    rows = [
        (one.uid, one.record.project, one.record.name, one.record.version, one.record.type, one.record.direction,
         one.record.digest, one.record.bytes, one.record.uri, json.dumps(dict(one.record.metadata)), one.record.created,
         one.record.step, one.record.maker)
        for one in all_records(store)
    ]  # fmt: skip
    texts = dict.fromkeys(("type", "direction", "digest"), str)
    types = {"run": str, "project": str, "name": str, "version": int, **texts, "bytes": int, "uri": str}
    _table(connection, "artifacts", {**types, "metadata": str, "created": int, "step": int, "maker": str}, rows)


def _family(connection: duckdb.DuckDBPyConnection, family: str, snaps: list[Snapshot]) -> None:
    """Make the view of one family: its files, and for points what the journals hold; of equal steps the last."""
    files = {file.path: (snap.uid, file.last_order) for snap in snaps for file in snap.of(family)}
    duck.verify([file for snap in snaps for file in snap.of(family)])
    declared = _fields(_EMPTY[family])
    names = ", ".join(name for name, _ in declared)
    tails = _tails(snaps) if family == "points" else {}
    mixed = _overlapping(snaps, tails) if family == "points" else set()
    fields = ", ".join(f"NULL::{kind} AS {name}" for name, kind in declared)
    parts = [f"SELECT NULL::VARCHAR AS run, {fields} WHERE false"]
    _table(
        connection, f"{family}_files", {"file": str, "run": str, "fold": int},
        [(path, run, order) for path, (run, order) in files.items()],
    )  # fmt: skip
    for number, is_mixed in enumerate((False, True)):
        chosen = [path for path, (run, _) in files.items() if (run in mixed) is is_mixed]
        live = {run: points for run, points in tails.items() if (run in mixed) is is_mixed}
        sources = []
        if chosen:
            listed = ", ".join(map(duck.literal, chosen))
            joined = "JOIN layers_series s USING (file, series)" if family == "layers" else ""
            sources.append(
                f"SELECT f.run, f.fold, {names} FROM read_parquet([{listed}], filename = 'file') p "  # noqa: S608
                f"JOIN {family}_files f USING (file) {joined}"
            )
        if live:
            connection.register(f"live_{number}", _live_columns(live))
            sources.append(f"SELECT run, 9223372036854775807 AS fold, {names} FROM live_{number}")  # noqa: S608
        if sources:
            # Where a step may have come twice the last one is found; elsewhere the question need not pay for it.
            last = (
                "QUALIFY row_number() OVER (PARTITION BY run, metric, rank, step ORDER BY fold DESC) = 1"
                if is_mixed
                else ""
            )
            parts.append(f"SELECT run, {names} FROM ({' UNION ALL '.join(sources)}) {last}")  # noqa: S608
    connection.execute(f"CREATE TEMP VIEW {family} AS {' UNION ALL '.join(parts)}")


def _name_layers(store: Ground, connection: duckdb.DuckDBPyConnection, *, is_asked: bool) -> None:
    """Make the table of the names that go with the numbers of series in files of layer values."""
    catalog = store.catalog
    asked = "SELECT id, path FROM segment WHERE family = 'layers' AND dead IS NULL"
    rows = [
        (os.path.join(store.base, path), part.series + at, *part.key, layer)
        for segment, path in (catalog.rows(asked) if is_asked else ())
        for part in layer_parts.parts_of_file(catalog, segment)
        if part.key[1] != TIMES
        for at, layer in enumerate(part.layers)
    ]
    types = {"file": str, "series": int, "axis": str, "stat": str, "rank": int, "layer": str}
    _table(connection, "layers_series", types, rows)


def _overlapping(snaps: list[Snapshot], tails: dict[str, Points]) -> set[str]:
    """Return the runs whose files, or files and journal, share steps."""
    found: set[str] = set()
    for snap in snaps:
        ranges = [(file.first_step, file.last_step) for file in snap.of("points") if file.rows]
        if snap.uid in tails:
            step = tails[snap.uid].step
            ranges.append((int(step.min()), int(step.max())))
        ranges.sort(key=lambda pair: (pair[0] or 0, pair[1] or 0))
        if any((before[1] or 0) >= (after[0] or 0) for before, after in itertools.pairwise(ranges)):
            found.add(snap.uid)
    return found


def _fields(declared: str) -> list[tuple[str, str]]:
    """Return names and types of declared columns."""
    pairs = (one.strip().rpartition(" ") for one in declared.split(","))
    return [(name, kind) for name, _, kind in pairs]


def _tails(snaps: list[Snapshot]) -> dict[str, Points]:
    """Return the points that lie in journals still, by run."""
    found: dict[str, Points] = {}
    for snap in snaps:
        if not snap.is_settled:
            columns = live_columns(snap)[0]
            if columns.points:
                found[snap.uid] = arrange(columns)
    return found


def _live_columns(tails: dict[str, Points]) -> dict[str, Any]:
    """Return points of journals as the columns of the view."""

    def names(points: Points) -> Any:  # noqa: ANN401 -- an array
        return np.array(points.names, dtype=object)[np.repeat(points.metric, points.counts)]

    parts = list(tails.items())
    return {
        "run": np.concatenate([np.full(len(points), uid, dtype=object) for uid, points in parts]),
        "metric": np.concatenate([names(points) for _, points in parts]),
        "rank": np.concatenate([np.repeat(points.rank, points.counts) for _, points in parts]),
        **{name: np.concatenate([getattr(points, name) for _, points in parts]) for name in ("step", "time", "value")},
    }


def _table(connection: duckdb.DuckDBPyConnection, name: str, types: dict[str, type], rows: list[Any]) -> None:
    """Make a table of rows of the catalog, NULL where they have None."""
    kinds = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE"}
    columns: dict[str, Any] = {}
    for at, (column, kind) in enumerate(types.items()):
        values = [row[at] for row in rows]
        array = np.empty(len(values), dtype=object)
        array[:] = values
        columns[column] = array if kind is str else np.ma.masked_array(
            np.array([0 if value is None else value for value in values], np.int64 if kind is int else np.float64),
            mask=[value is None for value in values],
        )  # fmt: skip
    connection.register("fresh", columns)
    fields = ", ".join(f'"{column}"::{kinds[kind]} AS "{column}"' for column, kind in types.items())
    connection.execute(f'CREATE TEMP TABLE "{name}" AS SELECT {fields} FROM fresh')  # noqa: S608 -- our own names
    connection.unregister("fresh")


def _lock(connection: duckdb.DuckDBPyConnection, base: str) -> None:
    """Close everything outside the store, for good."""
    allowed = duck.literal(os.path.abspath(base))
    connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _first_line(error: Exception) -> str:
    """Return the first line of what DuckDB says."""
    return str(error).splitlines()[0]


__all__ = ["check_question", "query"]
