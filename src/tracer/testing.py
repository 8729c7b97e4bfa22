"""What you need to test code that records: `capture_events` and `FakeClock`; for a back end of yours `check_backend`.

The first two put back what was there before when their block ends.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

from contextlib import contextmanager

from tracer import clock, sink

_NS = 1_000_000_000
#: 2026-01-01 00:00 UTC: a moment like any other, and the same in every test.
_START_S = 1_767_225_600.0


@contextmanager
def capture_events() -> Iterator[list[object]]:
    """Collect what instruments emit in this block, instead of recording it.

    Yields:
        The events so far, in order; the list stays after the block.

    Example:
        >>> from tracer import sink
        >>> from tracer.events import Scalars
        >>> with capture_events() as events:
        ...     sink.emit(Scalars({"load": 0.5}))
        >>> events
        [Scalars({'load': 0.5}, step=None)]
    """
    events: list[object] = []
    before = sink.listen(events.append)
    try:
        yield events
    finally:
        sink.listen(before)


class FakeClock:
    """Every clock that Tracer reads, moved by hand; waiting for an event moves it too.

    Args:
        now_s: The wall clock at the beginning, seconds since 1970.

    Example:
        >>> with FakeClock() as clock:
        ...     clock.advance(10.0, cpu_s=2.5)
        ...     clock.now() - clock.monotonic()
        1767225600.0
    """

    _REPLACED = ("now", "now_ns", "monotonic", "monotonic_ns", "process_time", "thread_time", "wait")

    def __init__(self, now_s: float = _START_S) -> None:
        # Whole nanoseconds: sums of floats would drift.
        self._wall_ns, self._monotonic_ns, self._cpu_ns = round(now_s * _NS), 0, 0
        self._before: dict[str, object] = {}

    def advance(self, seconds: float, *, cpu_s: float = 0.0) -> None:
        """Let time pass.

        Args:
            seconds: What passes on the wall and on the monotonic clock.
            cpu_s: The processor time that the program takes meanwhile.
        """
        self._wall_ns += round(seconds * _NS)
        self._monotonic_ns += round(seconds * _NS)
        self._cpu_ns += round(cpu_s * _NS)

    def set_wall(self, now_s: float) -> None:
        """Set the wall clock alone, as an administrator or a time server does; durations do not change."""
        self._wall_ns = round(now_s * _NS)

    def now(self) -> float:
        """Return the wall clock in seconds."""
        return self._wall_ns / _NS

    def now_ns(self) -> int:
        """Return the wall clock in nanoseconds."""
        return self._wall_ns

    def monotonic(self) -> float:
        """Return the monotonic clock in seconds."""
        return self._monotonic_ns / _NS

    def monotonic_ns(self) -> int:
        """Return the monotonic clock in nanoseconds."""
        return self._monotonic_ns

    def process_time(self) -> float:
        """Return the processor time of the process."""
        return self._cpu_ns / _NS

    thread_time = process_time

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Tell whether the event is set; if it is not, the whole wait passes at once."""
        if not event.is_set():
            self.advance(seconds)
        return event.is_set()

    def __enter__(self) -> Self:
        """Put this clock in place of the real ones."""
        self._before = {name: getattr(clock, name) for name in self._REPLACED}
        for name in self._REPLACED:
            setattr(clock, name, getattr(self, name))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the real clocks back."""
        for name, function in self._before.items():
            setattr(clock, name, function)


def check_backend(
    make: object,
    *,
    read: Callable[[Mapping[str, str]], Mapping[str, Sequence[tuple[int, float]]]] | None = None,
    options: Mapping[str, object] | None = None,
    losses: Collection[str] = (),
    dead: Mapping[str, object] | None = None,
    many: int = 10_000,
) -> list[str]:
    """Try whether a back end keeps the contract: open, resume, repeat, close, kinds, names, values, many points.

    Args:
        make: A `Backend` class, a class or object of a plugin with `log_metric`, or a function that gets the options
            and returns either.
        read: Gets what `open` returned and returns what the peer has, by its own reader: name → steps and values. They
            are compared bit for bit. Without it is only seen that nothing raises.
        options: What the back end is told.
        losses: What the peer cannot hold, beside what `Limits.losses` names: of `NaN Inf -0.0 tiny large negative`.
        dead: Options that lead where nobody answers: `open` must say so then.
        many: So many points are sent of one series.

    Returns:
        What was tried.

    Raises:
        AssertionError: Something is not as it must be; it says what, and what to do.

    Example:
        >>> from tracer.backends.memory import MemoryBackend
        >>> check_backend(MemoryBackend)[0]
        'it opens and resumes'
    """
    from tracer.backends.conformance import Conformance

    suite = Conformance(make, read, options or {}, losses=losses, dead=dead, many=many)
    tried = []
    for check in suite.checks():
        check()
        tried.append(check.__name__.replace("_", " "))
    return tried


__all__ = ["FakeClock", "capture_events", "check_backend"]
