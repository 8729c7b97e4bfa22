"""Whether a run still lives: its process by id and start time on this boot, elsewhere its heartbeat.

`running` in `run.json` says only that nobody wrote an end. A process that was killed cannot, and its forked children
may live on; so the process itself is asked.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from tracer import clock, events, journal, places, runfile
from tracer.errors import JournalCorrupt, StoreError
from tracer.storage.tails import list_segments, read_header

_SILENT_US = 30_000_000
#: How long a gap in the numbers of segments, or silence where no lock can be asked, may last.
_GAP_US = 60_000_000
#: States of a process in /proc/<pid>/stat that is dead and only waits for its parent to notice.
_DEAD = (b"Z", b"X", b"x")


@dataclass(frozen=True, slots=True)
class Sign:
    """The last sign of life of a run."""

    is_alive: bool
    heartbeat: int | None
    steps: int


def look(folder: str, facts: Mapping[str, object]) -> Sign:
    """Look for signs of life in a run's folder.

    Args:
        folder: The run's folder.
        facts: What `run.json` says of its owner: `host pid process_started boot status`.
    """
    heartbeat, steps = _beats(os.path.join(folder, "journal"))
    if heartbeat is None:
        try:
            heartbeat = os.stat(os.path.join(folder, runfile.NAME)).st_mtime_ns // 1_000
        except OSError:
            heartbeat = None
    if facts.get("status") != events.RUNNING:
        return Sign(is_alive=False, heartbeat=heartbeat, steps=steps)
    alive = process_is_alive(facts)
    if alive is None:
        alive = heartbeat is not None and clock.now_us() - heartbeat < _SILENT_US
    return Sign(alive, heartbeat, steps)


def crash_reason(heartbeat: int | None) -> str:
    """Return what is told of a run that ended without saying so."""
    if heartbeat is None:
        return "no end record, and no sign of life"
    last = dt.datetime.fromtimestamp(heartbeat / 1e6, tz=dt.UTC)
    return f"no end record; last heartbeat {last:%Y-%m-%d %H:%M:%S} UTC"


def process_is_alive(facts: Mapping[str, object]) -> bool | None:
    """Tell whether the process that owns a run lives; None when it cannot be asked from here."""
    pid, started = facts.get("pid"), facts.get("process_started")
    if not isinstance(pid, int) or facts.get("boot") != clock.boot_id() or facts.get("host") != socket.gethostname():
        return None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return False if os.path.isdir("/proc/self") else None
    if fields[0] in _DEAD:
        return False
    return not started or int(fields[19]) == started


def is_finished(path: str) -> bool:
    """Tell whether nobody writes into a segment any more: it is closed, or its writer's lock is free."""
    try:
        with open(path, "rb", buffering=0) as file:
            with contextlib.suppress(JournalCorrupt):
                header = journal.Header.unpack(file.read(journal.HEADER_SIZE), path)
                if header.closed:
                    return True
                if not _locks_count(os.path.dirname(path)):
                    alive = process_is_alive(header.identity)
                    return alive is False or (alive is None and clock.now_us() - header.heartbeat_us > _GAP_US)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return False
    return True


def may_follow_late(path: str) -> bool:
    """Tell whether the segment before this one may still appear: a living writer keeps it in memory."""
    try:
        header = read_header(path)
    except (OSError, StoreError):
        return False
    if header.size == 0 or process_is_alive(header.identity) is False:
        return False  # a command's only segment, or nobody is there to bring the missing one
    opened = header.identity.get("opened", 0)
    return isinstance(opened, int) and clock.now_us() - opened < _GAP_US


def _beats(folder: str) -> tuple[int | None, int]:
    """Return the newest heartbeat and the highest step that the headers of a journal tell."""
    heartbeat: int | None = None
    steps = 0
    for segments in list_segments(folder).values():
        for _, path in reversed(segments):  # the newest segment of a writer has its newest heartbeat
            try:
                header = read_header(path)
            except (OSError, StoreError):
                continue
            if header.heartbeat_us:
                heartbeat, steps = max(heartbeat or 0, header.heartbeat_us), max(steps, header.steps)
            break
    return heartbeat, steps


@lru_cache(maxsize=64)
def _locks_count(folder: str) -> bool:
    """Tell whether file locks may be trusted in a folder."""
    return not places.is_network(folder)


__all__ = ["Sign", "crash_reason", "is_finished", "look", "may_follow_late", "process_is_alive"]
