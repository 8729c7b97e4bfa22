"""What the process and the machine take: processor, memory, disk, network, GPUs.

The thread of a `Collector` pays for the import of psutil and for every sample; nothing here runs inside `log` or
`step`. No figure sleeps: a percentage is the difference between two samples.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tracer import clock
from tracer.capture.gpu import GPUs
from tracer.events import Scalars
from tracer.sink import Guard, emit

if TYPE_CHECKING:
    from tracer.config import Config

_GB, _MB = 1 << 30, 1 << 20
_CGROUP = "/sys/fs/cgroup"
_NUMBERS = (int, float)


class SystemMetrics:
    """Figures of the system by group, as the Tracer documents shape them.

    Args:
        config: `storage_path` says whose disk is looked at; the working folder's without it.
        cgroup: Where the limits of this container stand.

    Example:
        >>> sorted(SystemMetrics().capture())
        ['cpu', 'disk', 'memory', 'network', 'process', 'timestamp']
    """

    def __init__(self, config: Config | None = None, *, cgroup: str = _CGROUP) -> None:
        import psutil

        self.config = config
        self._psutil = psutil
        self._process = psutil.Process()
        self._disk = getattr(config, "storage_path", None) or os.getcwd()
        self._cgroup = cgroup
        self._gpus = GPUs()
        # The first call of each is the start of its measure and has no meaning of its own.
        psutil.cpu_percent(interval=None)
        self._process.cpu_percent(interval=None)
        self._before: tuple[float, ...] = (clock.monotonic(), *self._traffic())
        self._rates = [0.0] * (len(self._before) - 1)

    def capture(self) -> dict[str, object]:
        """Return the figures of now; percentages and rates are since the call before. Never sleeps.

        Returns:
            `timestamp`, `cpu{percent, count, process_percent, load}`, `memory{total_gb, available_gb, percent,
            process_rss_gb, tree_rss_gb, swap_percent}`, `disk`, `network`, `process` and, where there are any,
            `gpu{gpu_0: {name, memory_allocated_gb, memory_reserved_gb, utilization, memory_util, temperature}}`. Inside
            a container its memory limit is the total.
        """
        with self._process.oneshot():
            now, *traffic = (clock.monotonic(), *self._traffic())
            seconds = now - self._before[0]
            if seconds > 0:  # two captures in one tick of the clock share their rates
                self._rates = [(new - old) / seconds for new, old in zip(traffic, self._before[1:], strict=True)]
                self._before = (now, *traffic)
            read_rate, written_rate, received_rate, sent_rate = (rate / _MB for rate in self._rates)
            figures: dict[str, object] = {
                "timestamp": clock.now(),
                "cpu": self._cpu(),
                "memory": self._memory(),
                "disk": self._free() | {"read_mb_per_s": read_rate, "written_mb_per_s": written_rate},
                "network": {"received_mb_per_s": received_rate, "sent_mb_per_s": sent_rate},
                "process": {"threads": self._process.num_threads()},
            }
        if gpu := self._gpus.figures():
            figures["gpu"] = gpu
        return figures

    def _cpu(self) -> dict[str, float | int | None]:
        """Return the load of the machine and of this process; 100 is one core for the process, all for the machine."""
        return {
            "percent": self._psutil.cpu_percent(interval=None),
            "count": self._psutil.cpu_count(),
            "process_percent": self._process.cpu_percent(interval=None),
            "load": os.getloadavg()[0],
        }

    def _memory(self) -> dict[str, float]:
        """Return the memory of the machine, or of the container where that is less, and of this process."""
        machine = self._psutil.virtual_memory()
        total, available = machine.total, machine.available
        limit = _bytes_in(f"{self._cgroup}/memory.max")
        if limit is not None and limit < total:
            # The page cache counts as taken there, but the kernel gives it back when it is needed.
            cache = _bytes_in(f"{self._cgroup}/memory.stat", "inactive_file") or 0
            taken = max(0, (_bytes_in(f"{self._cgroup}/memory.current") or 0) - cache)
            total, available = limit, min(available, max(0, limit - taken))
        own = self._process.memory_info().rss
        return {
            "total_gb": total / _GB,
            "available_gb": available / _GB,
            "percent": 100 * (total - available) / total,
            "process_rss_gb": own / _GB,
            "tree_rss_gb": (own + sum(_rss(child) for child in _descendants(os.getpid()))) / _GB,
            "swap_percent": self._psutil.swap_memory().percent,
        }

    def _free(self) -> dict[str, object]:
        """Return how full the disk is that the store lies on; nothing when it cannot be asked."""
        folder = self._disk
        while not os.path.exists(folder) and os.path.dirname(folder) != folder:
            folder = os.path.dirname(folder)
        with contextlib.suppress(OSError):
            usage = self._psutil.disk_usage(folder)
            return {"free_gb": usage.free / _GB, "percent": usage.percent}
        return {}

    def _traffic(self) -> tuple[int, int, int, int]:
        """Return bytes read and written by this process, and received and sent by the machine, since ever."""
        read = written = received = sent = 0
        with contextlib.suppress(self._psutil.Error, AttributeError):  # macOS has no figures per process
            counters = self._process.io_counters()
            read, written = counters.read_bytes, counters.write_bytes
        with contextlib.suppress(OSError, AttributeError):  # a machine without any network has no figures at all
            network = self._psutil.net_io_counters()
            received, sent = network.bytes_recv, network.bytes_sent
        return read, written, received, sent


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
                self._sampler.sample()
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
                elif isinstance(value, _NUMBERS) and name not in ("count", "total_gb"):
                    yield f"system/{group}/{name}", value


def _bytes_in(path: str, field: str = "") -> int | None:
    """Return the number in a file of the kernel, or that behind a name in it; None where there is none."""
    try:
        with open(path, encoding="ascii") as file:
            words = file.read().split()
    except OSError:
        return None
    word = words[words.index(field) + 1] if field in words else "" if field else next(iter(words), "")
    return int(word) if word.isdigit() else None


def _descendants(pid: int) -> Iterator[int]:
    """Yield the processes below one; asks the kernel for children instead of reading every process of the machine."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:  # the thread has ended
            continue
        for child in children:
            yield child
            yield from _descendants(child)


def _rss(pid: int) -> int:
    """Return the resident memory of a process, 0 once it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


__all__ = ["Collector", "SystemMetrics", "SystemSampler"]
