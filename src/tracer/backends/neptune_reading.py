"""Runs out of the Parquet files that Neptune's own exporter made before its service ended.

    <data>/<project>/<run>_part_<n>.parquet      an attribute a row: its path, its type, step, time, and a value
    <files>/<project>/…                          what `file_value` names

The two folders are told apart when exporting; `files` beside the first one is looked in unless it is named.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import numpy as np

from tracer import events
from tracer.backends.base import Source
from tracer.backends.files_duck import Broken, connected, literal
from tracer.backends.files_places import inside
from tracer.errors import ConfigError
from tracer.transfer import Event, File, Histogram, LogLine, Part, Points, RunInfo, Text

_NEEDED = frozenset({"project_id", "run_id", "attribute_path", "attribute_type", "step", "timestamp"})
_VALUES = ("int_value", "float_value", "string_value", "bool_value", "string_set_value")
_SINGLE = "('float', 'int', 'string', 'bool', 'datetime', 'string_set')"
_PIECE, _MOST_PARTS = 1 << 20, 100_000
_READ = 1 << 20


class NeptuneSource(Source):
    """Runs of an export.

    Args:
        uri: The folder of the Parquet files, or one of them.
        options: `files`, the folder of the files; `project`; `step_multiplier` for steps that are no whole numbers.
    """

    name: ClassVar[str] = "neptune"

    def __init__(self, uri: str, options: Mapping[str, object] | None = None) -> None:
        super().__init__(uri, options)
        self._root = os.path.abspath((uri or ".").removeprefix("file://"))
        above = self._root if os.path.isdir(self._root) else os.path.dirname(self._root)
        self._files = os.path.abspath(str(self.options.get("files") or os.path.join(os.path.dirname(above), "files")))
        self._parts: dict[str, list[str]] = {}
        try:
            self._multiplier = int(str(self.options.get("step_multiplier") or 1))
        except ValueError:
            message = f"step_multiplier={self.options['step_multiplier']!r} is no whole number. Give one, such as 1000."
            raise ConfigError(message) from None

    def runs(self) -> Iterator[RunInfo]:
        """Yield the runs; their parameters are the attributes that have one value."""
        if not self._parts:
            self._find()
        for origin, paths in self._parts.items():
            try:
                info = self._info(origin, paths)
            except Broken as error:
                self.notes.append(f"{origin} cannot be read: {_said(error)}")
                continue
            yield info

    def events(self, run: RunInfo) -> Iterator[Event]:
        """Yield the series of numbers, then texts, log lines and histograms, then files."""
        if not self._parts:
            self._find()
        paths = self._parts.get(run.origin, [])
        if not paths:
            return
        with connected() as connection:
            try:
                connection.execute(f"CREATE VIEW attributes AS {_selected(paths, run.origin)}")
                for read in (self._points, self._texts, self._histograms, self._artifacts):
                    yield from read(connection, run)
            except Broken as error:
                self.notes.append(f"{run.origin} cannot be read to its end: {_said(error)}")

    def _find(self) -> None:
        """Find the files, and which run each belongs to."""
        for path in self._paths():
            try:
                with connected() as connection:
                    described = connection.execute(f"DESCRIBE {_selected([path])}").fetchall()
                    if not {str(row[0]) for row in described} >= _NEEDED:
                        self.notes.append(f"{path} has not the columns of Neptune's export; left out.")
                        continue
                    connection.execute(f"CREATE VIEW attributes AS {_selected([path])}")
                    connection.execute("SELECT max(hash(attributes)) FROM attributes")  # each value is read once
                    query = "SELECT DISTINCT project_id, run_id FROM attributes ORDER BY ALL"
                    for project, run in connection.execute(query).fetchall():
                        self._parts.setdefault(f"{self.name}:{project}/{run}", []).append(path)
            except Broken as error:
                self.notes.append(f"{path} cannot be read: {_said(error)}")

    def _paths(self) -> Iterator[str]:
        """Yield the Parquet files."""
        if os.path.isfile(self._root):
            yield self._root
        elif not os.path.isdir(self._root):
            self.notes.append(f"{self._root} is no folder and no file.")
        for folder, inner, names in os.walk(self._root):
            inner.sort()
            yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(".parquet"))

    def _info(self, origin: str, paths: list[str]) -> RunInfo:
        """Return what is known of a run."""
        with connected() as connection:
            connection.execute(f"CREATE VIEW attributes AS {_selected(paths, origin)}")
            rows = connection.execute(
                f"SELECT attribute_path, attribute_type, {', '.join(_VALUES)}, epoch_us(datetime_value)"  # noqa: S608 -- ours
                f" FROM attributes WHERE attribute_type IN {_SINGLE}"
            ).fetchall()
            first, last, step, fractions, project, run = connection.execute(
                "SELECT min(epoch_us(timestamp)), max(epoch_us(timestamp)), max(step), count(*) FILTER"
                " (WHERE (step * ?)::DECIMAL(38, 6) % 1 <> 0), min(project_id), min(run_id) FROM attributes",
                [self._multiplier],
            ).fetchall()[0]
        if fractions:
            self.notes.append(
                f"{run}: {fractions} steps are no whole numbers and are cut; step_multiplier=1000 keeps three places."
            )
        single = {str(path): _single(kind, values, moment) for path, kind, *values, moment in rows}
        system = {path: single.pop(path) for path in list(single) if path.startswith("sys/")}
        started = _moment(system.get("sys/creation_time"))
        ended = last if last is not None else _moment(system.get("sys/modification_time"))
        tags = [tag for name in ("sys/tags", "sys/group_tags") for tag in _listed(system.get(name))]
        said = {name.removeprefix("sys/"): value for name, value in system.items() if name not in _TOLD}
        return RunInfo(
            uid="", project=str(self.options.get("project") or project), name=str(system.get("sys/name") or run),
            started=(first or 0) if started is None else started, ended=ended,
            status=events.FAILED if system.get("sys/failed") is True else events.COMPLETED,
            steps=0 if step is None else int(step * self._multiplier) + 1,
            notes=_optional(system.get("sys/description")), tags=tuple(dict.fromkeys(tags)),
            labels={"neptune.run": str(run)}, params=single, environment={"neptune": said} if said else {},
            origin=origin,
        )  # fmt: skip

    def _points(self, connection: Any, run: RunInfo) -> Iterator[Event]:  # noqa: ANN401 -- DuckDB's
        """Yield the series of numbers, some millions of points at a time."""
        connection.execute(
            "CREATE TABLE points AS SELECT attribute_path AS path, trunc(step * ?)::BIGINT AS step,"
            " coalesce(epoch_us(timestamp), ?) AS time, float_value AS value FROM attributes"
            " WHERE attribute_type = 'float_series' ORDER BY path, attributes.step",
            [self._multiplier, run.started],
        )
        known = connection.execute(
            "SELECT path, count(*), count(value) FROM points GROUP BY path ORDER BY path"
        ).fetchall()
        missing = 0
        for path, total, count in known:
            missing += total - count
            for at in range(0, count, _PIECE):
                held = connection.execute(
                    "SELECT step, time, value FROM points WHERE path = ? AND value IS NOT NULL LIMIT ? OFFSET ?",
                    [path, _PIECE, at],
                ).fetchnumpy()
                steps, times, values = (np.ma.getdata(held[name]) for name in ("step", "time", "value"))
                yield Points(str(path), steps, times, values)
        if missing:
            self.notes.append(f"{run.name}: {missing} points have no value; Neptune's exporter leaves NaN out.")

    def _texts(self, connection: Any, run: RunInfo) -> Iterator[Event]:  # noqa: ANN401 -- DuckDB's
        """Yield the series of texts; what the program wrote is output."""
        found = connection.execute(
            "SELECT attribute_path, trunc(coalesce(step, 0) * ?)::BIGINT, coalesce(epoch_us(timestamp), ?),"
            " string_value FROM attributes WHERE attribute_type = 'string_series' AND string_value IS NOT NULL"
            " ORDER BY attribute_path, step",
            [self._multiplier, run.started],
        )
        while rows := found.fetchmany(10_000):
            for path, step, time, body in rows:
                stream = str(path).rpartition("/")[2]
                if str(path).startswith(("monitoring/", "runtime/")) and stream in {"stdout", "stderr"}:
                    yield LogLine("line", time, body=str(body).rstrip("\n"), name=stream)
                else:
                    yield Text(str(path), step, time, str(body))

    def _histograms(self, connection: Any, run: RunInfo) -> Iterator[Event]:  # noqa: ANN401 -- DuckDB's
        """Yield the series of histograms."""
        found = connection.execute(
            "SELECT attribute_path, trunc(coalesce(step, 0) * ?)::BIGINT, coalesce(epoch_us(timestamp), ?),"
            " histogram_value.edges, histogram_value.values FROM attributes"
            " WHERE attribute_type = 'histogram_series' AND histogram_value IS NOT NULL ORDER BY attribute_path, step",
            [self._multiplier, run.started],
        )
        while rows := found.fetchmany(1000):
            for path, step, time, edges, counts in rows:
                if edges is None or counts is None or len(edges) != len(counts) + 1:
                    self.notes.append(f"{path} of step {step} is no histogram; left out.")
                    continue
                yield Histogram(str(path), step, time, tuple(map(float, edges)), tuple(map(float, counts)))

    def _artifacts(self, connection: Any, run: RunInfo) -> Iterator[Event]:  # noqa: ANN401 -- DuckDB's
        """Yield the files, each series' steps as versions."""
        rows = connection.execute(
            "SELECT attribute_path, attribute_type, trunc(step * ?)::BIGINT, coalesce(epoch_us(timestamp), ?),"
            " file_value.path FROM attributes WHERE file_value IS NOT NULL ORDER BY attribute_path, step",
            [self._multiplier, run.started],
        ).fetchall()
        for path, kind, step, time, name in rows:
            parts = self._local(str(name))
            if not parts:
                self.notes.append(f"{path}: {name!r} is no file below {self._files}; left out.")
                continue
            version = "v0" if step is None else f"step-{step}"
            yield File(str(path), str(kind), version, parts, time=time, step=step)

    def _local(self, name: str) -> tuple[Part, ...]:
        """Return the files that a row names, none from outside the folder of files."""
        try:
            top = inside(self._files, name)
        except ValueError:
            return ()
        found: list[Part] = []
        for folder, inner, names in os.walk(top) if os.path.isdir(top) else [(os.path.dirname(top), [], [name])]:
            inner.sort()
            for one in sorted(names)[: _MOST_PARTS - len(found)]:
                local = os.path.join(folder, os.path.basename(one))
                if _is_inside(local, self._files):
                    relative = os.path.relpath(local, top) if os.path.isdir(top) else os.path.basename(local)
                    found.append(Part(relative, local, os.path.getsize(local), _digest(local)))
        return tuple(found)


#: What of `sys/` has a place of its own.
_TOLD = frozenset({
    "sys/name", "sys/description", "sys/tags", "sys/group_tags", "sys/failed", "sys/creation_time",
    "sys/modification_time",
})  # fmt: skip


def _selected(paths: list[str], origin: str = "") -> str:
    """Return the query for all rows of files, of one run of them where that is told."""
    listed = ", ".join("'" + literal(path).replace("'", "''") + "'" for path in paths)
    told = origin.partition(":")[2].replace("'", "''")
    chosen = f" WHERE project_id || '/' || run_id = '{told}'" if origin else ""
    return f"SELECT * FROM read_parquet([{listed}], hive_partitioning=false, union_by_name=true){chosen}"  # noqa: S608 -- quoted


def _said(error: Exception) -> str:
    """Return the first line of what DuckDB says."""
    return str(error).partition("\n")[0]


def _single(kind: str, values: list[Any], moment: int | None) -> object:
    """Return the value of an attribute that has one."""
    whole, number, text, truth, several = values
    known = {"int": whole, "float": number, "string": text, "bool": truth, "string_set": several}
    if kind == "datetime":
        return None if moment is None else datetime.fromtimestamp(moment / 1e6, UTC).isoformat()
    return known.get(kind)


def _moment(value: object) -> int | None:
    """Return an attribute's time in microseconds."""
    return round(datetime.fromisoformat(value).timestamp() * 1e6) if isinstance(value, str) else None


def _listed(value: object) -> list[str]:
    """Return a set of texts."""
    return [str(one) for one in value] if isinstance(value, list) else []


def _optional(value: object) -> str | None:
    """Return text, or None."""
    return str(value) if value else None


def _is_inside(path: str, folder: str) -> bool:
    """Tell whether something is a file below a folder, wherever links lead."""
    real, root = os.path.realpath(path), os.path.realpath(folder)
    try:
        return os.path.commonpath([real, root]) == root and stat.S_ISREG(os.stat(real).st_mode)
    except OSError:
        return False


def _digest(path: str) -> str:
    """Return the SHA-256 of a file."""
    told = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(_READ):
            told.update(data)
    return told.hexdigest()


__all__ = ["NeptuneSource"]
