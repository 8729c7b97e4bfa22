"""Mirror a run to ClearML: to a server where there are credentials, else to an offline session on this disk.

The client is not asked to do it: its `Task.init` makes one task the whole process's, starts threads, stamps events with
the moment they are sent, shows what is not finite as 0 and loses what it holds when it is killed. What is sent are the
same events to the same interfaces.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

from tracer import events as statuses
from tracer import transfer
from tracer.backends import clearml_events, clearml_server, clearml_task
from tracer.backends.base import Backend, Limits, Refused, Rejected, RemoteIds, Unreachable
from tracer.backends.clearml_session import Session
from tracer.transfer import Event, File, Histogram, LogLine, Media, Points, RunInfo, Text

_log = logging.getLogger("tracer.backends.clearml")
#: So many events are remembered, to know those that come again.
_REMEMBERED = 4000


class ClearMLBackend(Backend):
    """One task in ClearML, on a server or in an offline session."""

    name: ClassVar[str] = "clearml"
    kinds: ClassVar[frozenset[str]] = frozenset(transfer.KINDS) - {transfer.SPAN}
    limits: ClassVar[Limits] = Limits(
        batch=2000,
        losses={
            "NaN, ±Inf": "never sent as a scalar, ClearML would show 0.0: the console has a line `tracer.values` with "
            "their steps, and an import maps them back",
            "times": "whole milliseconds",
            "text among metrics": "a line `tracer.text` in the console, mapped back by an import",
            "fields of log records": "under the line in the console, as JSON",
            "step of a line of output": "not kept",
            "nested and typed parameters": "shown as text by their path; exact in the configuration object `tracer`",
            "earlier versions of an artifact": "`<name>/<part>` holds the newest version, earlier ones are replaced",
            "status and times of an offline session": "a server that imports it marks it completed at that moment; the "
            "configuration object `tracer` keeps them",
            "the last batch before a mirror was killed": "a server may get its lines of the console twice, its points "
            "once; an offline session has both once",
            "spans": "not sent: ClearML has no place for them",
        },
    )

    def __init__(self, options: Mapping[str, object]) -> None:
        super().__init__(options)
        self._names = clearml_events.names()
        self._recent: deque[str] = deque(maxlen=_REMEMBERED)
        self._peer: Session | clearml_server.Server | None = None
        self._zip = self._url = ""
        self._told: tuple[RunInfo, int] | None = None

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Create the task or go on with it; where it lies is decided once, and kept in `remote`."""
        with _errors("open the session"):
            wanted = clearml_server.credentials(self.options)
            why = f"{wanted}; the session stays on this disk." if isinstance(wanted, str) else ""
            if remote.get("session") or (why and "task" not in remote):
                if not remote:
                    _log.info("ClearML is offline: %s", why)
                return self._offline(run, remote, why)
            if isinstance(wanted, str):
                message = f"The task {remote['task']!r} is on a server, and none can be asked any more: {wanted}."
                raise Refused(message)
            server = clearml_server.Server(wanted, remote.get("task", ""))
            self._peer, project = server, self._project(run)
            self._writer = clearml_events.Writer("", self._names)
            server.create(clearml_task.described(run, self.options, {}), project)
            self._writer, self._info, self._told = clearml_events.Writer(server.task, self._names), run, (run, 0)
            self._url = server.place
            return {"task": server.task, "url": self._url}

    def write(self, events: Sequence[Event]) -> None:
        """Hand over a batch; of what is no point, only that which is not there yet."""
        peer, known = self._opened(), Counter(self._recent)
        found: list[dict[str, Any]] = []
        refused, lost = "", 0
        for event in events:
            try:
                with _errors("write"):
                    found.extend(self._made(event))
            except Rejected as error:  # one that is never taken; the rest is
                refused, lost = str(error), lost + (len(event) if isinstance(event, Points) else 1)
        fresh, keys = [], []
        for made in found:
            if made["type"] != clearml_events.SCALAR:
                key = _identity(made)
                if known[key] > 0:
                    known[key] -= 1
                    continue
                keys.append(key)
            fresh.append(made)
        with _errors("write"):
            if fresh:
                peer.send(fresh)
            self._recent.extend(keys)  # only now: what was not taken comes again
            self._describe()
        if refused:
            raise Rejected(refused, lost)

    def close(self, status: str, ended: int | None) -> None:
        """End the task; an offline session becomes a zip."""
        if self._peer is None:
            return
        peer = self._peer
        with _errors("close"):
            self._info = replace(self._info, status=status, ended=ended)
            self._describe()
            if status != statuses.RUNNING:
                peer.end(status)
        self._peer = None

    def url(self) -> str | None:
        """Return the page of the task, or the path of the zip."""
        return self._url or None

    def readable(self) -> str:
        """Return the zip of an offline session; what a server has is not read."""
        return self._zip

    def renamed(self) -> Mapping[str, str]:
        """Return our names → ClearML's, where they differ."""
        return dict(self._names.changed)

    def _offline(self, run: RunInfo, remote: RemoteIds, why: str) -> RemoteIds:
        """Open an offline session; its id follows from ours, so there is only one."""
        task = remote.get("task") or f"offline-{hashlib.sha256(f'tracer:{run.uid}'.encode()).hexdigest()[:32]}"
        folder = str(self.options.get("dir") or "") or os.environ.get("CLEARML_CACHE_DIR") or "~/.clearml/cache"
        folder = remote.get("session") or os.path.abspath(os.path.expanduser(folder))
        session = Session(folder, task)
        self._peer, self._writer, self._info = session, clearml_events.Writer(task, self._names), run
        self._recent.extend(_identity(event) for event in session.sent(_REMEMBERED))
        self._describe()
        self._zip = self._url = session.place
        told = {"task": task, "session": folder, "zip": self._zip}
        return {**told, "note": f"ClearML is offline: {why}" if why else remote.get("note", "")}

    def _describe(self) -> None:
        """Tell what is known of the run, if that or the table of names changed."""
        told = (self._info, len(self._names.changed))
        if told != self._told:
            fields = clearml_task.described(self._info, self.options, self._names.changed)
            self._opened().edit(fields, self._project(self._info))
            self._told = told

    def _project(self, run: RunInfo) -> str:
        """Return the project's name."""
        return str(self.options.get("project_name") or run.project)

    def _made(self, event: Event) -> Iterator[dict[str, Any]]:
        """Yield what ClearML calls an event."""
        match event:
            case Points():
                yield from self._writer.points(event)
            case Text():
                yield self._writer.text(event)
            case LogLine():
                yield self._writer.line(event)
            case Histogram():
                yield self._writer.histogram(event)
            case Media():
                yield from self._sample(event)
            case File():
                self._artifact(event)
            case RunInfo():
                self._info = event

    def _sample(self, event: Media) -> Iterator[dict[str, Any]]:
        """Keep media and yield the events that show it; its bytes are in its name, so the same one is kept once."""
        data: bytes | str = event.data if event.data is not None else event.path or b""
        suffix = event.suffix
        if event.data is None and event.path is None:
            data, suffix = json.dumps(dict(event.fields), default=str).encode(), ".json"
        digest = transfer.sha256(data) if isinstance(data, str) else hashlib.sha256(data).hexdigest()
        title, series = clearml_events.parted(event.name)
        name = clearml_task.segment(f"{event.rank}_{event.step}_{digest[:12]}{suffix}")
        places = ("metrics", clearml_task.segment(title), clearml_task.segment(series), name)
        key = f"{self._root()}/{'/'.join(places)}"
        yield from self._writer.sample(event, key, self._opened().put(key, data))

    def _artifact(self, file: File) -> None:
        """Keep the parts of an artifact."""
        for part in file.parts:
            inner = clearml_task.inside(part.path)
            key = f"{self._root()}/artifacts/{clearml_task.segment(file.name)}/{inner}"
            peer = self._opened()
            peer.attach(clearml_task.artifact(file, part, peer.put(key, part.local)))

    def _root(self) -> str:
        """Return the folder of the task's files, as the client builds it."""
        name = clearml_task.segment(str(self.options.get("task_name") or self._info.name))
        return f"{clearml_task.segment(self._project(self._info))}/{name}.{self._opened().task}"

    def _opened(self) -> Session | clearml_server.Server:
        """Return what is written to."""
        if self._peer is None:
            message = "ClearML was written to before it was opened."
            raise Rejected(message)
        return self._peer


def _identity(event: Mapping[str, Any]) -> str:
    """Return what makes an event the same event when it comes again; addresses differ between requests."""
    told = {name: value for name, value in event.items() if name not in ("url", "task", "worker", "method")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    """Turn what files raise into what a lane reacts to; what a server says is judged where it is asked."""
    try:
        yield
    except PermissionError as error:
        message = f"ClearML: could not {doing}: {error.strerror}. Give the process the right to write there."
        raise Refused(message) from error
    except (FileNotFoundError, IsADirectoryError, ValueError, TypeError, KeyError) as error:
        message = f"ClearML: could not {doing}: {error}."
        raise Rejected(message) from error
    except OSError as error:
        message = f"ClearML: could not {doing}: {error.strerror or error}."
        raise Unreachable(message) from error
