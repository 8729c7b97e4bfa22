"""A task that no server sees: the folder of an offline session, written as ClearML's own client writes it.

    <dir>/offline/offline-<id>/    task.json       the task
                                   metrics.jsonl   a line per batch: a list of events
                                   log.jsonl       a line per batch: a list of lines of the console
                                   data/           samples and artifacts
    <dir>/offline/offline-<id>.zip                 all of it, made at the end

The client writes this from threads of its own and loses what they hold when it is killed; here a line is in the file
when `send` returns. `clearml-task --import-offline-session ZIP` takes it to a server.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from tracer.backends.clearml_events import LOG, SCALAR

METRICS, CONSOLE, TASK, DATA = "metrics.jsonl", "log.jsonl", "task.json", "data"


class Session:
    """One offline session, new or resumed.

    Args:
        folder: Where sessions are kept; `offline` is made in it.
        task: The id; ClearML takes one that begins with `offline-` for a session that was never on a server.
    """

    def __init__(self, folder: str, task: str) -> None:
        self.task = task
        self.folder = os.path.join(os.path.abspath(folder), "offline", task)
        self._made: dict[str, Any] = {}
        os.makedirs(os.path.join(self.folder, DATA), exist_ok=True)
        self._points = _mended(self._at(METRICS))
        _mended(self._at(CONSOLE))
        with contextlib.suppress(FileNotFoundError, ValueError), open(self._at(TASK), encoding="utf-8") as opened:
            self._made = json.load(opened)

    @property
    def place(self) -> str:
        """Where the session will lie as one file."""
        return f"{self.folder}.zip"

    def edit(self, fields: dict[str, Any], project: str) -> None:
        """Set fields of the task."""
        self._made = {
            "id": self.task,
            "offline_folder": self.folder,
            "offline_output_models": [],
            "execution": {"artifacts": [], "parameters": {}},
            "output": {},
            "script": {},
            **self._made,
            **fields,
            "project_name": project,
        }
        self._save()

    def attach(self, artifact: dict[str, Any]) -> None:
        """List an artifact; one of the same key is replaced."""
        listed = self._made["execution"]["artifacts"]
        listed[:] = [one for one in listed if one["key"] != artifact["key"]] + [artifact]
        self._save()

    def send(self, events: Sequence[dict[str, Any]]) -> None:
        """Append events; they are in the file when this returns."""
        points = [event for event in events if event["type"] == SCALAR]
        others = [event for event in events if event["type"] not in (SCALAR, LOG)]
        console = [event for event in events if event["type"] == LOG]
        line = json.dumps(points) + "\n"
        if points and line != self._points:  # the same once more stands there already
            self._append(METRICS, line)
            self._points = line
        for name, found in ((METRICS, others), (CONSOLE, console)):
            if found:
                self._append(name, json.dumps(found) + "\n")

    def put(self, key: str, data: bytes | str) -> str:
        """Keep bytes, or a copy of a file, and return its address."""
        path = self._at(DATA, key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if isinstance(data, str):
            shutil.copyfile(data, path)
        else:
            with open(path, "wb") as opened:
                opened.write(data)
        return path

    def sent(self, most: int) -> Iterator[dict[str, Any]]:
        """Yield the last events that are no points."""
        found: list[dict[str, Any]] = []
        for name in (METRICS, CONSOLE):
            with contextlib.suppress(FileNotFoundError), open(self._at(name), encoding="utf-8") as opened:
                for line in opened:
                    found.extend(event for event in json.loads(line) if event["type"] != SCALAR)
                    del found[:-most]
        yield from found

    def end(self, status: str) -> None:
        """Make one file of the session; whoever reads a zip sees a whole one."""
        self._made["status"] = status
        self._save()
        made = f"{self.place}.part"
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as zipped:
            for path, _, files in os.walk(self.folder):
                for name in sorted(files):
                    whole = os.path.join(path, name)
                    zipped.write(whole, os.path.relpath(whole, self.folder))
        os.replace(made, self.place)

    def _at(self, *parts: str) -> str:
        """Return a path in the session."""
        return os.path.join(self.folder, *parts)

    def _append(self, name: str, line: str) -> None:
        """Append a line to a file."""
        with open(self._at(name), "a", encoding="utf-8") as opened:
            opened.write(line)

    def _save(self) -> None:
        """Write the task, whole or not at all."""
        made = self._at(f"{TASK}.part")
        with open(made, "w", encoding="utf-8") as opened:
            json.dump(self._made, opened)
        os.replace(made, self._at(TASK))


def _mended(path: str) -> str:
    """Cut off a line that was not written to its end, and return the last whole one of points."""
    last, size = b"", 0
    with contextlib.suppress(FileNotFoundError), open(path, "rb+") as opened:
        for line in opened:
            if not line.endswith(b"\n"):
                opened.truncate(size)
                break
            size += len(line)
            last = line if SCALAR.encode() in line[:200] else last
    return last.decode()
