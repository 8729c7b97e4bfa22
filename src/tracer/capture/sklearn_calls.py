"""The calls into scikit-learn that are being made now, and how they lie in each other.

A context variable holds the innermost call of this thread. Pool threads of joblib carry no context, so a call on one of
them lies in the newest of the outermost calls. There is no lock: a process that is forked while one is held never gets
it, and what several threads count at the same instant may be one too few.
"""

# ruff: noqa: ANN401 -- estimators

from __future__ import annotations

import itertools
import multiprocessing
import threading
from contextvars import ContextVar, Token
from typing import Any

from tracer import clock
from tracer.state import _state

_numbers = itertools.count(1)
_current: ContextVar[Call | None] = ContextVar("tracer_sklearn_call", default=None)
#: The outermost calls that are being made now; pool threads of joblib do not know in which one they work.
_outermost: list[Call] = []


class Call:
    """One call that is being made.

    Args:
        subject: The estimator; for a function that works on one, none.
        name: Class and method, or the function's name.
        parent: The call it lies in.
    """

    __slots__ = ("began", "inner", "is_done", "name", "number", "parent", "subject")

    def __init__(self, subject: Any, name: str, parent: Call | None) -> None:
        self.subject, self.name, self.parent = subject, name, parent
        self.number = next(_numbers)
        self.inner: dict[str, list[float]] = {}
        self.is_done = False
        self.began = clock.monotonic()

    def count_in(self) -> tuple[int, float]:
        """Count this call in the one it lies in; return how many of its kind there are, and its seconds."""
        seconds = clock.monotonic() - self.began
        totals = (self.parent or top()).inner.setdefault(self.name, [0, 0.0])
        totals[0] += 1
        totals[1] += seconds
        return int(totals[0]), seconds

    def inner_counts(self) -> dict[str, dict[str, float]]:
        """Return what was called inside, how often and how long."""
        return {
            name: {"count": int(count), "seconds": round(seconds, 6)} for name, (count, seconds) in self.inner.items()
        }

    def place(self) -> dict[str, object]:
        """Return which call it is, and in which one it lies."""
        if self.parent is None:
            return {"call": self.number}
        return {"call": self.number, "parent": self.parent.name, "parent_call": self.parent.number}


class Top(Call):
    """Stands above the outermost calls of one run, and counts them; a class gives the run its parameters once."""

    __slots__ = ("run", "said")

    def __init__(self, run: str | None) -> None:
        super().__init__(None, "", None)
        self.run = run
        self.said: set[type] = set()


_tops: list[Top] = [Top(None)]


def top() -> Top:
    """Return what counts the outermost calls of the run that is active."""
    if _tops[0].run != _state.run_id:
        _tops[0] = Top(_state.run_id)
    return _tops[0]


def forget() -> None:
    """Forget what was counted, as in a process that has just begun."""
    _tops[0] = Top(None)


def enter(call: Call) -> Token[Call | None]:
    """Begin a call: what this thread calls from now on lies in it."""
    if call.parent is None:
        _outermost.append(call)
    return _current.set(call)


def leave(call: Call, token: Token[Call | None]) -> None:
    """End a call, however it ended."""
    _current.reset(token)
    if call in _outermost:
        _outermost.remove(call)


def is_inside(estimator: Any) -> bool:
    """Tell whether the innermost call is one of the same estimator: its class called that of its base class."""
    current = _current.get()
    return current is not None and current.subject is estimator


def parent() -> Call | None:
    """Return the call that this one lies in; joblib's pool threads work for the newest of the outermost ones."""
    current = _current.get()
    if current is None and _outermost and _is_pool_thread():
        return next(reversed(_outermost.copy()), None)
    return current


def _is_pool_thread() -> bool:
    """Tell whether this is a thread of the pool that joblib uses; its threads carry no context."""
    thread = threading.current_thread()
    return thread.daemon and thread.name.endswith("(worker)")


def is_worker() -> bool:
    """Tell whether this process was started to work for another one."""
    return multiprocessing.current_process().name != "MainProcess"


__all__ = ["Call", "Top", "enter", "forget", "is_inside", "is_worker", "leave", "parent", "top"]
