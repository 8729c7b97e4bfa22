"""Tables of other people's files, and Parquet of ours, through DuckDB; all SQL of this room stands here.

A file becomes one table of points that is sorted by series, on the disk where it is large. Nothing of a file is run,
no extension is fetched, and memory is bounded.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import duckdb
import numpy as np

from tracer.backends.files_columns import Columns, first_line
from tracer.transfer import Points, Text

_MEMORY = "512MB"
#: So many points are fetched at a time.
_PIECE = 1 << 20
_LONGEST_LINE, _LONGEST_NUMBER = 64 << 20, 400
_MISSING = "('', 'null', 'none', 'na', 'n/a', '<na>')"
_SECONDS, _MILLISECONDS, _MICROSECONDS = 1e11, 1e14, 1e17
#: Under this key a Parquet file of ours says how many sessions it holds.
SESSIONS = "tracer_sessions"

Broken = duckdb.Error


@dataclass(frozen=True, slots=True)
class Held:
    """One run of a table: its key, when it began and ended, how far it came."""

    key: str
    name: str | None
    project: str | None
    first: int | None
    last: int | None
    steps: int


class Table:
    """The points of one file.

    Args:
        path: The file.
        kind: `csv` or `parquet`.
        options: Which columns are what, where it is not to be guessed: `step`, `time`, `name`, `value`, `run`, `rank`.
        started: The time of points whose file gives none.
    """

    def __init__(self, path: str, kind: str, options: Mapping[str, object], started: int) -> None:
        self.notes: list[str] = []
        spill = tempfile.mkdtemp(prefix="tracer-")
        self._removed = weakref.finalize(self, shutil.rmtree, spill, ignore_errors=True)
        self._connection = connected(spill)
        try:
            self._take(path, kind, options, started)
        except (duckdb.Error, ValueError, OSError):
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def runs(self) -> list[Held]:
        """Return the runs that the file holds, in the order of the file."""
        rows = self._connection.execute(
            "SELECT run, min(run_name), min(project), min(time), max(time), max(step) FROM points "
            "GROUP BY run ORDER BY min(place)"
        ).fetchall()
        return [Held(key, name, project, first, last, step + 1) for key, name, project, first, last, step in rows]

    def points(self, run: str) -> Iterator[Points]:
        """Yield the numbers of a run, one series after the other."""
        known = self._connection.execute(
            "SELECT id, name, rank, n FROM series WHERE run = ? AND n > 0 ORDER BY id", [run]
        ).fetchall()
        at = 0
        while at < len(known):
            end, count = at, 0
            while end < len(known) and (end == at or count + known[end][3] <= _PIECE):
                count, end = count + known[end][3], end + 1
            yield from self._fetched(known[at:end])
            at = end

    def texts(self, run: str) -> Iterator[Text]:
        """Yield the values of a run that are texts."""
        found = self._connection.cursor().execute(
            "SELECT s.name, p.step, p.time, p.text, s.rank FROM points p JOIN series s USING (id) "
            "WHERE s.run = ? AND p.value IS NULL AND p.text IS NOT NULL ORDER BY p.id, p.place",
            [run],
        )
        while rows := found.fetchmany(10_000):
            yield from (Text(*row) for row in rows)

    def close(self) -> None:
        """Let go of the table."""
        self._connection.close()
        self._removed()

    def _fetched(self, series: Sequence[tuple[int, str, int, int]]) -> Iterator[Points]:
        """Yield neighbouring series."""
        held = self._connection.execute(
            "SELECT step, time, value FROM points WHERE id BETWEEN ? AND ? AND value IS NOT NULL ORDER BY id, place",
            [series[0][0], series[-1][0]],
        ).fetchnumpy()
        steps, times, values = (np.ma.getdata(held[name]) for name in ("step", "time", "value"))
        at = 0
        for _, name, rank, count in series:
            chosen = slice(at, at + count)
            yield Points(name, steps[chosen], times[chosen], values[chosen], rank=rank)
            at += count

    def _take(self, path: str, kind: str, options: Mapping[str, object], started: int) -> None:
        """Read the file into the table."""
        execute = self._connection.execute
        rows = f'SELECT row_number() OVER () - 1 AS "\x01at", * FROM {_reader(path, kind)}'  # noqa: S608 -- quoted
        execute(f"CREATE TABLE file AS {rows}")
        if kind == "csv":
            self._rejected(path)
        types = {row[0]: str(row[1]) for row in execute("DESCRIBE file").fetchall() if row[0] != "\x01at"}
        columns = Columns.guessed(list(types), options, os.path.basename(path))
        columns = replace(columns, is_disarmed=columns.is_disarmed and kind == "csv")
        execute(
            "CREATE TABLE raw(place BIGINT, run TEXT, run_name TEXT, project TEXT, name TEXT, rank INTEGER,"
            " step BIGINT, time BIGINT, value DOUBLE, text TEXT)"
        )
        for name, value, text in columns.values(types):
            execute(f"INSERT INTO raw {_rows(columns, types, name, value, text, started)}")
        execute("UPDATE raw SET name = 'value' WHERE name IS NULL OR name = ''")
        execute(
            "CREATE TABLE series AS SELECT row_number() OVER (ORDER BY min(place), name, rank, run) AS id, run, name,"
            " rank, count(value) AS n FROM raw GROUP BY run, name, rank"
        )
        execute(
            "CREATE TABLE points AS SELECT s.id, r.place, r.run, r.run_name, r.project, r.step, r.time, r.value,"
            " r.text FROM raw r JOIN series s ON s.run IS NOT DISTINCT FROM r.run AND s.name = r.name"
            " AND s.rank = r.rank ORDER BY s.id, r.place"
        )
        execute("DROP TABLE raw")
        execute("DROP TABLE file")

    def _rejected(self, path: str) -> None:
        """Say how many lines could not be read."""
        found = self._connection.execute("SELECT count(DISTINCT line) FROM reject_errors").fetchone()
        if found is not None and found[0]:
            self.notes.append(f"{path}: {found[0]} lines have not the columns that the first one names; left out.")


def connected(spill: str = "") -> duckdb.DuckDBPyConnection:
    """Return a database in memory that fetches nothing and does not grow without a bound."""
    settings: dict[str, Any] = {
        "threads": max(1, min(4, os.cpu_count() or 1)), "memory_limit": _MEMORY,
        "autoinstall_known_extensions": False, "autoload_known_extensions": False,
    }  # fmt: skip
    return duckdb.connect(config=settings | ({"temp_directory": spill} if spill else {}))


def held_sessions(path: str) -> int:
    """Return how many sessions a Parquet file of ours holds; 0 where there is none."""
    if not os.path.exists(path):
        return 0
    with connected() as connection:
        found = connection.execute(
            "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = ?", [literal(path), SESSIONS]
        ).fetchone()
    return int(found[0]) if found is not None and str(found[0]).isdigit() else 0


def merged(lines: str, path: str, target: str, sessions: int) -> None:
    """Write a Parquet file of what one holds already and the lines of a session in CSV.

    Args:
        lines: The lines, as `CsvBackend` writes them.
        path: The file so far; it need not exist.
        target: The new file.
        sessions: How many sessions it holds then.
    """
    columns = "{'name': 'TEXT', 'rank': 'INTEGER', 'step': 'BIGINT', 'time': 'DECIMAL(20, 6)', 'value': 'DOUBLE'}"
    before = (
        f"SELECT name, rank, step, time, value FROM {_reader(path, 'parquet')} UNION ALL "  # noqa: S608 -- quoted
        if os.path.exists(path)
        else ""
    )
    read = (
        f"{before}SELECT {_armed('name', is_disarmed=True)} AS name, rank, step,"  # noqa: S608 -- as above
        " make_timestamp((time * 1000000)::BIGINT) AS time, value "
        f"FROM read_csv({_quoted(literal(lines))}, columns={columns}, header=true, delim=',', quote='\"', escape='\"',"
        " auto_detect=false, parallel=false, nullstr='\x01')"
    )
    with tempfile.TemporaryDirectory(prefix="tracer-") as spill, connected(spill) as connection:
        connection.execute(
            f"COPY ({read}) TO {_quoted(target)} (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2,"
            f" KV_METADATA {{{SESSIONS}: '{sessions}'}})"
        )


def _reader(path: str, kind: str) -> str:
    """Return what stands behind FROM for a file."""
    place = _quoted(literal(os.path.abspath(path)))
    if kind == "parquet":
        return f"read_parquet({place}, hive_partitioning=false)"
    # DuckDB's own look at a file takes seconds where a cell is long.
    delimiter, names = first_line(path)
    columns = ", ".join(f"{_quoted(name)}: 'VARCHAR'" for name in names)
    return (
        f"read_csv({place}, auto_detect=false, columns={{{columns}}}, delim={_quoted(delimiter)}, header=true,"
        f" ignore_errors=true, store_rejects=true, quote='\"', escape='\"', max_line_size={_LONGEST_LINE},"
        f" hive_partitioning=false)"
    )


def _rows(
    columns: Columns, types: Mapping[str, str], name: str, value: str | None, text: str | None, started: int
) -> str:
    """Return the query for the points of one column of values."""
    place = 'file."\x01at"'
    is_disarmed = columns.is_disarmed
    number = "NULL::DOUBLE" if value is None else _number(value, types[value])
    words = "NULL::TEXT" if text is None else _words(text, types[text], is_disarmed=is_disarmed)
    step = place if columns.step is None else f"coalesce({_whole(columns.step)}, {place})"
    time = str(started) if columns.time is None else f"coalesce({_time(columns.time, types[columns.time])}, {started})"
    rank = "0" if columns.rank is None else f"coalesce(TRY_CAST({_name(columns.rank)} AS INTEGER), 0)"
    run, run_name, project = (
        "NULL::TEXT" if one is None else _armed(f"{_name(one)}::TEXT", is_disarmed=is_disarmed)
        for one in (columns.run, columns.run_name, columns.project)
    )
    called = _quoted(name)
    if columns.name is not None:
        called = _armed(f"{_name(columns.name)}::TEXT", is_disarmed=is_disarmed)
    return (
        f"SELECT * FROM (SELECT {place} AS place, coalesce({run}, '') AS run, {run_name} AS run_name,"  # noqa: S608 -- as above
        f" {project} AS project, {called} AS name, {rank} AS rank, {step} AS step, {time} AS time,"
        f" {number} AS value, {words} AS text FROM file) WHERE value IS NOT NULL OR text IS NOT NULL"
    )


def _number(column: str, kind: str) -> str:
    """Return the expression for a number; what is a truth counts as 1 or 0."""
    held = _name(column)
    if kind == "VARCHAR":
        truth = f"CASE lower(trim({held})) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 END"
        return f"coalesce(TRY_CAST({_short(held)} AS DOUBLE), {truth})"
    return f"TRY_CAST({held} AS DOUBLE)"


def _words(column: str, kind: str, *, is_disarmed: bool) -> str:
    """Return the expression for a text, NULL where it is a number, a truth or nothing."""
    held = f"{_name(column)}::TEXT"
    number = _number(column, kind) if kind == "VARCHAR" else "NULL"
    body = _armed(held, is_disarmed=is_disarmed)
    return f"CASE WHEN {number} IS NULL AND lower(trim({held})) NOT IN {_MISSING} THEN {body} END"


def _whole(column: str) -> str:
    """Return the expression for a step; a fraction is cut."""
    held = _short(f"{_name(column)}::TEXT")
    return f"coalesce(TRY_CAST({held} AS BIGINT), TRY_CAST(trunc(TRY_CAST({held} AS DOUBLE)) AS BIGINT))"


def _time(column: str, kind: str) -> str:
    """Return the expression for microseconds: of a time, of text, or of seconds, milli-, micro- or nanoseconds."""
    held = _name(column)
    if kind in {"DATE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}:
        return f"epoch_us({held}::TIMESTAMP)"
    if kind.startswith("TIMESTAMP"):
        return f"epoch_us({held})"
    number = f"TRY_CAST({_short(held) if kind == 'VARCHAR' else held} AS DOUBLE)"
    scaled = (
        f"CASE WHEN abs({number}) < {_SECONDS} THEN {number} * 1000000 WHEN abs({number}) < {_MILLISECONDS} "
        f"THEN {number} * 1000 WHEN abs({number}) < {_MICROSECONDS} THEN {number} ELSE {number} / 1000 END"
    )
    text = f"epoch_us(TRY_CAST({held} AS TIMESTAMPTZ))" if kind == "VARCHAR" else "NULL"
    return f"coalesce(TRY_CAST(round({scaled}) AS BIGINT), {text})"


def _short(expression: str) -> str:
    """Return the expression for text that may be a number: of more digits than any has, reading takes seconds."""
    return f"CASE WHEN strlen({expression}) <= {_LONGEST_NUMBER} THEN {expression} END"


def _armed(expression: str, *, is_disarmed: bool) -> str:
    """Return the expression for text without the apostrophe that kept a spreadsheet from running it."""
    return f"regexp_replace({expression}, '^''([=+\\-@\\t\\r''])', '\\1')" if is_disarmed else expression


def literal(path: str) -> str:
    """Return a path in which no character stands for others."""
    return re.sub(r"([\[*?])", r"[\1]", path)


def _name(column: str) -> str:
    """Return a column's name as SQL writes it."""
    return '"' + column.replace('"', '""') + '"'


def _quoted(text: str) -> str:
    """Return text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


__all__ = ["Broken", "Held", "Table", "connected", "held_sessions", "literal", "merged"]
