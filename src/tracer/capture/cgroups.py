"""What the container, or the job, may take: the limits of control groups, of version 2 and, where that is all, 1.

A limit may stand at any group from the process' own up to the root, and the tightest one holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

ROOT = "/sys/fs/cgroup"
_NO_LIMIT = 1 << 60  # version 1 writes a huge number where there is none
_US = 1_000_000


class Cgroup:
    """The control groups of this process.

    Args:
        root: Where they are mounted.
        own: The file that names the process' own group.

    Example:
        >>> Cgroup("/nowhere").memory_limit() is None
        True
    """

    def __init__(self, root: str = ROOT, own: str = "/proc/self/cgroup") -> None:
        self._root = root
        self._folders = list(_upwards(root, _own_group(own)))

    def memory_limit(self) -> int | None:
        """Return how many bytes may be taken; None where nobody says."""
        found = [number for folder in self._folders if (number := number_in(f"{folder}/memory.max")) is not None]
        first = number_in(f"{self._root}/memory/memory.limit_in_bytes")
        found += [first] if first is not None and first < _NO_LIMIT else []
        return min(found, default=None)

    def memory_taken(self) -> int | None:
        """Return how many bytes are taken, without the page cache, which the kernel gives back when it is needed."""
        folder = self._limited("memory.max")
        taken = number_in(f"{folder}/memory.current")
        if taken is None:
            taken = number_in(f"{self._root}/memory/memory.usage_in_bytes")
            cache = number_in(f"{self._root}/memory/memory.stat", "total_inactive_file")
        else:
            cache = number_in(f"{folder}/memory.stat", "inactive_file")
        return None if taken is None else max(0, taken - (cache or 0))

    def out_of_memory_kills(self) -> int | None:
        """Return how many processes the kernel has killed because the group's memory was used up."""
        return number_in(f"{self._limited('memory.max')}/memory.events", "oom_kill")

    def cpu_quota(self) -> float | None:
        """Return of how many processors the time may be taken; None where nobody limits it."""
        found = []
        for folder in self._folders:
            words = _words(f"{folder}/cpu.max")
            if len(words) > 1 and words[0].isdigit():
                found.append(int(words[0]) / int(words[1]))
        quota = number_in(f"{self._root}/cpu/cpu.cfs_quota_us")
        period = number_in(f"{self._root}/cpu/cpu.cfs_period_us")
        found += [quota / period] if quota and period else []
        return min(found, default=None)

    def throttled_s(self) -> float | None:
        """Return for how many seconds the group was stopped because its quota was used up, since ever."""
        for path, field, unit in (
            (f"{self._limited('cpu.max')}/cpu.stat", "throttled_usec", _US),
            (f"{self._root}/cpu/cpu.stat", "throttled_time", 1000 * _US),
        ):
            taken = number_in(path, field)
            if taken is not None:
                return taken / unit
        return None

    def _limited(self, name: str) -> str:
        """Return the folder of the nearest group that has a limit of a kind; the own one where none has."""
        for folder in self._folders:
            words = _words(f"{folder}/{name}")
            if words and words[0] != "max":
                return folder
        return self._folders[0]


def number_in(path: str, field: str = "") -> int | None:
    """Return the number in a file of the kernel, or that behind a name in it; None where there is none."""
    words = _words(path)
    word = words[words.index(field) + 1] if field in words else "" if field else next(iter(words), "")
    return int(word) if word.isdigit() else None


def pressure(kind: str, proc: str = "/proc") -> float | None:
    """Return the share of the last ten seconds, in percent, in which something waited for cpu, memory or io."""
    for word in _words(f"{proc}/pressure/{kind}"):
        if word.startswith("avg10="):
            return float(word.partition("=")[2])
    return None


def _own_group(path: str) -> str:
    """Return the path of the process' own group of version 2."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return "/"
    return next((line[3:] for line in lines if line.startswith("0::")), "/")


def _upwards(root: str, group: str) -> Iterator[str]:
    """Yield the folders from a group up to the root."""
    parts = [part for part in group.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        folder = os.path.join(root, *parts[:count])
        if not count or os.path.isdir(folder):  # in a container the group's name is that of the world outside
            yield folder


def _words(path: str) -> list[str]:
    """Return the words of a file; none where it cannot be read."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().split()
    except OSError:
        return []


__all__ = ["ROOT", "Cgroup", "number_in", "pressure"]
