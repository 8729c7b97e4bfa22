"""A run's folder as the store sees it: what `run.json` says, the folders of Parquet files, the bytes it takes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

from tracer import events, runfile
from tracer.errors import SchemaTooNew, StoreError
from tracer.storage import tails

#: The folders of Parquet files, by family.
FAMILIES = ("points", "rollup", "layers", "histograms", "logs")

#: What the header of a journal segment and `run.json` both say.
_OWNER = ("host", "pid", "process_started", "boot", "world_size", "attempt")

Facts = dict[str, Any]


def read_facts(folder: str) -> Facts:
    """Return what `run.json` says, or where there is none what the journal says of its writer.

    Raises:
        StoreError: There is neither, or it cannot be read.
        SchemaTooNew: A newer Tracer wrote it.
    """
    path = os.path.join(folder, runfile.NAME)
    try:
        facts = runfile.read(folder)
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}). Without it the folder is no run."
        raise StoreError(message) from error
    except (ValueError, RecursionError) as error:
        message = (
            f"{path} is damaged ({error}). The run's other files are whole: mend it by hand, or delete the folder."
        )
        raise StoreError(message) from error
    if not facts and not os.path.exists(path):
        facts = _facts_of_writer(folder)
    if not isinstance(facts.get("id"), str) or not facts["id"]:
        message = f"{path} names no run id. The folder is no run: mend the file by hand, or remove the folder."
        raise StoreError(message)
    written = facts.get("format", runfile.FORMAT)
    if not isinstance(written, int) or written > runfile.FORMAT:
        message = (
            f"{path} has format {written!r}; this Tracer reads up to {runfile.FORMAT}. Update: pip install -U ml-tracer"
        )
        raise SchemaTooNew(message)
    return facts


def _facts_of_writer(folder: str) -> Facts:
    """Return what the headers of a journal tell of a run: a segment that was copied alone can be read."""
    for segments in tails.list_segments(os.path.join(folder, "journal")).values():
        for _, path in segments:
            with contextlib.suppress(OSError, StoreError):
                said = tails.read_header(path).identity
                owner = {key: said[key] for key in _OWNER if key in said}
                return {**owner, "id": said.get("run"), "status": events.RUNNING, "started": said.get("opened")}
    return {}


def write_json(path: str, value: Mapping[str, object]) -> None:
    """Write a small JSON file so that it is found either as it was or as it is now, never in between."""
    folder, name = os.path.split(path)
    hidden = os.path.join(folder, f".{name}.{os.getpid()}")
    try:
        with open(hidden, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.rename(hidden, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(hidden)
        raise
    sync_folder(folder)


def sync_folder(path: str) -> None:
    """Make what was created, renamed or removed in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def modified_ns(path: str) -> int:
    """Return when a folder's list of names changed last, or 0 where it is not there."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def journal_mark(folder: str) -> int:
    """Return what changes when a run's journal gets or loses a file: what `run.settled` is compared with."""
    return modified_ns(os.path.join(folder, "journal")) or -1


def is_settled(settled: int, folder: str) -> bool:
    """Tell whether everything in a run's journal is folded; what is negative is kept for lanes that have to read it."""
    return journal_mark(folder) in (settled, -settled)


def size_bytes(folder: str) -> int:
    """Return what a folder and everything in it take on the disk."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total


def owned_bytes(folder: str) -> int:
    """Return what becomes free when a folder is removed: files that others hold by hard links do not."""
    links: dict[tuple[int, int], int] = {}
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                state = os.lstat(os.path.join(place, name))
                key = (state.st_dev, state.st_ino)
                links[key] = links.get(key, 0) + 1
                total += state.st_blocks * 512 if links[key] == state.st_nlink else 0
    return total


__all__ = [
    "FAMILIES",
    "Facts",
    "is_settled",
    "journal_mark",
    "modified_ns",
    "owned_bytes",
    "read_facts",
    "size_bytes",
    "sync_folder",
    "write_json",
]
