"""What happened in a run besides its numbers, as lines of JSON in `events.jsonl`, and back.

Bytes lie in files of their own, which a line names by a path below the run's folder; nothing outside it is ever read
or written.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from tracer.backends.files_facts import WORDS, as_json, seconds
from tracer.backends.files_places import inside
from tracer.backends.names import NameMap
from tracer.transfer import Event, File, Histogram, LogLine, Media, Part, Span, Text

_SECOND = 1_000_000
_SUFFIX, _LONGEST_SUFFIX = r"[A-Za-z0-9.]", 16


def line_of(event: Event, folder: str) -> bytes | None:
    """Return the line for an event, its bytes kept in the folder; None for one that has no line.

    Raises:
        ValueError: It would be written outside of the folder.
        OSError: The disk does not take it.
    """
    if isinstance(event, Text):
        said: dict[str, object] = {"kind": "text", **_where(event), "text": event.body}
    elif isinstance(event, LogLine):
        held = {name: getattr(event, name) for name in ("name", "level", "body", "step", "rank")}
        said = {"kind": "log", "type": event.kind, "time": seconds(event.time), **held, "fields": dict(event.fields)}
    elif isinstance(event, Histogram):
        said = {"kind": "histogram", **_where(event), "edges": list(event.edges), "counts": list(event.counts)}
    elif isinstance(event, Media):
        said = {"kind": "media", "type": event.kind, **_where(event), "suffix": event.suffix,
                "file": _kept(event, folder), "caption": event.caption, "fields": dict(event.fields)}  # fmt: skip
    elif isinstance(event, Span):
        said = {"kind": "span", **asdict(event), "span_kind": event.kind}
        said["kind"] = "span"
    elif isinstance(event, File):
        said = {"kind": "artifact", "name": event.name, "type": event.type, "version": event.version,
                "time": seconds(event.time), "step": event.step, "aliases": list(event.aliases),
                "metadata": dict(event.metadata), "files": _copied(event, folder)}  # fmt: skip
    else:
        return None
    return as_json(said).encode() + b"\n"


def event_of(said: Mapping[str, Any], folder: str) -> Event | None:
    """Return the event of a line; None where it is none of ours.

    Raises:
        ValueError: A file that it names lies outside of the folder, or is none.
        KeyError: Something is missing.
        TypeError: Something is of another type.
    """
    read = _READERS.get(str(said.get("kind"))) if isinstance(said, dict) else None
    return None if read is None else read(said, folder)


def _text(said: Mapping[str, Any], _: str) -> Event:
    """Return a text."""
    return Text(*_came(said), body=str(said["text"]), rank=_rank(said))


def _log(said: Mapping[str, Any], _: str) -> Event:
    """Return a line of output or the like."""
    return LogLine(
        str(said["type"]), _time(said), body=said.get("body"), name=said.get("name"), level=said.get("level"),
        step=_step(said), fields=dict(said.get("fields") or {}), rank=_rank(said),
    )  # fmt: skip


def _histogram(said: Mapping[str, Any], _: str) -> Event:
    """Return a histogram."""
    edges, counts = (tuple(float(WORDS.get(one, one)) for one in said[name]) for name in ("edges", "counts"))
    return Histogram(*_came(said), edges, counts, _rank(said))


def _media(said: Mapping[str, Any], folder: str) -> Event:
    """Return a piece of media."""
    name, step, time = _came(said)
    path = None if said.get("file") is None else _found(folder, str(said["file"]))
    return Media(
        name, str(said["type"]), step, time, path=path, suffix=str(said.get("suffix") or ""),
        caption=said.get("caption"), fields=dict(said.get("fields") or {}), rank=_rank(said),
    )  # fmt: skip


def _span(said: Mapping[str, Any], _: str) -> Event:
    """Return a span."""
    held = {name: value for name, value in said.items() if name not in {"kind", "span_kind"}}
    return Span(**held, kind=str(said.get("span_kind", "internal")))


def _artifact(said: Mapping[str, Any], folder: str) -> Event:
    """Return an artifact."""
    parts = tuple(
        Part(str(one["path"]), _found(folder, str(one["file"])), int(one["size"]), str(one["digest"]))
        for one in said["files"]
    )
    return File(
        str(said["name"]), str(said["type"]), str(said["version"]), parts, time=_time(said), step=_step(said),
        aliases=tuple(str(one) for one in said.get("aliases") or ()), metadata=dict(said.get("metadata") or {}),
    )  # fmt: skip


_READERS: Mapping[str, Callable[[Mapping[str, Any], str], Event]] = {
    "text": _text, "log": _log, "histogram": _histogram, "media": _media, "span": _span, "artifact": _artifact,
}  # fmt: skip


def _step(said: Mapping[str, Any]) -> int | None:
    """Return the step of a line that need not have one."""
    step = said.get("step")
    return None if step is None else int(step)


def _rank(said: Mapping[str, Any]) -> int:
    """Return the rank of a line."""
    return int(said.get("rank", 0))


def _where(event: Text | Histogram | Media) -> dict[str, object]:
    """Return what all that belongs to a step has in common."""
    return {"name": event.name, "rank": event.rank, "step": event.step, "time": seconds(event.time)}


def _came(said: Mapping[str, Any]) -> tuple[str, int, int]:
    """Return name, step and time of a line."""
    return str(said["name"]), int(said["step"]), _time(said)


def _time(said: Mapping[str, Any]) -> int:
    """Return the time of a line in microseconds."""
    whole, _, part = str(said["time"]).partition(".")
    micros = int(whole.lstrip("-") or 0) * _SECOND + int(part.ljust(6, "0")[:6] or 0)
    return -micros if whole.startswith("-") else micros


def _kept(media: Media, folder: str) -> str | None:
    """Keep the bytes of a piece of media under their digest; return where."""
    if media.path is None and media.data is None:
        return None
    data = media.data
    if data is None and media.path is not None:
        with open(media.path, "rb") as file:
            data = file.read()
    suffix = NameMap(_SUFFIX, _LONGEST_SUFFIX).sent(media.suffix) if media.suffix else ""
    name = f"media/{hashlib.sha256(data or b'').hexdigest()}{suffix}"
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        aside = f"{path}.part"
        with open(aside, "wb") as file:
            file.write(data or b"")
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    return name


def _copied(artifact: File, folder: str) -> list[dict[str, object]]:
    """Copy the files of an artifact; return them as they are listed."""
    names = NameMap(r"[\w. =+,@()-]", 120, refused=r"\.+|\s.*|.*\s")
    base = f"artifacts/{names.sent(artifact.name)}/{names.sent(artifact.version)}"
    found: list[dict[str, object]] = []
    for part in artifact.parts:
        target = inside(os.path.join(folder, base), part.path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        aside = f"{target}.part"
        shutil.copyfile(part.local, aside)
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, target)
        where = os.path.relpath(target, folder).replace(os.sep, "/")
        found.append({"path": part.path, "file": where, "size": part.size, "digest": part.digest})
    return found


def _found(folder: str, name: str) -> str:
    """Return the path of a file that a line names.

    Raises:
        ValueError: It lies outside of the folder, is a link out of it, or is no file.
    """
    path = inside(folder, name)
    real, root = os.path.realpath(path), os.path.realpath(folder)
    try:
        is_file = os.path.commonpath([real, root]) == root and stat.S_ISREG(os.stat(real).st_mode)
    except OSError:
        is_file = False
    if not is_file:
        message = f"{name!r} is no file of {folder}"
        raise ValueError(message)
    return path


__all__ = ["event_of", "line_of"]
