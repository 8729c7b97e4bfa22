"""Calls of a back end that may have to wait: what is throttled or away is tried again, for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from tracer import clock
from tracer.backends.base import Rejected, Throttled, Unreachable
from tracer.migration.addresses import without_secrets

T = TypeVar("T")
_TRIES = 5
_FIRST_S = 0.5
_LONGEST_S = 60.0


#: What a client raises that its back end or source did not foresee: it costs a batch or a run, never the others.
FAULTS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, MemoryError, OSError,
    RuntimeError, TypeError, ValueError,
)  # fmt: skip


def unforeseen(error: Exception) -> Rejected:
    """Return an error of a client as one of ours, without what is secret in an address."""
    return Rejected(without_secrets(f"{type(error).__name__}: {error}"))


class Calls:
    """Calls a back end, and tries again.

    Args:
        first_s: How long the first wait for a peer that is away lasts; each further one is twice as long.
    """

    def __init__(self, first_s: float = _FIRST_S) -> None:
        self._first_s = first_s
        self._pause = threading.Event()
        #: Why the last batch was rejected.
        self.why = ""

    def do(self, work: Callable[[], T]) -> T:
        """Do some work, several times if need be.

        Raises:
            BackendError: The peer is away, or refuses, or its client failed in a way that nobody foresaw.
        """
        wait_s, tries = self._first_s, 0
        while True:
            tries += 1
            try:
                return work()
            except Throttled as error:
                if tries == _TRIES:
                    raise
                clock.wait(self._pause, min(max(error.after_s, 0.0), _LONGEST_S))
            except Unreachable:
                if tries == _TRIES:
                    raise
                clock.wait(self._pause, wait_s)
                wait_s *= 2
            except FAULTS as error:
                raise unforeseen(error) from error

    def lost(self, work: Callable[[], None], count: int) -> int:
        """Do some work, and return how many of so many events the peer will never take; `why` says why."""
        try:
            self.do(work)
        except Rejected as error:
            self.why = str(error)
            return count if error.lost is None else error.lost
        return 0


__all__ = ["FAULTS", "Calls", "unforeseen"]
