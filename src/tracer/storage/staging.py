"""A run that comes from elsewhere, gathered in a hidden folder beside the others until it is whole.

    runs/.import-<run>-<random>/     being gathered; whoever gathers it holds its lock, and what nobody holds is removed

Points and rows become files as a fold writes them; artifacts and media are kept as every run keeps them. What a
foreign store says of paths is believed nowhere: what leads out of a folder is left out, with a line in the run's log.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sized
from dataclasses import asdict
from typing import Any

import numpy as np

from tracer import clock, events, transfer
from tracer.errors import StoreError
from tracer.storage import foreign
from tracer.storage.artifact_contents import Cellar
from tracer.storage.artifact_names import checked_entry, checked_name
from tracer.storage.artifact_records import FILE, INPUT, OUTPUT, TREE, Entry, Record, list_of_files
from tracer.storage.axes import settle_axes
from tracer.storage.columns import Columns, HistogramRecord, Rows
from tracer.storage.fold import BATCH_POINTS, write_files
from tracer.storage.histogram_rows import rows_of
from tracer.storage.log_rows import LogRow
from tracer.storage.media import payload_of
from tracer.storage.names import clean_text
from tracer.storage.outgoing import USED
from tracer.storage.points import arrange
from tracer.storage.segments import Footer
from tracer.transfer import File, Histogram, LogLine, Media, Part, Points, RunInfo, Span, Text

HIDDEN = ".import-"
#: Whose artifacts these are: those that a later import may replace.
ORIGIN = "import"
_MOST_ROWS = 200_000
#: Texts up to here may stand in the record; larger files of media are copied, not read.
_INLINE = 4096
_SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,12}){0,2}")
_VERSION = re.compile(r"v?(\d{1,9})")
_WORDS = 2**256
_LAST_RANK = 2**15 - 1


class Staging:
    """One run, while it comes in.

    Args:
        base: The store's folder.
        uid: The run's id here.
        name: The name of the run's folder.
    """

    def __init__(self, base: str, uid: str, name: str) -> None:
        self.folder = os.path.join(base, "runs", f"{HIDDEN}{name}-{os.urandom(6).hex()}")
        os.makedirs(self.folder)
        self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._uid, self._cellar = uid, Cellar(self.folder)
        self._columns, self._logs = Columns(), list[LogRow]()
        self._axes: dict[str, dict[str, Any]] = {}
        self._arrived, self._order, self._print = 0, 0, 0
        self.points = 0
        self.last_step, self.ranks = 0, 1
        self.files: list[str] = []
        self.records: list[Record] = []
        self.contents: list[str] = []
        self.info: RunInfo | None = None
        self.notes: list[str] = []

    @property
    def content(self) -> str:
        """What tells whether anything but points is different: a sum over all events, in whatever order they came."""
        return f"{self._print:064x}"

    def add(self, event: transfer.Event) -> None:
        """Take one event in; statistics of layers, which come as metrics, are kept as such.

        Raises:
            StoreError: The disk does not take it.
        """
        if isinstance(event, Points):
            self._points(event)
        elif isinstance(event, Text):
            self._row(event.time, event.step, event.rank, "text", name=event.name, body=event.body)
        elif isinstance(event, LogLine):
            self._line(event)
        elif isinstance(event, Media):
            self._media(event)
        elif isinstance(event, Histogram):
            self._histogram(event)
        elif isinstance(event, File):
            self._file(event)
        elif isinstance(event, Span):
            said = asdict(event)
            self._row(event.started, event.step or 0, event.rank, "event", name="span", body=event.name, fields=said)
        else:
            self.info = event
        if self._columns.points >= BATCH_POINTS or len(self._logs) + len(self._columns.histograms) >= _MOST_ROWS:
            self.flush()

    def add_rows(self, rows: list[LogRow]) -> None:
        """Keep rows of the family `logs` as they are."""
        self._logs += rows

    def flush(self) -> None:
        """Write what has come, as one fold."""
        columns, self._columns = self._columns, Columns()
        logs, self._logs = sorted(self._logs, key=lambda row: row.time), []
        axes = settle_axes(columns.histograms)
        self._axes |= axes
        contents: dict[str, Sized] = {
            "logs": logs,
            "histograms": rows_of(columns.histograms),
            "points": arrange(columns),
        }
        if not any(len(content) for content in contents.values()):
            return
        self._order += 1
        footer = Footer(self._uid, "", 0, (self._order, self._order), {}, axes=axes)
        written = write_files(self.folder, footer, contents)
        self.files += [file.path for file in written if file.footer.family == "points"]

    def discard(self) -> None:
        """Remove what was gathered, unless it was moved to its place; let go of the lock."""
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            os.close(self._lock)

    def refuse(self, why: str, time: int) -> None:
        """Note that something was left out."""
        self.notes.append(why)
        self._row(time, 0, 0, "event", level="warning", name="import", body=why)

    def _points(self, event: Points) -> None:
        """Keep a piece of a series."""
        count = len(event)
        if not count:
            return
        steps, times = np.asarray(event.steps, np.int64), np.asarray(event.times, np.int64)
        values = np.asarray(event.values, np.float64).reshape(-1, 1)
        arrival = np.arange(self._arrived, self._arrived + count, dtype=np.int64)
        rows = Rows((clean_text(event.name),), self._seen(event.rank), 0, steps, times, values, arrival)
        self._columns.rows.append(rows)
        self._columns.points += count
        self._arrived += count
        self.points += count
        self.last_step = max(self.last_step, int(steps.max()))

    def _row(
        self, time: int, step: int, rank: int, kind: str, *, level: str | None = None, name: str | None = None,
        body: str | None = None, fields: Mapping[str, object] | None = None,
    ) -> None:  # fmt: skip
        """Keep a row of the family `logs`."""
        said = json.dumps(fields, separators=(",", ":"), default=str) if fields else None
        level, name, body = (None if one is None else clean_text(str(one)) for one in (level, name, body))
        row = LogRow(foreign.whole(time), foreign.whole(step), self._seen(rank), kind, level, name, body, said)
        self._logs.append(row)
        self._sum(tuple(row))

    def _line(self, event: LogLine) -> None:
        """Keep a line, a record of logging or an event."""
        kind = event.kind if event.kind in ("line", "log", "event") else "event"
        self._row(
            event.time, event.step or 0, event.rank, kind, level=event.level, name=event.name, body=event.body,
            fields=event.fields,
        )  # fmt: skip

    def _media(self, event: Media) -> None:
        """Keep a piece of media: its bytes first, then the row that names them."""
        suffix = event.suffix if _SUFFIX.fullmatch(event.suffix) else ""
        size, data = 0, event.data
        if data is None and event.path is not None:
            try:
                size = foreign.plain_size(event.path)
                if size <= _INLINE:
                    with open(event.path, "rb") as file:
                        data = file.read()
            except (OSError, ValueError) as error:
                self.refuse(
                    f"The file of {event.kind} {event.name!r} is left out: {foreign.reason(error)}.", event.time
                )
                return
        said = payload_of(
            events.Media(
                event.name, event.kind, data=data, suffix=suffix, caption=event.caption, fields=event.fields,
                origin=ORIGIN,
            ),
            self._kept_bytes,
        )  # fmt: skip
        if data is None and event.path is not None:
            digest, size = self._cellar.keep_file(event.path)
            self.contents.append(digest)
            said |= {"bytes": size, "suffix": suffix, "digest": digest}
        shown = said["caption"] if said.get("text") is None else said["text"]
        body = None if shown is None else str(shown)
        self._row(event.time, event.step, event.rank, "media", name=event.name, body=body, fields=said)

    def _histogram(self, event: Histogram) -> None:
        """Keep a histogram: as one of a layer where its edges are powers of two, else as it was given."""
        what, _, layer = event.name.partition("/")
        found = foreign.by_powers(event) if layer else None
        if found is None:
            fields = {"limits": list(event.edges), "counts": list(event.counts)}
            self._media(Media(event.name, "histogram", event.step, event.time, fields=fields, rank=event.rank))
            return
        axis = {"what": clean_text(what), "layers": [clean_text(layer)], "statistics": ["histogram"], "shapes": []}
        lowest, counts = found
        self._arrived += 1
        self._columns.histograms.append(
            HistogramRecord(
                axis,
                self._seen(event.rank),
                foreign.whole(event.step),
                foreign.whole(event.time),
                lowest,
                counts,
                self._arrived,
            )
        )
        self._sum(("histogram", event.name, event.rank, event.step, event.time, lowest, counts.tolist()))

    def _file(self, event: File) -> None:
        """Keep an artifact; its number is taken when the run is complete."""
        try:
            name = checked_name(re.sub(r"[:\x00-\x1f\x7f]", "_", event.name).strip()[:250])
        except ValueError as error:
            self.refuse(f"An artifact is left out: {error}", event.time)
            return
        entries: dict[str, Entry] = {}
        for part in event.parts:
            entry = self._part(name, part, event.time)
            if entry is not None:
                entries.setdefault(entry.path, entry)
        metadata = {str(key): value for key, value in event.metadata.items() if key != USED}
        kept = list(entries.values())
        is_file = len(kept) == 1 and "/" not in kept[0].path
        digest = kept[0].digest if is_file else self._kept_bytes(list_of_files(kept)) if kept else None
        version = _VERSION.fullmatch(event.version)
        record = Record(
            project="", name=name, version=int(version[1]) if version else -1, type=clean_text(event.type) or "file",
            direction=INPUT if event.metadata.get(USED) else OUTPUT, form=FILE if is_file or not kept else TREE,
            digest=digest, bytes=sum(entry.bytes for entry in kept) if kept else None,
            created=event.time or clock.now_us(), step=event.step, origin=ORIGIN,
            uri=None if kept else str(event.metadata.get("uri") or f"{name}:{event.version}"),
            file=kept[0].path if is_file else "", metadata=json.loads(json.dumps(metadata, default=str)),
            aliases=dict.fromkeys(foreign.aliases(event), event.time or 0),
        )  # fmt: skip
        self.records.append(record)
        self._sum((record.direction, name, event.version, record.type, digest, record.step, sorted(record.aliases)))

    def _part(self, artifact: str, part: Part, time: int) -> Entry | None:
        """Keep one file of an artifact, unless its path or its bytes are not what they should be."""
        try:
            path = checked_entry(part.path)
            foreign.compare(part)
            digest, size = self._cellar.keep_file(part.local)
        except (OSError, ValueError, StoreError) as error:
            self.refuse(f"{part.path[:200]!r} of the artifact {artifact!r} is left out: {foreign.reason(error)}.", time)
            return None
        self.contents.append(digest)
        return Entry(path, digest, size)

    def _kept_bytes(self, data: bytes) -> str:
        """Keep bytes and return their digest."""
        digest = self._cellar.keep_bytes(data)
        self.contents.append(digest)
        return digest

    def _seen(self, rank: int) -> int:
        """Return a rank as it is kept."""
        kept = min(max(int(rank), 0), _LAST_RANK)
        self.ranks = max(self.ranks, kept + 1)
        return kept

    def _sum(self, what: object) -> None:
        """Add an event to what tells whether anything is different."""
        text = json.dumps(what, default=str).encode("utf-8", "surrogatepass")
        self._print = (self._print + int.from_bytes(hashlib.sha256(text).digest(), "big")) % _WORDS


def sweep(base: str) -> None:
    """Remove what imports that died left behind."""
    runs = os.path.join(base, "runs")
    for name in os.listdir(runs) if os.path.isdir(runs) else ():
        if not name.startswith(HIDDEN):
            continue
        path = os.path.join(runs, name)
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass  # somebody gathers a run in it
        finally:
            os.close(lock)


__all__ = ["HIDDEN", "ORIGIN", "Staging", "sweep"]
