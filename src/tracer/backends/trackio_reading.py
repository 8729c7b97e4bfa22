"""Runs out of trackio: its databases, or the Parquet files that it exports."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from tracer import events
from tracer.backends.base import Source
from tracer.backends.trackio_kinds import named, number, other, when
from tracer.backends.trackio_tables import Database, Exported, Tables, Values
from tracer.backends.trackio_values import OURS, default_folder
from tracer.errors import ConfigError
from tracer.transfer import Event, File, LogLine, Part, Points, RunInfo

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SIDECAR = re.compile(r".*_(system|configs|traces|artifacts|artifact_\w+|\w*run_artifact_links)")


class TrackioSource(Source):
    """Runs of trackio's folder, of one database, or of one Parquet file.

    An empty address is the folder that trackio itself would use. The option `project` takes one project only, and
    `files_only` leaves out all events but artifacts.
    """

    name: ClassVar[str] = "trackio"

    def __init__(self, uri: str, options: Mapping[str, object] | None = None) -> None:
        super().__init__(uri, options)
        self._places: dict[str, tuple[Tables, str]] = {}
        self._names: dict[str, Mapping[str, object] | None] = {}

    def runs(self) -> Iterator[RunInfo]:
        """Yield the runs, project by project, the first to begin first."""
        for path in self._paths():
            try:
                tables: Tables = Exported(path) if path.suffix == ".parquet" else Database(path)
                found = tables.runs()
                for run, name, first, last in found:
                    yield self._info(tables, run, name, first, last)
            except (sqlite3.Error, OSError, ValueError) as error:
                self.notes.append(f"{path.name} was left out: {error}.")
            except _duckdb_error() as error:
                self.notes.append(f"{path.name} was left out: {str(error).splitlines()[0]}")

    def events(self, run: RunInfo) -> Iterator[Event]:
        """Yield what happened in a run: numbers first, series by series, files last."""
        tables, known = self._places[run.origin]
        try:
            yield from self._events(tables, known, self._names.get(run.origin))
        except (sqlite3.Error, OSError, _duckdb_error()) as error:
            self.notes.append(f"{run.origin} was read in part: {str(error).partition(chr(10))[0]}.")

    def _events(self, tables: Tables, known: str, names: Mapping[str, object] | None) -> Iterator[Event]:
        """Yield what happened in a run, as far as its file can be read."""
        if not self.options.get("files_only"):
            yield from self._other_events(tables, known, names)
        for row in tables.artifacts(known):
            yield from self._artifact(tables, *row)

    def _other_events(self, tables: Tables, known: str, names: Mapping[str, object] | None) -> Iterator[Event]:
        """Yield what is no file."""
        damaged = tables.damaged
        yield from self._points(tables, known, names)
        if tables.damaged > damaged:
            self.notes.append(f"{tables.damaged - damaged} damaged rows of {tables.project}/{known} were left out.")
        for time, step, values in tables.rows("metrics", known):
            for name, value in values.items():
                try:
                    found = other(tables.folder / "media", named(name, names), (step or 0, when(time)), value)
                except ValueError as error:
                    self.notes.append(f"{name!r} at step {step} was left out: {error}.")
                    continue
                if found is not None:
                    yield found
        for at, place, title, text, level in tables.alerts(known):
            yield LogLine("event", when(at), text, str(title), str(level).upper(), place)

    def _paths(self) -> list[Path]:
        """Return the databases; a project that has none, its Parquet file."""
        told = self.uri.removeprefix("file://") or os.environ.get("TRACKIO_DIR") or default_folder()
        place = Path(told).expanduser()
        if place.is_file():
            return [place]
        if not place.is_dir():
            message = f"There is no folder or file {told!r} of trackio. Name its folder, a .db or a .parquet file."
            raise ConfigError(message)
        databases = {path.stem: path for path in sorted(place.glob("*.db"))}
        exports = {path.stem: path for path in sorted(place.glob("*.parquet")) if not _SIDECAR.fullmatch(path.stem)}
        wanted = self.options.get("project")
        found = [path for stem, path in (exports | databases).items() if wanted in {None, "", stem}]
        return sorted(found)

    def _info(self, tables: Tables, run: str, name: str, first: str, last: str) -> RunInfo:
        """Return what is known of a run: what we put there ourselves, if it was one of ours."""
        config: Values = next((values for _, _, values in tables.rows("configs", run)), {})
        ours = config.get(OURS)
        told: Mapping[str, object] = ours if isinstance(ours, dict) else {}
        origin = f"trackio:{tables.project}/{run}"
        self._places[origin] = (tables, run)
        names = told.get("names")
        self._names[origin] = (names if isinstance(names, dict) else {}) if told else None
        created = config.get("_Created")
        started, ended = _whole(told.get("started")), _whole(told.get("ended"))
        tags = told.get("tags")
        return RunInfo(
            uid="",
            project=str(told.get("project") or tables.project),
            name=str(told.get("name") or name),
            started=started if started is not None else when(str(created or first)),
            status=str(told["status"]) if told.get("status") in events.STATUSES else events.COMPLETED,
            ended=ended if ended is not None else when(last),
            steps=_whole(told.get("steps")) or 0,
            group=_text(config.get("_Group")),
            job_type=_text(told.get("job_type")),
            notes=_text(told.get("notes")),
            tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
            labels={key: str(value) for key, value in _dict(told.get("labels")).items()},
            params={_param(key): number(value) for key, value in config.items() if not _is_reserved(key)},
            summary={key: number(value) for key, value in _dict(told.get("summary")).items()},
            environment=_dict(told.get("environment")),
            git=_dict(told.get("git")),
            origin=origin,
        )

    def _points(self, tables: Tables, run: str, names: Mapping[str, object] | None) -> Iterator[Points]:
        """Yield every number of a run."""
        import numpy as np

        found: dict[tuple[str, int], tuple[array[int], array[int], array[float]]] = {}

        def add(key: tuple[str, int], step: int | None, time: int, value: object) -> None:
            told = number(value)
            if isinstance(told, (int, float)):
                steps, times, values = found.setdefault(key, (array("q"), array("q"), array("d")))
                steps.append(len(steps) if step is None else step)
                times.append(time)
                values.append(float(told))

        for at, step, row in tables.rows("metrics", run):
            for name, value in row.items():
                add(named(name, names), step or 0, when(at), value)
        for at, _, row in tables.rows("system_metrics", run):
            for name, value in row.items():
                add((f"system/{name.removeprefix('system/')}", 0), None, when(at), value)
        for (name, rank), (steps, times, values) in found.items():
            told = np.frombuffer(steps, np.int64), np.frombuffer(times, np.int64), np.frombuffer(values, np.float64)
            yield Points(name, *told, rank=rank)

    def _artifact(
        self, tables: Tables, name: str, kind: str, version: int, manifest: str, metadata: str | None, time: str
    ) -> Iterator[File]:
        """Yield a version of an artifact, unless one of its files is gone or stands where none may."""
        try:
            told, more = json.loads(manifest), _dict(json.loads(metadata or "{}"))
            parts = tuple(self._part(tables, entry) for entry in told)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self.notes.append(f"Artifact {name}:v{version} was left out: its files are not all there.")
            return
        ours = _dict(more.pop("tracer", None))
        known = str(ours.get("name") or name), str(ours.get("version") or f"v{version}")
        at = _whole(ours.get("time"))
        yield File(
            known[0], kind, known[1], parts, when(time) if at is None else at, _whole(ours.get("step")), (), more
        )

    def _part(self, tables: Tables, entry: Mapping[str, object]) -> Part:
        path, digest = str(entry["path"]), str(entry["digest"])
        local = tables.folder / "artifacts" / tables.project / "blobs" / "sha256" / digest[:2] / digest
        if not _DIGEST.fullmatch(digest) or not local.is_file() or local.is_symlink() or not _is_relative(path):
            raise ValueError(path)
        return Part(path, str(local), local.stat().st_size, digest)


def _is_relative(path: str) -> bool:
    return bool(path) and not path.startswith("/") and "\\" not in path and ".." not in path.split("/")


def _is_reserved(key: str) -> bool:
    return key in {OURS, "_Username", "_Created", "_Group"}


def _param(key: str) -> str:
    return f"_{key[5:]}" if key.startswith("_x5f_") else key


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) and value == value and abs(value) < 2**63 else None  # noqa: PLR0124


def _duckdb_error() -> type[Exception]:
    import duckdb

    return duckdb.Error
