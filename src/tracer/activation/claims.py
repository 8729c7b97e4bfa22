"""Who owns the run of a command: the first process of each rank that leaves its mark in the run's folder.

    .claim.0.1   rank 0, first life: `{"pid": …, "started": …, "boot": …, "host": …, "job": …}`
    .claim.0.2   another process went on with the run, after the first had ended it or was killed
    .claim.1.1   rank 1: writes its own part of the same run

Nobody talks to anybody: to make a file that must not be there yet is all it takes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

import itertools
import json
import os
import socket

from tracer import clock, events, runfile
from tracer.record.identity import job_key

#: States of a process in /proc/<pid>/stat that is dead and only waits for its parent to notice.
_DEAD = (b"Z", b"X", b"x")


def take(folder: str, rank: int) -> int | None:
    """Claim a rank's part of a run for this process.

    Args:
        folder: The run's folder.
        rank: This process' rank.

    Returns:
        Which life of that part begins, 1 for the first; None where a living process has it.
    """
    os.makedirs(folder, exist_ok=True)
    for life in itertools.count(1):
        path = os.path.join(folder, f".claim.{rank}.{life}")
        if _leave_mark(path):
            return life
        said = _read(path)
        if _is_ours(said):  # of the program that has turned itself into this one
            continue
        if _is_alive(said) and (rank > 0 or runfile.read(folder).get("status", events.RUNNING) == events.RUNNING):
            return None
    return None


def job_of(folder: str, rank: int) -> str | None:
    """Return the job of the process that claimed a rank's part last; None where nobody has."""
    job = None
    for life in itertools.count(1):
        said = _read(os.path.join(folder, f".claim.{rank}.{life}"))
        if not said:
            return job
        job = str(said.get("job", ""))
    return job


def is_held(folder: str, rank: int) -> bool:
    """Tell whether another living process has claimed a rank's part of a run."""
    said: dict[str, Any] = {}
    for life in itertools.count(1):
        path = os.path.join(folder, f".claim.{rank}.{life}")
        if not os.path.exists(path):
            break
        said = _read(path)
    return bool(said) and not _is_ours(said) and _is_alive(said)


def _leave_mark(path: str) -> bool:
    """Make the file with what names this process; tell whether it was not there yet."""
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    said = {"pid": os.getpid(), "started": clock.process_started(), "boot": clock.boot_id()}
    os.write(fd, json.dumps({**said, "host": socket.gethostname(), "job": job_key()}).encode())
    os.close(fd)
    return True


def _read(path: str) -> dict[str, Any]:
    """Return what a mark says; nothing of one that is not there, or being written right now."""
    try:
        with open(path, encoding="utf-8") as file:
            said = json.load(file)
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _is_ours(said: dict[str, Any]) -> bool:
    """Tell whether a mark is this process' own."""
    return said.get("pid") == os.getpid() and said.get("started") == clock.process_started()


def _is_alive(said: dict[str, Any]) -> bool:
    """Tell whether the process of a mark lives; one that cannot be asked from here is taken to."""
    if not said or said.get("host") != socket.gethostname():
        return True
    return said.get("boot") == clock.boot_id() and process_is_alive(said.get("pid"), said.get("started"))


def process_is_alive(pid: object, started: object) -> bool:
    """Tell whether a process of this machine lives, by its id and the time of its start."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return not os.path.isdir("/proc/self")
    return fields[0] not in _DEAD and (not started or int(fields[19]) == started)


__all__ = ["is_held", "job_of", "process_is_alive", "take"]
