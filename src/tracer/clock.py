"""The only reader of clocks: call `clock.monotonic()` through the module, so that a test can replace it.

Wall time dates a record; durations, heartbeats and timeouts use the monotonic clock, which no one can set.
"""

from __future__ import annotations

import os
import threading
import time

now = time.time
now_ns = time.time_ns
monotonic = time.monotonic
monotonic_ns = time.monotonic_ns
process_time = time.process_time
thread_time = time.thread_time


def now_us() -> int:
    """Return microseconds since 1970 UTC, the unit of every stored time."""
    return now_ns() // 1_000


def wait(event: threading.Event, seconds: float) -> bool:
    """Wait until the event is set or the time is over; tell whether it was set."""
    return event.wait(seconds)


def boot_id() -> str:
    """Return what names this boot of this machine: after another boot the page cache is gone."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return f"up-{int(now() - monotonic()) // 60}"


def process_started(pid: int | None = None) -> int:
    """Return the start time of a process in kernel ticks, or 0 if it is gone: with the id it names the process."""
    try:
        with open(f"/proc/{pid or os.getpid()}/stat", "rb") as file:
            # The name in parentheses may hold blanks and parentheses itself: count from the last one.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0
