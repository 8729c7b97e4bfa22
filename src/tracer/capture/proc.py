"""Counters of the machine and of processes as Linux tells them in `/proc`: what is asked where psutil is not installed.

    Machine   of the whole machine; `psutil_machine.py` has the same from psutil
    Usage     of one process

Everything is a count since the beginning or an amount of now; rates are made by whoever asks twice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

_PHYSICAL = re.compile(r"^(physical id|core id)\s*:\s*(\d+)", re.MULTILINE)


class Usage(NamedTuple):
    """What one process takes; `uss` is None where it was not asked for or may not be read."""

    cpu_s: float
    rss: int
    uss: int | None
    threads: int
    read: int
    written: int


class Machine:
    """The machine as `/proc` shows it.

    Args:
        proc: Where it is mounted.

    Example:
        >>> Machine().memory()[0] > 0
        True
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._tick = os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")

    def cpu(self) -> tuple[float, float]:
        """Return the seconds of all processors together: those that were busy, and all of them."""
        return self._busy(next(self._cpu_lines()))

    def cores(self) -> list[tuple[float, float]]:
        """Return the same of each processor."""
        return [self._busy(fields) for fields in self._cpu_lines() if fields[0] != "cpu"]

    def counts(self) -> tuple[int, int | None]:
        """Return how many logical and how many physical processors there are."""
        logical = sum(1 for fields in self._cpu_lines() if fields[0] != "cpu")
        found = [int(match[2]) for match in _PHYSICAL.finditer(self._text("cpuinfo"))]
        cores = set(zip(found[::2], found[1::2], strict=False))
        return logical, len(cores) or None

    def memory(self) -> tuple[int, int, int, int]:
        """Return total and available memory, and total and used swap, in bytes."""
        said = {}
        for line in self._text("meminfo").splitlines():
            name, _, rest = line.partition(":")
            said[name] = int(rest.split()[0]) << 10
        swap = said.get("SwapTotal", 0)
        return said["MemTotal"], said.get("MemAvailable", said["MemFree"]), swap, swap - said.get("SwapFree", 0)

    def network(self) -> tuple[int, int]:
        """Return bytes received and sent over all interfaces."""
        received = sent = 0
        for line in self._text("net/dev").splitlines()[2:]:
            _, _, rest = line.partition(":")
            fields = rest.split()
            received, sent = received + int(fields[0]), sent + int(fields[8])
        return received, sent

    def process(self, pid: int, *, unique: bool = False) -> Usage | None:
        """Return what a process takes; None once it is gone.

        Args:
            pid: The process.
            unique: Read the memory that it shares with no other, too; the kernel walks its page tables for that.
        """
        stat = self._text(f"{pid}/stat")
        fields = stat.rpartition(")")[2].split()  # a process' name may hold anything
        if not fields:
            return None
        io = dict(line.split(": ") for line in self._text(f"{pid}/io").splitlines())
        rss = int(fields[21]) * self._page
        cpu = (int(fields[11]) + int(fields[12])) / self._tick
        own = self._unique(pid) if unique else None
        return Usage(cpu, rss, own, int(fields[17]), int(io.get("read_bytes", 0)), int(io.get("write_bytes", 0)))

    def _unique(self, pid: int) -> int | None:
        """Return the bytes of memory that a process shares with no other."""
        found = re.findall(
            r"^Private_(?:Clean|Dirty|Hugetlb):\s+(\d+)", self._text(f"{pid}/smaps_rollup"), re.MULTILINE
        )
        return sum(map(int, found)) << 10 if found else None

    def _cpu_lines(self) -> Iterator[list[str]]:
        """Yield the lines about processors, that of all first."""
        for line in self._text("stat").splitlines():
            if line.startswith("cpu"):
                yield line.split()

    def _busy(self, fields: list[str]) -> tuple[float, float]:
        """Return busy and all seconds of a line; time of guests is a part of another field."""
        user, nice, system, idle, wait, irq, softirq, steal = (int(field) for field in fields[1:9])
        busy = user + nice + system + irq + softirq + steal
        return busy / self._tick, (busy + idle + wait) / self._tick

    def _text(self, name: str) -> str:
        """Return the content of a file; nothing where it may not be read or is gone."""
        try:
            with open(f"{self._proc}/{name}", encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""


def descendants(pid: int) -> Iterator[int]:
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
            yield from descendants(child)


def open_files() -> int | None:
    """Return how many descriptors this process has open; None where that cannot be seen."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # the one that looks
    except OSError:
        return None


__all__ = ["Machine", "Usage", "descendants", "open_files"]
