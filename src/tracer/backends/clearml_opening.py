"""One offline session of ClearML, opened as somebody else's: bounded in size, and never a path that leads out of it."""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tracer import events
from tracer.backends.base import Refused
from tracer.backends.clearml_session import CONSOLE, DATA, METRICS, TASK
from tracer.backends.clearml_task import OURS
from tracer.transfer import RunInfo

#: Bounds of one session: members, bytes when unpacked, how much smaller a zip may be, bytes of one line.
MEMBERS, BYTES, RATIO, LINE = 200_000, 64 * 2**30, 500, 32 * 2**20
_MOST = 2**63
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Opened:
    """A session as a folder; `ours` is what we wrote into it, empty for one of the client's."""

    folder: str
    task: Mapping[str, Any]
    shown: str
    notes: list[str]
    ours: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Return the task's id."""
        return str(self.task.get("id") or self.shown)

    def facts(self) -> Mapping[str, Any]:
        """Return what we wrote of the run."""
        return self.ours

    def events(self, name: str, *, quiet: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the events of a file: each line is a list of them."""
        path, bad = os.path.join(self.folder, name), 0
        if not os.path.isfile(path):
            return
        with open(path, encoding="utf-8", errors="replace") as lines:
            while line := lines.readline(LINE):
                try:
                    listed = json.loads(line)
                except (ValueError, RecursionError):
                    bad += 1
                    continue
                listed = listed if isinstance(listed, list) else [listed]
                good = [event for event in listed if isinstance(event, dict)]
                bad += len(listed) - len(good)
                yield from good
        if bad and not quiet:
            self.notes.append(f"{bad} lines or events of {name} in {self.shown!r} are damaged and left out.")


def sessions(where: str) -> list[str]:
    """Return the sessions at a place; of a folder and its zip, the zip.

    Raises:
        Refused: There is nothing of the kind.
    """
    if os.path.isfile(where) or os.path.isfile(os.path.join(where, TASK)):
        return [where]
    if not os.path.isdir(where):
        message = f"{where!r} is no offline session of ClearML. Name the zip, or the folder with sessions."
        raise Refused(message)
    inner = os.path.join(where, "offline")
    where = inner if os.path.isdir(inner) else where
    listed = {os.path.join(where, name) for name in os.listdir(where)}
    zips = {path for path in listed if path.endswith(".zip")}
    folders = {path for path in listed if os.path.isfile(os.path.join(path, TASK)) and f"{path}.zip" not in zips}
    return sorted(zips | folders)


@contextlib.contextmanager
def opened(path: str, notes: list[str], *, files: bool) -> Iterator[Opened | None]:
    """Open a session as long as it is read; None, and a note, for one that cannot be.

    Args:
        path: A zip or a folder.
        notes: Where notes go.
        files: Whether samples and artifacts are wanted too.
    """
    shown = os.path.basename(path)
    with tempfile.TemporaryDirectory() as room:
        made = None
        try:
            folder = path
            if os.path.isfile(path):
                folder = room
                _unpack(path, folder, notes, files=files)
            with open(os.path.join(folder, TASK), encoding="utf-8") as described:
                task = json.loads(described.read(LINE))
            if isinstance(task, dict):
                made = Opened(folder, task, shown, notes, _ours(task))
            else:
                notes.append(f"{shown!r} describes no task and is left out.")
        except (OSError, ValueError, RecursionError, *_DAMAGED) as error:
            notes.append(f"{shown!r} cannot be read and is left out: {str(error) or type(error).__name__}.")
        yield made


def within(folder: str, name: str) -> str | None:
    """Return the path of a file in a folder, or None for one that leads out of it, also over a link."""
    if "\0" in name or "\\" in name or name.startswith("/") or ".." in name.split("/"):
        return None
    root = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(root, name))
    return path if os.path.commonpath([root, path]) == root else None


def _unpack(path: str, folder: str, notes: list[str], *, files: bool) -> None:
    """Unpack a session, if it is of a size that sessions have."""
    with zipfile.ZipFile(path) as zipped:
        listed = zipped.infolist()
        total, packed = sum(one.file_size for one in listed), sum(one.compress_size for one in listed)
        if len(listed) > MEMBERS or total > BYTES or total > max(packed, 1) * RATIO + 2**20:
            message = f"its {len(listed)} files of {total} bytes in {packed} are more than a session holds"
            raise ValueError(message)
        if total > shutil.disk_usage(folder).free:
            message = f"there is no room for its {total} bytes in {folder!r}"
            raise ValueError(message)
        for one in listed:
            name = one.filename
            inner = name.startswith(f"{DATA}/") and not one.is_dir()
            target = within(folder, name)
            if target is None:
                notes.append(f"{name!r} leads out of its session and is left out.")
            elif name in (TASK, METRICS, CONSOLE) or (inner and files):
                os.makedirs(os.path.dirname(target), exist_ok=True)
                _copy(zipped, one, target, notes)


def _copy(zipped: zipfile.ZipFile, one: zipfile.ZipInfo, target: str, notes: list[str]) -> None:
    """Unpack one file, never more of it than the zip says it has; of a damaged one, what was good."""
    left = one.file_size
    with open(target, "wb") as written:
        try:
            with zipped.open(one) as packed:
                while left and (chunk := packed.read(min(left, 2**16))):
                    written.write(chunk)
                    left -= len(chunk)
        except _DAMAGED as error:
            notes.append(f"{one.filename!r} is damaged; what stands before the damage is read: {error}.")


def info(session: Opened) -> RunInfo:
    """Return what is known of a task."""
    task, ours = session.task, session.ours
    told = session.facts()
    began, ended = _span(session)
    status = told.get("status") or task.get("status")
    tags = task.get("tags")
    return RunInfo(
        uid="",
        project=str(task.get("project_name") or told.get("project") or "default"),
        name=str(task.get("name") or session.shown),
        started=whole(told.get("started")) or _moment(task.get("started")) or began,
        status=str(status) if status in (events.COMPLETED, events.FAILED, events.CRASHED) else events.COMPLETED,
        ended=whole(told.get("ended")) or _moment(task.get("completed")) or ended,
        steps=whole(told.get("steps")) or 0,
        group=text(told.get("group")),
        job_type=text(told.get("job_type")) or (None if ours else text(task.get("type"))),
        notes=text(task.get("comment")),
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
        labels={name: str(value) for name, value in mapping(told.get("labels")).items()},
        params=mapping(told.get("params")) if ours else _params(task),
        summary=mapping(told.get("summary")),
        environment=mapping(told.get("environment")),
        git=mapping(told.get("git")),
        origin=f"clearml:{session.id}",
    )


def _span(session: Opened) -> tuple[int, int | None]:
    """Return the first and last time among a session's events, for one that says nothing of them."""
    if session.ours:
        return 0, None
    times = [time_of(event) for name in (METRICS, CONSOLE) for event in session.events(name, quiet=True)]
    return (min(times), max(times)) if times else (0, None)


def mapping(told: object) -> dict[str, Any]:
    """Return a mapping, or an empty one for anything else."""
    return told if isinstance(told, dict) else {}


def whole(told: object) -> int | None:
    """Return a whole number, or None for anything else."""
    try:
        found = int(told) if isinstance(told, (int, str)) and told != "" else None
    except ValueError:
        return None
    return found if found is not None and abs(found) < _MOST else None


def text(told: object) -> str | None:
    """Return a text that is not empty, or None."""
    return str(told) if told not in (None, "") else None


def time_of(event: Mapping[str, Any]) -> int:
    """Return when an event happened."""
    try:
        found = int(float(event.get("timestamp") or 0) * 1000)
    except (TypeError, ValueError, OverflowError):
        return 0
    return found if abs(found) < _MOST else 0


def _ours(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return what we wrote into a task, empty for one of the client's."""
    told = mapping(mapping(task.get("configuration")).get(OURS)).get("value")
    try:
        return mapping(json.loads(str(told)))
    except (ValueError, RecursionError):
        return {}


def _moment(told: object) -> int | None:
    """Return a moment that is written as a date."""
    try:
        found = datetime.fromisoformat(str(told))
    except ValueError:
        return None
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1e6)


def _params(task: Mapping[str, Any]) -> dict[str, object]:
    """Return the parameters of a task of the client's, by section and path; `General` is no section of the user's."""
    found: dict[str, object] = {}
    for section, held in mapping(task.get("hyperparams")).items():
        for name, one in mapping(held).items():
            path = name if section == "General" else f"{section}/{name}"
            found[path] = _value(mapping(one))
    return found


def _value(one: Mapping[str, Any]) -> object:
    """Return a parameter as its type says; the client writes every one as text."""
    told, kind = str(one.get("value", "")), str(one.get("type") or "")
    if kind in ("NoneType", "") and told == "":
        return None
    if kind == "bool" and told in ("True", "False"):
        return told == "True"
    if kind in ("int", "float"):
        with contextlib.suppress(ValueError):
            return int(told) if kind == "int" else float(told)
    return told
