"""Runs out of CSV, JSON Lines and Parquet: what Tracer writes comes back as it was, other tables are looked at.

A file is a run, or as many as its column of runs names; a folder is as many as it holds files.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tracer import events
from tracer.backends.base import Source
from tracer.backends.files_facts import told
from tracer.backends.files_records import event_of
from tracer.errors import ConfigError
from tracer.transfer import Event, Points, RunInfo, Text

_DEEPEST, _LARGEST_FACTS, _LONGEST_LINE = 64, 64 << 20, 64 << 20
_BROKEN = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


@dataclass(slots=True)
class _File:
    """A file of values, and the folder with the rest where the file is one of ours."""

    path: str
    folder: str | None = None
    facts: dict[str, object] = field(default_factory=dict)


class _FilesSource(Source):
    """Runs of files.

    Args:
        uri: A file or a folder.
        options: `project`; and which columns are what where that is not to be guessed: `step`, `time`, `name`, `value`,
            `run`, `rank`.
    """

    suffixes: ClassVar[tuple[str, ...]]

    def __init__(self, uri: str, options: Mapping[str, object] | None = None) -> None:
        super().__init__(uri, options)
        self._root = os.path.abspath((uri or ".").removeprefix("file://"))
        self._table: _Table | None = None
        self._runs: dict[str, tuple[_File, str]] = {}

    def runs(self) -> Iterator[RunInfo]:
        """Yield the runs; a file is read when it is its turn, and held until the next one."""
        for file in self._files():
            table = self._opened(file)
            if table is None:
                continue
            for key, info in table.runs():
                origin = f"{self.name}:{file.path}{f'#{key}' if key else ''}"
                known = self._described(file, info, origin)
                self._runs[origin] = (file, key)
                yield known
        self.close()

    def events(self, run: RunInfo) -> Iterator[Event]:
        """Yield the numbers of a run, its texts, then what lies beside the file."""
        if run.origin not in self._runs:
            for _ in self.runs():
                pass
        if run.origin not in self._runs:
            return
        file, key = self._runs[run.origin]
        table = self._opened(file)
        if table is not None:
            yield from table.points(key)
            yield from table.texts(key)
        if file.folder is not None:
            yield from self._beside(file.folder)

    def _open(self, path: str, started: int) -> _Table:
        """Read one file."""
        raise NotImplementedError

    def _opened(self, file: _File) -> _Table | None:
        """Return the table of a file, the one that is held or a new one; what cannot be read is noted."""
        if self._table is not None and self._table.path == file.path:
            return self._table
        self.close()
        try:
            started = int(os.stat(file.path).st_mtime) * 1_000_000
            self._table = self._open(file.path, started)
        except OSError as error:
            self.notes.append(f"{file.path} cannot be read: {error.strerror or error}.")
        except ConfigError:
            raise
        except ValueError as error:
            reason = str(error).partition("\n")[0]
            self.notes.append(f"{file.path} cannot be read: {reason}")
        if self._table is not None:
            self.notes.extend(self._table.notes)
        return self._table

    def close(self) -> None:
        """Let go of the table that is held."""
        if self._table is not None:
            self._table.close()
            self._table = None

    def _files(self) -> Iterator[_File]:
        """Yield the files of values."""
        if os.path.isfile(self._root):
            yield self._file(self._root)
            return
        if not os.path.isdir(self._root):
            self.notes.append(f"{self._root} is no folder and no file.")
            return
        for folder, inside, names in os.walk(self._root):
            inside[:] = sorted(one for one in inside if not one.startswith(".") and not one.endswith(".tracer"))
            if folder.count(os.sep) - self._root.count(os.sep) > _DEEPEST:
                inside.clear()
                self.notes.append(f"{folder} lies more than {_DEEPEST} folders deep; it is left out.")
            said = _facts(folder) if "run.json" in names else {}
            if said:
                inside.clear()
            chosen = [name for name in names if name == said.get("points")] if said else names
            for name in sorted(chosen):
                path = os.path.join(folder, name)
                if name.lower().endswith(self.suffixes) and not name.startswith(".") and os.path.isfile(path):
                    yield self._file(path)

    def _file(self, path: str) -> _File:
        """Return a file with what lies beside it."""
        for folder in (os.path.dirname(path), f"{os.path.splitext(path)[0]}.tracer"):
            said = _facts(folder)
            if said.get("points") == os.path.basename(path):
                return _File(path, folder, said)
        return _File(path)

    def _described(self, file: _File, info: RunInfo, origin: str) -> RunInfo:
        """Return what is known of a run."""
        relative = os.path.splitext(os.path.relpath(file.path, self._root))[0]
        stem = os.path.splitext(os.path.basename(file.path))[0]
        above = self._root if os.path.isdir(self._root) else os.path.dirname(self._root)
        project = self.options.get("project")
        described = RunInfo(
            uid="", project=str(project or info.project or os.path.basename(above) or "default"),
            name=info.name or (stem if relative == "." else relative), started=info.started, ended=info.ended,
            status=events.COMPLETED, steps=info.steps, tags=info.tags, notes=info.notes, group=info.group,
            job_type=info.job_type, params=info.params, environment=info.environment, git=info.git, origin=origin,
        )  # fmt: skip
        return (
            told(described, file.facts)
            if file.facts
            else told(described, {"status": info.status})
            if info.uid
            else described
        )

    def _beside(self, folder: str) -> Iterator[Event]:
        """Yield what `events.jsonl` lists; artifacts come last, and what cannot be read is noted."""
        bad, later = 0, []
        try:
            with open(os.path.join(folder, "events.jsonl"), encoding="utf-8", errors="replace") as lines:
                while line := lines.readline(_LONGEST_LINE):
                    event = None
                    with contextlib.suppress(*_BROKEN):
                        event = event_of(json.loads(line), folder)
                    if event is None:
                        bad += 1
                    elif event.KIND == "file":
                        later.append(event)
                    else:
                        yield event
        except OSError as error:
            self.notes.append(f"{folder}/events.jsonl cannot be read: {error.strerror or error}.")
        if bad:
            self.notes.append(f"{folder}/events.jsonl: {bad} lines cannot be read or name files that are not there.")
        yield from later


class _Table:
    """The values of one file: what a source asks for."""

    path: str
    notes: list[str]

    def runs(self) -> Iterator[tuple[str, RunInfo]]:
        """Yield the runs by their keys."""
        raise NotImplementedError

    def points(self, key: str) -> Iterator[Points]:
        """Yield the numbers of a run."""
        raise NotImplementedError

    def texts(self, key: str) -> Iterator[Text]:
        """Yield the texts of a run."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the file."""


class _DuckTable(_Table):
    """A file that DuckDB reads."""

    def __init__(self, path: str, kind: str, options: Mapping[str, object], started: int) -> None:
        from tracer.backends import files_duck

        self.path, self._started = path, started
        try:
            self._held = files_duck.Table(path, kind, options, started)
        except files_duck.Broken as error:
            raise ValueError(str(error)) from error
        self.notes = self._held.notes

    def runs(self) -> Iterator[tuple[str, RunInfo]]:
        found = self._held.runs()
        for one in found:
            yield (
                one.key,
                RunInfo("", one.project or "", one.name or (one.key if len(found) > 1 else ""),
                        self._started if one.first is None else one.first, ended=one.last, steps=one.steps),
            )  # fmt: skip

    def points(self, key: str) -> Iterator[Points]:
        return self._held.points(key)

    def texts(self, key: str) -> Iterator[Text]:
        return self._held.texts(key)

    def close(self) -> None:
        self._held.close()


class _LineTable(_Table):
    """A file of JSON."""

    def __init__(self, path: str, options: Mapping[str, object], started: int) -> None:
        from tracer.backends.files_lines import LineTable

        self.path, self._started = path, started
        self._held = LineTable(path, options, started)
        self.notes = self._held.notes

    def runs(self) -> Iterator[tuple[str, RunInfo]]:
        for key, run in self._held.runs.items():
            first = self._started if run.first is None else run.first
            name = key if len(self._held.runs) > 1 else ""
            yield (
                key,
                told(RunInfo(key, "", name, first, ended=run.last, steps=run.steps), run.facts)
                if run.facts
                else RunInfo("", "", name, first, ended=run.last, steps=run.steps),
            )

    def points(self, key: str) -> Iterator[Points]:
        return self._held.runs[key].points()

    def texts(self, key: str) -> Iterator[Text]:
        return iter(self._held.runs[key].texts)


class CsvSource(_FilesSource):
    """Runs of files of comma- or tab-separated values, one of ours, one of TensorBoard's download, or anyone's."""

    name: ClassVar[str] = "csv"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")

    def _open(self, path: str, started: int) -> _Table:
        return _DuckTable(path, "csv", self.options, started)


class JsonLinesSource(_FilesSource):
    """Runs of files with an object per line, or of a document of `tracer export`."""

    name: ClassVar[str] = "jsonl"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")

    def _open(self, path: str, started: int) -> _Table:
        return _LineTable(path, self.options, started)


class ParquetSource(_FilesSource):
    """Runs of Parquet files."""

    name: ClassVar[str] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def _open(self, path: str, started: int) -> _Table:
        return _DuckTable(path, "parquet", self.options, started)


def _facts(folder: str) -> dict[str, object]:
    """Return what `run.json` of ours says in a folder; nothing where there is none."""
    with (
        contextlib.suppress(OSError, ValueError, RecursionError),
        open(os.path.join(folder, "run.json"), encoding="utf-8") as file,
    ):
        found = json.loads(file.read(_LARGEST_FACTS))
        if isinstance(found, dict) and found.get("format") == "tracer-files":
            return found
    return {}


__all__ = ["CsvSource", "JsonLinesSource", "ParquetSource"]
