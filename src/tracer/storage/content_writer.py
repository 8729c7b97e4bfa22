"""Artifacts and media are kept on a thread of their own: hashing and copying is nothing a training step should pay."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from tracer import clock, events, journal, runfile
from tracer.sink import Guard
from tracer.storage.artifact_contents import Cellar, Progress
from tracer.storage.artifact_keeping import Hurry, Wanted, keep
from tracer.storage.artifact_names import checked_aliases, checked_name
from tracer.storage.media import payload_of

if TYPE_CHECKING:
    from tracer.storage.artifact_records import Record

#: What may wait; a program that shows more pictures than a disk takes loses the newest, counted.
_MAX_WAITING, _MAX_WAITING_BYTES = 10_000, 256 * 1024 * 1024
#: `finish` waits so long for what is still being kept.
_STOP_WITHIN_S = 6.0

Job = tuple[Wanted, "Future[Record]", Progress | None]


class ContentWriter:
    """Keeps the contents of one run: the bytes first, then the record that names them.

    Args:
        folder: The run's folder.
        append: Writes a record into the journal: kind, value, step, time.
        guard: Takes what goes wrong.
    """

    def __init__(
        self, folder: str, append: Callable[[int, object, int | None, float | None], None], guard: Guard
    ) -> None:
        self.folder, self._append, self._guard = folder, append, guard
        self._cellar = Cellar(folder)
        self._begin()

    @property
    def project(self) -> str:
        """The run's project: versions are counted in it."""
        return str(runfile.read(self.folder).get("project") or "default")

    def put(self, event: events.Media | events.Artifact) -> None:
        """Have something kept; never waits."""
        size = len(event.data or b"") if isinstance(event, events.Media) else 0
        if self._waiting.qsize() >= _MAX_WAITING or self._bytes + size > _MAX_WAITING_BYTES:
            self._guard.counters.add("records_lost")
            self._guard.say("contents", f"more comes than the disk takes; {event.name!r} and others are not kept.")
            return
        self._bytes += size
        at = clock.now() if isinstance(event, events.Media) and event.time is None else None
        self._submit((event, at))

    def keep(self, wanted: Wanted, progress: Progress | None = None) -> Future[Record]:
        """Have an artifact kept, and return what will hold its record."""
        found: Future[Record] = Future()
        self._submit((wanted, found, progress))
        return found

    def note(self, body: str, record: Record, *, name: str = "artifact") -> None:
        """Say in the journal that a run made or used an artifact."""
        fields = {
            "project": record.project, "version": record.version, "type": record.type, "direction": record.direction,
            "digest": record.digest, "bytes": record.bytes, "uri": record.uri, "origin": record.origin,
        }  # fmt: skip
        said = {"kind": "event", "name": name, "body": body, "level": None, "fields": fields}
        self._append(journal.Kind.LOG, said, record.step, None)

    def stop(self) -> None:
        """Keep what waits, within a bound; what is not copied is noted without its digest."""
        if self._pid != os.getpid() or self._thread is None:
            return
        self._ending = True
        self._waiting.put(None)
        self._thread.join(_STOP_WITHIN_S)
        if self._thread.is_alive():
            left = self._waiting.qsize()
            self._guard.counters.add("records_lost", left)
            self._guard.say(
                "contents", f"the disk was too slow to keep every artifact and picture in time; {left} are missing."
            )

    def _begin(self) -> None:
        """Start empty: at first, and again in a forked child, which has none of the parent's threads."""
        self._pid = os.getpid()
        self._waiting: queue.SimpleQueue[Job | tuple[events.Media | events.Artifact, float | None] | None]
        self._waiting = queue.SimpleQueue()
        self._bytes = 0
        self._ending = False
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def _submit(self, what: Job | tuple[events.Media | events.Artifact, float | None]) -> None:
        """Hand something to the thread, made with the first thing there is to do."""
        if self._pid != os.getpid():
            self._begin()
        self._waiting.put(what)
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="tracer-contents", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        """Keep one thing after the other until stopped."""
        while (what := self._waiting.get()) is not None:
            if isinstance(what[0], Wanted):
                wanted, found, progress = what
                self._keep(wanted, found, progress)
                continue
            event, at = what
            with self._guard(f"keeping {event.name!r}"):
                if isinstance(event, events.Media):
                    self._bytes -= len(event.data or b"")
                    self._media(event, at)
                else:
                    self._artifact(event)

    def _keep(self, wanted: Wanted, found: Future[Record], progress: Progress | None) -> None:
        """Keep what somebody may be waiting for: what goes wrong is told to them."""
        if not found.set_running_or_notify_cancel():
            return

        def tell(_: object, error: BaseException | None, trace: object) -> bool:  # noqa: ARG001 -- as `with` calls it
            if error is not None:
                found.set_exception(error)
            return error is not None

        with contextlib.ExitStack() as stack:
            stack.push(tell)
            record = keep(self.folder, wanted.project or self.project, wanted, progress)
            self.note(f"{record.name}:v{record.version}", record)
            found.set_result(record)

    def _artifact(self, event: events.Artifact) -> None:
        """Note a file that a framework wrote, where it lies."""
        wanted = Wanted(
            checked_name(event.name.replace(":", "_").strip()[:250] or "artifact"), path=os.path.abspath(event.path),
            type=None if event.type == "file" else event.type, step=event.step, metadata=_plain(event.metadata),
            aliases=checked_aliases(event.aliases), copy=False, origin=event.origin, strict=False,
        )  # fmt: skip
        record = keep(self.folder, self.project, wanted, self._look_up)
        self.note(f"{record.name}:v{record.version}", record)

    def _media(self, event: events.Media, at: float | None) -> None:
        """Keep the bytes of one piece of media, then the record that names them."""
        value = payload_of(event, self._cellar.keep_bytes)
        self._append(journal.Kind.MEDIA, value, event.step, event.time if at is None else at)

    def _look_up(self, done: int, total: int) -> None:  # noqa: ARG002 -- as progress is called
        """Stop hashing when the program ends."""
        if self._ending:
            raise Hurry


def _plain(value: object) -> dict[str, object]:
    """Return metadata as JSON holds it."""
    found = json.loads(json.dumps(value, default=str))
    return found if isinstance(found, dict) else {}


__all__ = ["ContentWriter"]
