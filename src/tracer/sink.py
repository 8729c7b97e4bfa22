"""Where events go now: producers call `emit`, `run.py` decides who listens.

Without a run events are forgotten, so an instrument used before `init` is harmless.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracer.events import Counters

import sys
from collections import deque
from contextlib import contextmanager
from threading import get_ident

from tracer import clock, events

_REPEAT_AFTER_S = 60.0


#: Kept of what comes before a run: parameters, lines of output.
_MAX_EARLY = 20_000
_early: deque[object] = deque(maxlen=_MAX_EARLY)
_begin: Callable[[], None] | None = None


def _forget(event: object) -> None:
    """Take an event when no run listens: forget it, or begin a run if capture waits for a reason to."""
    if _begin is None:
        return
    if not getattr(event, "BEGINS", False):
        _early.append(event)
        return
    _begin()
    if _listener is not _forget:
        _listener(event)


def begin_with(begin: Callable[[], None] | None) -> None:
    """Have a run begun by the first event that is a reason to; what came before it is not lost. None ends that."""
    global _begin  # noqa: PLW0603 -- as below
    _begin = begin
    _early.clear()


def deliver_early() -> None:
    """Hand what came before the run to the run; called once it is complete."""
    while _early:
        _listener(_early.popleft())


_listener: Callable[[object], None] = _forget


#: Threads that work for Tracer itself, such as one that serves a back end here: what its client says is no news.
own_threads: set[int] = set()


def emit(event: object) -> None:
    """Hand an event to the run that is active, if any."""
    if own_threads and get_ident() in own_threads:
        return
    _listener(event)


def listen(listener: Callable[[object], None] | None) -> Callable[[object], None]:
    """Send events to this listener from now on, or nowhere; return the one before."""
    global _listener  # noqa: PLW0603 -- one sink for the whole process, changed by `run.py` only
    before = _listener
    _listener = listener or _forget
    return before


class Guard:
    """Keeps a failure of ours from the user's program: counts it, says it once per cause, goes on.

    With `strict` (set in our tests) the failure is raised instead.
    """

    __slots__ = ("_said", "counters", "quiet", "strict")

    def __init__(self, counters: Counters | None = None, *, strict: bool = False, quiet: bool = False) -> None:
        self.counters = counters or events.Counters()
        self.strict, self.quiet = strict, quiet
        self._said: dict[str, float] = {}

    def say(self, cause: str, message: str) -> None:
        """Tell the user at once, then at most once a minute for the same cause."""
        now = clock.monotonic()
        if now - self._said.get(cause, -_REPEAT_AFTER_S) < _REPEAT_AFTER_S:
            return
        self._said[cause] = now
        if not self.quiet:
            say(f"tracer: {message}")

    @contextmanager
    def __call__(self, doing: str) -> Iterator[None]:
        """Guard a block: `with guarded("reading git"):`."""
        try:
            yield
        except Exception as error:  # the one place where everything of ours ends: the program must go on
            if self.strict:
                raise
            self.counters.add("internal_errors")
            self.say(f"{doing}: {type(error).__name__}", f"{doing} failed ({error}). Your program is unaffected.")


def say(line: str) -> None:
    """Write one line for the user; a closed stderr is no reason to fail."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        return


__all__ = ["Guard", "begin_with", "deliver_early", "emit", "listen", "say"]
