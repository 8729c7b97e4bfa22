"""The artifacts of an MLflow run in a folder, as events: pictures, texts and histograms again, the rest as files.

The folder is a stranger's: links are not followed, only plain files are read, and no name leads out of it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from tracer.backends.mlflow_found import Found, parsed, with_rank
from tracer.backends.names import unescaped
from tracer.transfer import Event, File, Histogram, Media, Part, Text, sha256

_MOST_FILES = 100_000
_LARGEST_JSON = 64 << 20
_PICTURE = re.compile(
    r"images/(?P<name>.+?)[+%]step[+%](?P<step>-?\d{1,18})[+%]timestamp[+%](?P<time>\d{1,15})[+%][0-9a-f-]+\.png"
)
_TEXT = re.compile(r"text/(?P<name>.+)/(?P<step>-?\d{1,18})\.txt")
_HISTOGRAMS = re.compile(r"histograms/[^/]+\.jsonl")
_LISTED = re.compile(r"tracer/artifacts/.+\.json")
_OURS = ("tracer/",)


def read(path: str, longest: int = _LARGEST_JSON) -> bytes:
    """Return the content of a plain file that is not too long; empty otherwise."""
    try:
        with open(path, "rb") as file:
            return b"" if os.fstat(file.fileno()).st_size > longest else file.read(longest)
    except OSError:
        return b""


def plain_files(root: str) -> dict[str, str]:
    """Return the plain files below a folder, by their path inside it with slashes."""
    found: dict[str, str] = {}
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not os.path.islink(os.path.join(folder, name)))
        for name in sorted(names):
            path = os.path.join(folder, name)
            try:
                plain = stat.S_ISREG(os.lstat(path).st_mode)
            except OSError:
                continue
            if plain and len(found) < _MOST_FILES:
                found[os.path.relpath(path, root).replace(os.sep, "/")] = path
    return found


def events(found: Found, root: str) -> Iterator[Event]:
    """Yield what the artifacts of a run hold, files last.

    Args:
        found: The run.
        root: Where its artifacts lie.
    """
    files = plain_files(root)
    listed = [parsed(read(path)) for inside, path in files.items() if found.is_ours and _LISTED.fullmatch(inside)]
    for inside, path in list(files.items()):
        made = _event(found, inside, path)
        if made:
            del files[inside]
            yield from made
        elif inside.endswith("+compressed.webp") or (found.is_ours and inside.startswith(_OURS)):
            del files[inside]
    yield from _listed(listed, files)
    groups: dict[str, dict[str, str]] = {}
    for inside, path in files.items():
        top, slash, rest = inside.partition("/")
        groups.setdefault(top, {})[rest if slash else top] = path
    for name, parts in groups.items():
        yield artifact(name, parts)


def artifact(name: str, files: Mapping[str, str], kind: str = "", **more: Any) -> File:  # noqa: ANN401 -- fields of File
    """Return an artifact; its version is what its files hold."""
    parts = tuple(Part(path, local, os.path.getsize(local), sha256(local)) for path, local in sorted(files.items()))
    whole = hashlib.sha256("".join(f"{part.path}\0{part.digest}\0" for part in parts).encode("utf-8", "replace"))
    kind = kind or ("model" if any(part.path.endswith("MLmodel") for part in parts) else "artifact")
    return File(name, kind, **({"version": whole.hexdigest()[:12]} | more), parts=parts)


def _event(found: Found, inside: str, path: str) -> list[Event]:
    """Return what one file is, if it is more than a file."""
    picture = _PICTURE.fullmatch(inside)
    if picture is not None:
        rank, name = _name(found, picture["name"].replace("~", "/").replace("#", "/"))
        step, time = int(picture["step"]), int(picture["time"]) * 1000
        return [Media(name, "image", step, time, path, suffix=".png", rank=rank)]
    if not found.is_ours:
        return []
    text = _TEXT.fullmatch(inside)
    if text is not None:
        rank, name = _name(found, text["name"])
        return [Text(name, int(text["step"]), found.started * 1000, read(path).decode("utf-8", "replace"), rank)]
    if _HISTOGRAMS.fullmatch(inside):
        return [made for line in read(path).splitlines() if (made := _histogram(line)) is not None]
    return []


def _name(found: Found, name: str) -> tuple[int, str]:
    """Return the rank and the name that a name of ours tells; another's is itself."""
    return with_rank(unescaped(name)) if found.is_ours else (0, name)


def _histogram(line: bytes) -> Histogram | None:
    """Return a histogram of a line; None where it holds none."""
    said = parsed(line)
    try:
        edges = tuple(float(edge) for edge in said["edges"])
        counts = tuple(float(count) for count in said["counts"])
        made = Histogram(str(said["name"]), int(said["step"]), int(said["time"]), edges, counts, int(said["rank"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return made if len(edges) == len(counts) + 1 else None


def _listed(lists: list[dict[str, Any]], files: dict[str, str]) -> Iterator[File]:
    """Yield the artifacts that our own lists name, and take their files away; the newest version has the files."""
    newest: dict[str, dict[str, Any]] = {}
    for held in sorted(lists, key=_time):
        newest[str(held.get("name"))] = held
    for name, held in newest.items():
        parts = held.get("parts")
        taken: dict[str, str] = {}
        for part in parts if isinstance(parts, list) else ():
            inside = f"{held.get('folder')}/{part.get('sent')}" if isinstance(part, dict) else ""
            if inside in files and ".." not in str(part.get("path")).split("/"):
                taken[str(part["path"])] = files[inside]
        if taken:
            for inside in [key for key, local in files.items() if local in set(taken.values())]:
                del files[inside]
            step, aliases, metadata = held.get("step"), held.get("aliases"), held.get("metadata")
            yield artifact(
                name,
                taken,
                str(held.get("type") or ""),
                version=str(held.get("version")),
                time=_time(held),
                step=step if isinstance(step, int) else None,
                aliases=tuple(str(one) for one in aliases) if isinstance(aliases, list) else (),
                metadata=metadata if isinstance(metadata, dict) else {},
            )


def _time(held: Mapping[str, Any]) -> int:
    """Return when a version of an artifact was kept."""
    time = held.get("time")
    return time if isinstance(time, int) else 0
