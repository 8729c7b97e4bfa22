"""How long the end of a run waits for its lanes: while they get on, and two seconds for those that do not.

A lane that computes gets on, as one that imports its client does, or one that waits for a processor on a busy machine.
One that waits for its peer does not.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

import contextlib
import os
import threading

from tracer import clock
from tracer.cursors import COMPLETE, REFUSED, UNREACHABLE, Cursor

_POLL_S = 0.02
#: A lane in which nothing moves is not waited for any longer.
_STILL_S = 1.8
#: A process of ours that is only beginning is: it waits for nobody.
_BEGINS_S = 10.0
#: So much work is more than waiting takes.
_WORKS_S = 0.2


class _Watched:
    """A lane, and when it last got on."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder, self.name = folder, name
        self._mark: tuple[object, ...] | None = None
        self._failures = -1
        self._work_s = 0.0
        self.moved = clock.monotonic()
        self.is_over = False

    def look(self, pid: int | None, work_s: float) -> None:
        """See whether it got on."""
        cursor = Cursor(self._folder, self.name)
        said, now = cursor.said, clock.monotonic()
        failures = int(said.get("failures", 0))
        if self._mark is None:
            self._failures = failures
        # A lane without a peer writes down its failures; that is no progress.
        updated = None if cursor.state == UNREACHABLE else said.get("updated")
        mark = (said.get("sent"), said.get("rejected"), updated)
        if mark != self._mark:
            self._mark, self.moved = mark, now
        if work_s - self._work_s > _WORKS_S and cursor.state != UNREACHABLE:
            self._work_s, self.moved = work_s, now
        if pid is not None and said.get("server") != pid:
            self.moved = max(self.moved, now - _STILL_S + _POLL_S)
        is_tried_in_vain = cursor.state == UNREACHABLE and self._failures < failures and failures > 1
        self.is_over = cursor.state in (COMPLETE, REFUSED) or is_tried_in_vain


def wait(
    folder: str,
    names: Iterable[str],
    timeout_s: float,
    process: Callable[[str], int | None],
    work: Callable[[str], float],
) -> None:
    """Return when each lane is through, or nothing moves any more.

    Args:
        folder: The run's folder.
        names: The lanes.
        timeout_s: The longest time.
        process: Returns the process that serves a lane; None while there is none, or for threads.
        work: Returns how long whoever serves it has worked, in seconds.
    """
    began, pause = clock.monotonic(), threading.Event()
    watched = [_Watched(folder, name) for name in names]
    while True:
        now = clock.monotonic()
        for one in watched:
            one.look(process(one.name) if now - began < _BEGINS_S else None, work(one.name))
        left = [one for one in watched if not one.is_over and now - one.moved < _STILL_S]
        if not left or now - began >= timeout_s:
            return
        clock.wait(pause, _POLL_S)


def worked(process: int | str | None, thread: int | None = None) -> float:
    """Return how long threads have worked or waited for a processor, in seconds; 0 where the system does not tell.

    Args:
        process: The process; of it all threads count but the first, which only looks around.
        thread: Only this one.
    """
    if process is None:
        return 0.0
    folder = f"/proc/{process}/task"
    total = 0
    with contextlib.suppress(OSError, ValueError):
        for task in os.listdir(folder) if thread is None else [str(thread)]:
            if task != str(process):
                with open(f"{folder}/{task}/schedstat", encoding="ascii") as file:
                    ran, waited, _ = file.read().split()
                total += int(ran) + int(waited)
    return total / 1e9


__all__ = ["wait", "worked"]
