"""`tracer/leftover.jsonl`: what a peer has no place for, one event a line, in an artifact that an import reads back."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from tracer.transfer import Event, File, Histogram, LayerPoints, LogLine, Media, Part, Points, Span, Text, sha256

#: The artifact, and its files.
ARTIFACT, FILE, NAMES = "tracer", "leftover.jsonl", "names.json"
_LONGEST_LINE = 1 << 30
_KINDS: Mapping[str, type] = {
    one.__name__: one for one in (Points, LayerPoints, Text, LogLine, Media, Histogram, Span)
}  # fmt: skip


class Leftover:
    """Gathers events in a file.

    Args:
        folder: A folder for the file.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._file = open(os.path.join(folder, FILE), "w", encoding="utf-8")  # noqa: SIM115 -- `close` closes it
        self.counts: dict[str, int] = {}

    def add(self, event: Event) -> None:
        """Keep an event."""
        self.counts[event.KIND] = self.counts.get(event.KIND, 0) + (len(event) if isinstance(event, Points) else 1)
        self._file.write(_line(event) + "\n")

    def close(self) -> None:
        """Write what is still in memory."""
        self._file.close()

    def artifact(self, names: Mapping[str, str], time: int) -> File | None:
        """Return the artifact of what was kept, and of names that the peer has otherwise; None where there is nothing.

        Args:
            names: Ours → the peer's.
            time: When the run ended, so that the same run makes the same artifact.
        """
        self.close()
        parts = []
        if self.counts:
            parts.append(_part(self._folder, FILE))
        if names:
            with open(os.path.join(self._folder, NAMES), "w", encoding="utf-8") as file:
                json.dump(dict(sorted(names.items())), file, ensure_ascii=True, indent=1)
            parts.append(_part(self._folder, NAMES))
        if not parts:
            return None
        told = hashlib.sha256("".join(one.digest for one in parts).encode()).hexdigest()
        return File(ARTIFACT, "tracer", told[:12], tuple(parts), time=time)


def is_leftover(event: File) -> bool:
    """Tell whether an artifact is one of these; trackers keep its path, some as a name and some as a file's."""
    return any(
        f"{event.name}/{one.path}".endswith((f"{ARTIFACT}/{FILE}", f"{ARTIFACT}/{NAMES}")) for one in event.parts
    )


def events(artifact: File, notes: list[str]) -> Iterator[Event]:
    """Yield what such an artifact holds; a line that cannot be read is noted and left out."""
    for part in artifact.parts:
        if os.path.basename(part.path) != FILE:
            continue
        if not os.path.isfile(part.local):
            notes.append(f"{ARTIFACT}/{FILE} is not there.")
            continue
        broken = 0
        with open(part.local, encoding="utf-8", errors="replace") as file:
            while line := file.readline(_LONGEST_LINE):
                found = None
                with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
                    found = _event(json.loads(line))
                if found is None:
                    broken += 1
                else:
                    yield found
        if broken:
            notes.append(f"{broken} lines of {ARTIFACT}/{FILE} could not be read.")


def _line(event: Event) -> str:
    """Return an event as a line; NaN and ±Inf are texts, bytes are base64."""
    said: dict[str, object] = {"event": type(event).__name__}
    for field in fields(event):
        value = getattr(event, field.name)
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(event, Media) and field.name == "path":
            continue  # it lies in our store; its bytes travel
        if isinstance(event, Media) and field.name == "data":
            value = _content(event)
        said[field.name] = value
    return json.dumps(_plain(said), ensure_ascii=True, allow_nan=False, default=str)


def _event(said: Any) -> Event | None:  # noqa: ANN401 -- whatever the line says
    """Return the event of a line."""
    made = _KINDS.get(said.pop("event", "")) if isinstance(said, dict) else None
    if made is None:
        return None
    known = {field.name for field in fields(made)}
    said = {key: value for key, value in said.items() if key in known}
    if issubclass(made, Points):
        values = [float(one) for one in said["values"]]
        arrays = {"steps": np.array(said["steps"], np.int64), "times": np.array(said["times"], np.int64)}
        said |= {**arrays, "values": np.array(values, np.float64)}
        if not len(said["steps"]) == len(said["times"]) == len(values):
            return None
    elif made is Histogram:
        said |= {key: tuple(float(one) for one in said[key]) for key in ("edges", "counts")}
    elif made is Media and said.get("data") is not None:
        said["data"] = base64.b64decode(said["data"])
    event: Event = made(**said)
    return event


def _content(media: Media) -> str | None:
    """Return the bytes of something to look at, as text."""
    data = media.data
    if data is None and media.path is not None:
        with open(media.path, "rb") as file:
            data = file.read()
    return None if data is None else base64.b64encode(data).decode("ascii")


def _plain(value: object) -> object:
    """Return a value with NaN and ±Inf as texts, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def _part(folder: str, name: str) -> Part:
    """Return a file of ours as part of an artifact."""
    path = os.path.join(folder, name)
    return Part(name, path, os.path.getsize(path), sha256(path))


__all__ = ["ARTIFACT", "FILE", "NAMES", "Leftover", "events", "is_leftover"]
