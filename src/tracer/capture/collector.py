"""The thread that samples the system, and what becomes of the figures: metrics `system/…`.

The thread pays for the import of psutil and for every sample; nothing here runs inside `log` or `step`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracer.capture.system import SystemMetrics
    from tracer.config import Config

import os
import threading

from tracer import clock
from tracer.errors import MissingDependency
from tracer.events import Scalars
from tracer.sink import Guard, emit

_NUMBERS = (int, float)
#: What never changes is in the run's environment, and makes no curve.
_CONSTANT = ("count", "physical", "allowed", "quota", "total_gb", "cgroup_max_gb", "fds_limit", "memory_total_gb")


class SystemSampler:
    """Turns the system's figures into metrics `system/…`; `latest` holds the last ones in the documents' shape.

    Nothing is imported or measured before the first `sample`, which belongs on a background thread.

    Args:
        config: See `SystemMetrics`.

    Example:
        >>> sampler = SystemSampler()
        >>> sampler.sample()
        >>> 0 <= sampler.latest["memory"]["percent"] <= 100
        True
    """

    def __init__(self, config: Config | None = None) -> None:
        self._config = config
        self._metrics: SystemMetrics | None = None
        self.latest: dict[str, object] | None = None

    def sample(self) -> None:
        """Measure and emit."""
        if self._metrics is None:
            from tracer.capture.system import SystemMetrics  # on this thread: it takes its time

            self._metrics = SystemMetrics(self._config)
        figures = self._metrics.capture()
        self.latest = figures
        emit(Scalars(dict(_flat(figures))))


class Collector:
    """A daemon thread that samples the system at once, then at a regular interval, and a last time when it is stopped.

    Args:
        interval_s: Seconds from one sample to the next.
        sampler: What is sampled; the system when None. After ten failures in a row the thread ends.
        guard: What keeps a failure on this side.

    Example:
        >>> collector = Collector(3600.0)
        >>> collector.start()
        >>> collector.stop()
        True
        >>> 0 < collector.latest["memory"]["process_rss_gb"]
        True
    """

    _MAX_FAILURES = 10

    def __init__(
        self, interval_s: float = 10.0, *, sampler: SystemSampler | None = None, guard: Guard | None = None
    ) -> None:
        self._interval_s, self._sampler, self._guard = interval_s, sampler or SystemSampler(), guard or Guard()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = 0

    @property
    def latest(self) -> dict[str, object] | None:
        """The figures of the last sample, as `SystemMetrics.capture` shapes them; None before the first."""
        return self._sampler.latest

    @property
    def is_running(self) -> bool:
        """Whether the thread lives, in this process: a forked child has none until it calls `start`."""
        return self._thread is not None and self._pid == os.getpid() and self._thread.is_alive()

    def start(self) -> None:
        """Begin; when it runs already, nothing happens."""
        if self.is_running:
            return
        self._stopping = threading.Event()  # a forked child must not wait on a lock that its parent held
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._collect, args=(self._stopping,), name="tracer-system", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> bool:
        """Take a last sample and end.

        Args:
            timeout_s: The longest time to wait; a sample that hangs on a dead disk is left behind.

        Returns:
            Whether it has ended.
        """
        if not self.is_running or self._thread is None:
            return True
        self._stopping.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _collect(self, stopping: threading.Event) -> None:
        """Sample until told to stop; a late sample does not shift those that follow."""
        due, failures, ended = clock.monotonic(), 0, False
        while failures < self._MAX_FAILURES:
            failures += 1
            with self._guard("sampling the system"):
                try:
                    self._sampler.sample()
                except MissingDependency as error:  # it will not be there in ten seconds either
                    self._guard.say("system", f"no system metrics: {error}")
                    return
                failures = 0
            if ended:
                return
            due = max(due + self._interval_s, clock.monotonic())
            ended = clock.wait(stopping, due - clock.monotonic())


def _flat(figures: dict[str, object]) -> Iterator[tuple[str, object]]:
    """Yield the figures that make curves; what never changes is in the run's environment."""
    for group, values in figures.items():
        if isinstance(values, dict):
            for name, value in values.items():
                if isinstance(value, dict):  # a GPU: gpu_0 becomes gpu/0
                    place = f"system/{group}/{name.removeprefix('gpu_')}"
                    yield from (
                        (f"{place}/{key}", figure) for key, figure in value.items() if isinstance(figure, _NUMBERS)
                    )
                elif isinstance(value, _NUMBERS) and name not in _CONSTANT:
                    yield f"system/{group}/{name}", value


__all__ = ["Collector", "SystemSampler"]
