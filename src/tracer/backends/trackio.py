"""A run to a trackio project on this machine: its metrics, configuration, media, alerts and artifacts."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import ClassVar

from tracer import transfer
from tracer.backends.base import Backend, Limits, Refused, Rejected, RemoteIds, Unreachable
from tracer.backends.names import NameMap
from tracer.backends.trackio_process import Trackio
from tracer.backends.trackio_values import config_of, default_folder, histogram_of, name_of, plain, table_of, text_of
from tracer.transfer import Event, File, Histogram, LogLine, Media, Points, RunInfo, Text

_SUFFIX = re.compile(r"\.\w{1,16}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Our kinds of media that trackio shows; a table becomes one of its own values, the rest is left out.
SHOWN = frozenset({"image", "video", "audio", "html", "mesh"})
#: Levels of ours that are alerts there.
_ALERTS = {"WARNING": "warn", "WARN": "warn", "ERROR": "error", "CRITICAL": "error", "FATAL": "error"}
#: Keys of a row that trackio keeps to itself.
_KEPT = r"project|run|timestamp|step|time|metrics|__.*"
#: Names of projects that would share a file with another's exports.
_SIDECARS = (
    r"(?i)registry-.*|.*_(system|configs|traces|artifacts|artifact_versions|artifact_aliases|.*run_artifact_links)"
)


class TrackioBackend(Backend):
    """One run in one trackio project.

    Options: `dir`, the folder of its databases (`TRACKIO_DIR`, else trackio's own); `project_name`, `run_name`.
    """

    name: ClassVar[str] = "trackio"
    kinds: ClassVar[frozenset[str]] = frozenset({
        transfer.POINTS, transfer.LAYER, transfer.TEXT, transfer.LOG, transfer.MEDIA, transfer.HISTOGRAM,
        transfer.FILE, transfer.FACTS,
    })  # fmt: skip
    limits: ClassVar[Limits] = Limits(
        batch=5000,
        repeatable=True,
        losses={
            "NaN and ±Inf": 'trackio keeps them as the texts "NaN" and "Infinity"; its API and an import read numbers',
            "equal values of one step and time": "kept once",
            "lines of output": "warnings, errors and named events are alerts; other lines are not sent",
            "status, tags, notes, summary": "in the configuration, under `_Tracer`",
            "media that trackio does not show": "not sent; tables, images, video, audio, HTML and meshes are",
            "spans": "not sent",
        },
    )

    def __init__(self, options: Mapping[str, object]) -> None:
        super().__init__(options)
        self._folder = str(options.get("dir") or options.get("url") or "").removeprefix("file://")
        self._names = NameMap(r"[^\x00-\x1f\ud800-\udfff]", 4096, _KEPT)
        self._artifacts = NameMap(r"[A-Za-z0-9._-]", 128, r"\.+")
        self._remote: dict[str, str] = {}
        self._run = RunInfo("", "", "", started=0)
        self._process: Trackio | None = None

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Begin the run, or go on with it: its id there is ours."""
        self._run = run
        # Projects whose names differ in characters that trackio leaves out would be one database.
        projects, runs = (
            NameMap(r"[A-Za-z0-9_-]", 100, _SIDECARS),
            NameMap(r"[^/\\\x00-\x1f\ud800-\udfff]", 120, r"\.+"),
        )
        project = str(self.options.get("project_name") or run.project or "default")
        name = str(self.options.get("run_name") or run.name or run.uid)
        self._remote = {"run": f"{projects.sent(project)}/{run.uid}", "name": runs.sent(name), **remote}
        self._tell()
        return dict(self._remote)

    def write(self, events: Sequence[Event]) -> None:
        """Commit a batch; values that are there already stay as they are."""
        refused: list[str] = []
        lost = 0
        for size, part in self._parts(events):
            try:
                part()
            except Rejected as error:
                refused.append(str(error))
                lost += size
        if refused:
            raise Rejected(" ".join(refused), lost)

    def close(self, status: str, ended: int | None) -> None:
        """Say how the run ended, and let trackio go."""
        self._run = replace(self._run, status=status, ended=ended)
        try:
            self._tell()
        finally:
            process, self._process = self._process, None
            if process is not None:
                process.end()

    def readable(self) -> str:
        """Return the database that a source reads."""
        folder = self._folder or os.environ.get("TRACKIO_DIR") or default_folder()
        return os.path.join(os.path.abspath(folder), f"{self._remote.get('run', '').partition('/')[0]}.db")

    def renamed(self) -> Mapping[str, str]:
        """Return our names that trackio would not take, and what they are there."""
        return {**self._names.changed, **self._artifacts.changed}

    def _sent(self, name: str, rank: int) -> str:
        return self._names.sent(name_of(name, rank))

    def _parts(self, events: Sequence[Event]) -> Iterator[tuple[int, Callable[[], object]]]:
        """Yield what there is to do for a batch, in parts that are taken or rejected each by itself, and their size."""
        series = [event for event in events if isinstance(event, Points)]
        if rows := [
            (step, when(time), {self._sent(name, rank): plain(value) for name, value in values.items()})
            for step, time, rank, values in transfer.rows(series)
        ]:
            yield sum(len(event) for event in series), partial(self._ask, "rows", rows=rows)
        lines = [event for event in events if isinstance(event, LogLine)]
        if alerts := [alert for line in lines for alert in _alerts(line, self._run.uid)]:
            yield len(lines), partial(self._ask, "alerts", alerts=alerts)
        for event in events:
            if isinstance(event, (Text, Histogram, Media)):
                yield 1, partial(self._said, event)
            elif isinstance(event, File) and event.parts:
                yield 1, partial(self._artifact, event)
        if known := [event for event in events if isinstance(event, RunInfo)]:
            self._run = known[-1]
            yield 0, self._tell

    def _said(self, event: Text | Histogram | Media) -> None:
        """Keep what is no number, in a row of its own."""
        value = self._value(event)
        if value is not None:
            self._ask("rows", rows=[(event.step, when(event.time), {self._sent(event.name, event.rank): value})])

    def _value(self, event: Text | Histogram | Media) -> object:
        """Return what stands in a row for what is no number; None where trackio has no place for it."""
        if isinstance(event, Text):
            return text_of(event.body)
        if isinstance(event, Histogram):
            return histogram_of(event)
        if event.kind == "text":
            return text_of(_content(event).decode("utf-8", "replace"))
        if event.kind == "table":
            return table_of(_content(event))
        return self._medium(event) if event.kind in SHOWN else None

    def _medium(self, event: Media) -> object:
        """Have trackio keep the bytes of something to look at."""
        data = _content(event)
        with tempfile.NamedTemporaryFile(suffix=event.suffix if _SUFFIX.fullmatch(event.suffix) else "") as file:
            file.write(data)
            file.flush()
            told = {"step": event.step, "caption": event.caption, "digest": hashlib.sha256(data).hexdigest()[:32]}
            return self._ask("media", kind=event.kind, local=file.name, **told)

    def _artifact(self, event: File) -> None:
        known = {"tracer": {"name": event.name, "version": event.version, "step": event.step, "time": event.time}}
        self._ask(
            "artifact",
            name=self._artifacts.sent(event.name),
            kind=event.type or "unspecified",
            parts=[[part.path, os.path.abspath(part.local)] for part in event.parts],
            metadata={**_dict(plain(event.metadata)), **known},
            aliases=[self._artifacts.sent(f"{event.version}")] if not event.version.startswith("v") else [],
        )

    def _tell(self) -> None:
        """Keep the configuration, and what else is known of the run."""
        config = config_of(self._run, {told: name for name, told in self._names.changed.items()})
        self._ask("config", started=when(self._run.started), config=config)

    def _ask(self, do: str, **arguments: object) -> object:
        """Ask the process that holds trackio; one that failed is started anew."""
        if self._process is None:
            self._process = Trackio(self._folder)
            project, _, run = self._remote["run"].partition("/")
            try:
                self._guarded("open", project=project, name=self._remote["name"], run=run)
            except (Rejected, Refused):  # the project's name, or the package: a process without a run is of no use
                self._process.end()
                self._process = None
                raise
        return self._guarded(do, **arguments)

    def _guarded(self, do: str, **arguments: object) -> object:
        process = self._process
        if process is None:
            message = "trackio's writer has ended."
            raise Unreachable(message)
        try:
            return process.ask(do, **arguments)
        except Unreachable:
            self._process = None
            process.end(wait=False)
            raise


def when(time: int) -> str:
    """Return one of our times as trackio writes it, to the microsecond.

    Example:
        >>> when(1_500_000)
        '1970-01-01T00:00:01.500000+00:00'
    """
    return (_EPOCH + timedelta(microseconds=time)).isoformat(timespec="microseconds")


def _alerts(line: LogLine, run: str) -> list[dict[str, object]]:
    """Return the alert that a line is, if it is one."""
    level = _ALERTS.get((line.level or "").upper())
    if level is None and line.name is None:
        return []
    body = line.body if line.name is None else (line.body or str(plain(line.fields) or ""))
    title = line.name or (line.body or "").partition("\n")[0][:120]
    told = f"{run}\n{line.time}\n{line.rank}\n{title}\n{body}".encode("utf-8", "replace")
    return [
        {
            "titles": title or "(empty)",
            "texts": body,
            "levels": level or "info",
            "steps": line.step,
            "timestamps": when(line.time),
            "alert_ids": hashlib.sha256(told).hexdigest()[:32],
        }
    ]


def _content(event: Media) -> bytes:
    """Return the bytes of something to look at."""
    if event.data is not None:
        return event.data
    try:
        with open(event.path or "", "rb") as file:
            return file.read()
    except OSError as error:
        message = f"The file of {event.name!r} at step {event.step} cannot be read: {error.strerror}."
        raise Rejected(message) from None


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}
