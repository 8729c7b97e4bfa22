"""A run as files that any program reads: its numbers as CSV, JSON Lines or Parquet, everything else beside them.

    <path>/<project>/<name>/points.csv        or points.jsonl, points.parquet
                            run.json          what is known of the run
                            events.jsonl      texts, log lines, histograms, spans, and what the files below are
                            media/ artifacts/ bytes, by their digest and by their names

A path that ends in `.csv`, `.jsonl` or `.parquet` is the file of the numbers itself; the rest then lies in the folder
`<path without its ending>.tracer`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from tracer import events
from tracer.backends.base import Backend, Limits, Rejected, RemoteIds
from tracer.backends.files_appending import Appending, begin_after, lines, replace_text, told
from tracer.backends.files_facts import as_json, facts, seconds
from tracer.backends.files_places import OWNER, claimed, owner_of
from tracer.backends.files_records import line_of
from tracer.transfer import KINDS, Event, File, Media, Points, RunInfo

CSV_HEADER = b"name,rank,step,time,value\n"
_QUOTED = frozenset(',"\r\n')
_DISARMED = ("=", "+", "-", "@", "\t", "\r", "'")


class _FilesBackend(Backend):
    """What the three have in common: the folder, the facts, everything that is no number.

    Args:
        options: `path`, a folder or a file; a folder of the store without it.
    """

    kinds: ClassVar[frozenset[str]] = frozenset(KINDS)
    limits: ClassVar[Limits] = Limits(batch=50_000)
    suffix: ClassVar[str]
    _folder = _path = ""

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Make the run's files, or go on with them behind the last batch that was acknowledged."""
        store = str(self.options.get("storage_path") or ".tracer")
        root = str(self.options.get("path") or os.path.join(store, self.name))
        self._run = run
        with told(root):
            kept = remote.get("folder", "")
            is_ours = bool(kept) and owner_of(kept) == run.uid
            self._folder, self._path = (kept, remote["file"]) if is_ours else self._places(root, run)
            self._events = Appending(
                os.path.join(self._folder, "events.jsonl"), os.path.join(self._folder, f"{OWNER}.events"), lines
            )
            self._begin()
            self._say()
        return {"folder": self._folder, "file": self._path}

    def write(self, events: Sequence[Event]) -> None:
        """Append a batch; what is in the files already is not written again."""
        with told(self._folder):
            others: list[bytes] = []
            for event in events:
                if isinstance(event, RunInfo):
                    self._run = event
                    self._say()
                elif not isinstance(event, Points):
                    line = self._line(event)
                    others.extend([] if line is None else [line])
            if others:
                self._events.append(others)
            points = [event for event in events if isinstance(event, Points)]
            if points:
                self._append(points)

    def close(self, status: str, ended: int | None) -> None:
        """Say how the run ended; `running` leaves it to be gone on with."""
        with told(self._folder):
            if status != events.RUNNING:
                self._run = replace(self._run, status=status, ended=ended)
            self._end()
            self._say()
            self._events.close()

    def url(self) -> str | None:
        """Return the file of the numbers."""
        return self._path or None

    def readable(self) -> str:
        """Return the file of the numbers."""
        return self._path

    def _places(self, root: str, run: RunInfo) -> tuple[str, str]:
        """Return the run's folder and the file of its numbers."""
        if not root.lower().endswith(self.suffix):
            folder = claimed(root, run)
            return folder, os.path.join(folder, f"points{self.suffix}")
        path = os.path.abspath(root)
        stem = path[: -len(self.suffix)]
        told_apart = hashlib.sha256(run.uid.encode("utf-8", "surrogatepass")).hexdigest()[:6]
        for one in (stem, f"{stem}-{told_apart}"):
            folder = f"{one}.tracer"
            owner = owner_of(folder) if os.path.isdir(folder) else None
            if owner == run.uid or (owner is None and not os.path.exists(f"{one}{self.suffix}")):
                os.makedirs(folder, exist_ok=True)
                replace_text(os.path.join(folder, OWNER), json.dumps({"run": run.uid}))
                return folder, f"{one}{self.suffix}"
        message = f"{path} holds something else; choose another path"
        raise FileExistsError(17, message)

    def _line(self, event: Event) -> bytes | None:
        """Return the line for an event; a path that would lead out of the folder is never written."""
        sources = [event.path] if isinstance(event, Media) else []
        sources += [part.local for part in event.parts] if isinstance(event, File) else []
        gone = next((one for one in sources if one is not None and not os.path.isfile(one)), None)
        if gone is not None:
            message = f"{getattr(event, 'name', '')!r} is left out: {gone} is not there any more."
            raise Rejected(message)
        try:
            return line_of(event, self._folder)
        except ValueError as error:
            message = f"{getattr(event, 'name', '')!r} is left out: {error}."
            raise Rejected(message) from error

    def _say(self) -> None:
        """Write what is known of the run."""
        said = {"format": "tracer-files", "version": 1, "points": os.path.basename(self._path), **facts(self._run)}
        replace_text(os.path.join(self._folder, "run.json"), as_json(said, indent=1) + "\n")

    def _begin(self) -> None:
        """Open the file of the numbers."""
        raise NotImplementedError

    def _append(self, points: Sequence[Points]) -> None:
        """Add numbers."""
        raise NotImplementedError

    def _end(self) -> None:
        """Close the file of the numbers."""
        raise NotImplementedError


class CsvBackend(_FilesBackend):
    """Writes `name,rank,step,time,value`, a line per point; the time in seconds since 1970."""

    name: ClassVar[str] = "csv"
    suffix: ClassVar[str] = ".csv"

    def _begin(self) -> None:
        self._points = Appending(self._path, os.path.join(self._folder, f"{OWNER}.points"), csv_records)
        if self._points.size == 0:
            self._points.append([CSV_HEADER])

    def _append(self, points: Sequence[Points]) -> None:
        self._points.append(list(csv_lines(points)))

    def _end(self) -> None:
        self._points.close()


class JsonLinesBackend(_FilesBackend):
    """Writes an object per point; NaN and the infinities are the texts `NaN`, `Infinity` and `-Infinity`."""

    name: ClassVar[str] = "jsonl"
    suffix: ClassVar[str] = ".jsonl"

    def _begin(self) -> None:
        self._points = Appending(self._path, os.path.join(self._folder, f"{OWNER}.points"), lines)

    def _append(self, points: Sequence[Points]) -> None:
        self._points.append(list(_json_lines(points)))

    def _end(self) -> None:
        self._points.close()


class ParquetBackend(_FilesBackend):
    """Writes columns `name, rank, step, time, value`; they are gathered as CSV and become Parquet at the end."""

    name: ClassVar[str] = "parquet"
    suffix: ClassVar[str] = ".parquet"

    def _begin(self) -> None:
        from tracer.backends import files_duck

        try:
            self._session = files_duck.held_sessions(self._path) + 1
        except files_duck.Broken as error:
            message = f"{self._path} is no Parquet file; choose another path"
            raise FileExistsError(17, message) from error
        spool = os.path.join(self._folder, f".points-{self._session:04d}.csv")
        self._spool, mark = spool, self._mark(self._session)
        before = os.path.join(self._folder, f".points-{self._session - 1:04d}.csv")
        if os.path.exists(before):  # killed between making the Parquet file and removing what it was made of
            self._drop(before, mark)
        self._points = Appending(spool, mark, csv_records)

    def _append(self, points: Sequence[Points]) -> None:
        records = list(csv_lines(points))
        self._points.append([CSV_HEADER, *records] if self._points.size == 0 else records)

    def _end(self) -> None:
        from tracer.backends import files_duck

        last, size = self._points.last(), self._points.size
        self._points.close()
        if size == 0 and os.path.exists(self._path):
            os.unlink(self._spool)
            return
        if size == 0:
            with open(self._spool, "wb") as file:
                file.write(CSV_HEADER)
        aside = f"{self._path}.part"
        try:
            files_duck.merged(self._spool, self._path, aside, self._session)
        except files_duck.Broken as error:
            raise OSError(5, f"DuckDB cannot make the file: {str(error).splitlines()[0]}") from error
        begin_after(self._mark(self._session + 1), last)
        os.replace(aside, self._path)
        os.unlink(self._spool)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._mark(self._session))

    def _mark(self, session: int) -> str:
        """Return where the mark of a session's lines lies."""
        return os.path.join(self._folder, f"{OWNER}.points-{session:04d}")

    def _drop(self, before: str, mark: str) -> None:
        """Remove lines that are in the Parquet file already, once it is known what the last of them were."""
        if not os.path.exists(mark):
            held = Appending(before, self._mark(self._session - 1), csv_records)
            begin_after(mark, held.last())
            held.close()
        os.unlink(before)


def csv_lines(points: Iterable[Points]) -> Iterator[bytes]:
    """Yield a line per point; a text that a spreadsheet would run begins with an apostrophe."""
    for series in points:
        begin = f"{_cell(series.name)},{series.rank},"
        columns = (series.steps.tolist(), series.times.tolist(), series.values.tolist())
        for step, time, value in zip(*columns, strict=True):
            yield f"{begin}{step},{seconds(time)},{value!r}\n".encode("utf-8", "replace")


def csv_records(data: bytes) -> Iterator[bytes]:
    """Yield the lines of CSV, those together that one quoted text holds."""
    held = b""
    for line in lines(data):
        held += line
        if held.count(b'"') % 2 == 0:
            yield held
            held = b""
    if held:
        yield held


def _json_lines(points: Iterable[Points]) -> Iterator[bytes]:
    """Yield an object per point."""
    for series in points:
        begin = f'{{"kind": "point", "name": {json.dumps(series.name)}, "rank": {series.rank}, "step": '
        columns = (series.steps.tolist(), series.times.tolist(), series.values.tolist())
        for step, time, value in zip(*columns, strict=True):
            number = repr(value) if math.isfinite(value) else as_json(value)
            yield f'{begin}{step}, "time": {seconds(time)}, "value": {number}}}\n'.encode()


def _cell(text: str) -> str:
    """Return text as a cell."""
    text = f"'{text}" if text.startswith(_DISARMED) else text
    return '"' + text.replace('"', '""') + '"' if _QUOTED & set(text) or text.strip() != text or not text else text


__all__ = ["CsvBackend", "JsonLinesBackend", "ParquetBackend"]
