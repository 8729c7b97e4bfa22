"""Counters of the machine and of processes as psutil tells them; the same methods as `proc.Machine`."""

from __future__ import annotations

import contextlib

import psutil

from tracer.capture.proc import Usage


class Machine:
    """The machine as psutil shows it, on every system that it knows."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}

    def cpu(self) -> tuple[float, float]:
        """Return the seconds of all processors together: those that were busy, and all of them."""
        return _busy(psutil.cpu_times())

    def cores(self) -> list[tuple[float, float]]:
        """Return the same of each processor."""
        return [_busy(times) for times in psutil.cpu_times(percpu=True)]

    def counts(self) -> tuple[int, int | None]:
        """Return how many logical and how many physical processors there are."""
        return psutil.cpu_count() or 1, psutil.cpu_count(logical=False)

    def memory(self) -> tuple[int, int, int, int]:
        """Return total and available memory, and total and used swap, in bytes."""
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        return memory.total, memory.available, swap.total, swap.used

    def network(self) -> tuple[int, int]:
        """Return bytes received and sent over all interfaces."""
        with contextlib.suppress(OSError, AttributeError):  # a machine without any network has no figures at all
            counted = psutil.net_io_counters()
            return counted.bytes_recv, counted.bytes_sent
        return 0, 0

    def process(self, pid: int, *, unique: bool = False) -> Usage | None:
        """Return what a process takes; None once it is gone.

        Args:
            pid: The process.
            unique: Read the memory that it shares with no other, too; the kernel walks its page tables for that.
        """
        try:
            process = self._processes.setdefault(pid, psutil.Process(pid))
            with process.oneshot():
                times, memory, read, written = process.cpu_times(), process.memory_info(), 0, 0
                with contextlib.suppress(psutil.Error, AttributeError):  # macOS has no figures per process
                    counters = process.io_counters()
                    read, written = counters.read_bytes, counters.write_bytes
                own = None
                if unique:
                    with contextlib.suppress(psutil.Error, AttributeError):
                        own = process.memory_full_info().uss
                return Usage(times.user + times.system, memory.rss, own, process.num_threads(), read, written)
        except psutil.Error:
            self._processes.pop(pid, None)
            return None


def _busy(times: object) -> tuple[float, float]:
    """Return busy and all seconds; time of guests is a part of another field."""
    fields = times._asdict()  # type: ignore[attr-defined]  # a named tuple whose fields depend on the system
    total = sum(value for name, value in fields.items() if name not in ("guest", "guest_nice"))
    return total - fields["idle"] - fields.get("iowait", 0.0), total


__all__ = ["Machine"]
