"""The end of a run whose command recorded nothing itself: a launcher, a script of the shell, an early failure."""

from __future__ import annotations

import os

from tracer import clock, events, runfile
from tracer.activation.claims import process_is_alive
from tracer.record.endings import Endings


class Guardian:
    """Ends the run of this process' command, if nobody else has, as the command ends.

    Args:
        folder: The run's folder.
        leads: Whether the command only starts those who record: a failure of it is one of the run, even if what
            recorded came to a good end.
    """

    def __init__(self, folder: str, *, leads: bool) -> None:
        self._folder, self._leads = folder, leads
        self._endings = Endings(self._end, lambda: 0)

    def leave(self) -> None:
        """Watch no more: the run has an owner that ends it."""
        self._endings.restore()

    def _end(self, status: str, reason: str | None, exit_code: int | None) -> None:
        """Write the end."""
        conclude(self._folder, status, reason, exit_code, leads=self._leads)


def conclude(folder: str, status: str, reason: str | None, exit_code: int | None, *, leads: bool) -> None:
    """Write how a command ended into the facts of its run, where that is still to be said.

    Args:
        folder: The run's folder.
        status: `completed` or `failed`.
        reason: Why, in one line.
        exit_code: The command's exit code.
        leads: See `Guardian`.
    """
    facts = runfile.read(folder)
    owner = facts.get("pid")
    is_ours = owner == os.getpid()
    is_dead = not is_ours and not process_is_alive(owner, facts.get("process_started"))
    known = facts.get("status")
    if known == events.RUNNING and (is_ours or (is_dead and status == events.FAILED)):
        facts["ended"] = clock.now_us()
    elif not (leads and known == events.COMPLETED and status == events.FAILED):
        return
    facts.update(status=status, reason=reason, exit_code=exit_code)
    runfile.replace(folder, facts)


__all__ = ["Guardian", "conclude"]
