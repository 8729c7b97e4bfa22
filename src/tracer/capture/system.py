"""What the process and the machine take: processor, memory, disk, network, GPUs.

    proc.py, psutil_machine.py   counters of the machine and of processes
    cgroups.py                   limits of the container
    gpu.py                       devices
    collector.py                 samples all that on a thread, and makes metrics of it

No figure sleeps: a percentage is the difference between two samples.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
import socket
from typing import TYPE_CHECKING

from tracer import clock
from tracer.capture.cgroups import ROOT, Cgroup, pressure
from tracer.capture.gpu import GPUs
from tracer.capture.proc import Machine as ProcMachine
from tracer.capture.proc import Usage, descendants, open_files
from tracer.errors import MissingDependency

if TYPE_CHECKING:
    from tracer.capture.psutil_machine import Machine as PsutilMachine
    from tracer.config import Config

_GB, _MB = 1 << 30, 1 << 20
#: Memory that is shared with nobody is counted page by page: for at most this share of the time.
_UNIQUE_SHARE = 0.005


class SystemMetrics:
    """Figures of the system by group, as the Tracer documents shape them.

    Args:
        config: `storage_path` says whose disk is looked at; the working folder's without it.
        cgroup: Where the limits of this container stand.
        per_core: Tell the load of each processor, too.

    Example:
        >>> sorted(SystemMetrics().capture())
        ['cpu', 'disk', 'memory', 'network', 'process', 'timestamp']
    """

    def __init__(self, config: Config | None = None, *, cgroup: str = ROOT, per_core: bool = False) -> None:
        self.config = config
        self._machine = machine()
        self._group = Cgroup(cgroup)
        self._disk = getattr(config, "storage_path", None) or os.getcwd()
        self._gpus = GPUs()
        self._per_core = per_core
        self._counts = self._machine.counts()
        self._uss: int | None = None
        self._uss_due = 0.0
        # The first sample of each is the start of its measure and has no meaning of its own.
        self._tree = self._usages()
        self._before = self._sums(self._tree)
        self._rates = dict.fromkeys(self._before, 0.0)
        self._cores = self._machine.cores() if per_core else []

    def capture(self) -> dict[str, object]:
        """Return the figures of now; percentages and rates are since the call before. Never sleeps.

        Returns:
            `timestamp`; `cpu{percent count physical allowed quota process_percent tree_percent load throttled_percent
            pressure}`, where `percent` is of all processors and 100 is one processor for the process and its tree;
            `memory{total_gb available_gb percent process_rss_gb tree_rss_gb tree_uss_gb swap_gb swap_percent cgroup_gb
            cgroup_max_gb oom_kills pressure}`; `disk{free_gb percent working_free_gb working_percent read_mb_per_s
            written_mb_per_s pressure}`; `network{received_mb_per_s sent_mb_per_s}`; `process{threads fds fds_limit
            fds_percent children}`; and, where there are any, `gpu{gpu_0: …}`, see `capture.gpu`. What a system does not
            tell is left out. Inside a container its memory limit is the total.
        """
        tree = self._usages()
        self._measure(tree)
        figures: dict[str, object] = {
            "timestamp": clock.now(),
            "cpu": _known(self._cpu()),
            "memory": _known(self._memory()),
            "disk": _known(self._disks()),
            "network": {name: self._rates[name] / _MB for name in ("received_mb_per_s", "sent_mb_per_s")},
            "process": _known(self._process()),
        }
        if gpu := self._gpus.figures():
            figures["gpu"] = gpu
        return figures

    def flat(self) -> dict[str, object]:
        """Return the figures under the names that the Tracelet documents give them.

        Returns:
            `platform python_version cpu_count cpu_count_physical memory_total hostname cpu_percent memory_percent
            memory_available`, bytes and percentages, and `gpu` where there is one.
        """
        figures = self.capture()
        cpu, memory = figures["cpu"], figures["memory"]
        assert isinstance(cpu, dict)  # noqa: S101 -- for the type checker
        assert isinstance(memory, dict)  # noqa: S101
        said: dict[str, object] = {
            "platform": platform.platform(),
            "python_version": platform.python_version(),
            "cpu_count": cpu["count"],
            "cpu_count_physical": cpu.get("physical"),
            "memory_total": round(memory["total_gb"] * _GB),
            "hostname": socket.gethostname(),
            "cpu_percent": cpu["percent"],
            "memory_percent": memory["percent"],
            "memory_available": round(memory["available_gb"] * _GB),
        }
        return said | ({"gpu": figures["gpu"]} if "gpu" in figures else {})

    def _usages(self) -> dict[int, Usage]:
        """Return what this process and those below it take."""
        now = clock.monotonic()
        unique = now >= self._uss_due
        found = {}
        for pid in (os.getpid(), *descendants(os.getpid())):
            usage = self._machine.process(pid, unique=unique)
            if usage is not None:
                found[pid] = usage
        if unique:
            known = [usage.uss for usage in found.values() if usage.uss is not None]
            self._uss = sum(known) if known else None
            self._uss_due = clock.monotonic() + (clock.monotonic() - now) / _UNIQUE_SHARE
        return found

    def _sums(self, tree: dict[int, Usage]) -> dict[str, float]:
        """Return what is counted since the beginning; names are those of the rates made from it."""
        busy, all_s = self._machine.cpu()
        received, sent = self._machine.network()
        own = tree.get(os.getpid())
        # Of processes that are in both samples, so that one which ends does not take its time back.
        before = self._tree
        shared = sum(usage.cpu_s - before[pid].cpu_s if pid in before else usage.cpu_s for pid, usage in tree.items())
        return {
            "time": clock.monotonic(),
            "busy": busy,
            "all": all_s,
            "process": own.cpu_s if own else 0.0,
            "tree": getattr(self, "_tree_s", 0.0) + shared,
            "read_mb_per_s": own.read if own else 0,
            "written_mb_per_s": own.written if own else 0,
            "received_mb_per_s": received,
            "sent_mb_per_s": sent,
            "throttled": self._group.throttled_s() or 0.0,
        }

    def _measure(self, tree: dict[int, Usage]) -> None:
        """Make rates of what was counted since the sample before; two in one tick of the clock share theirs."""
        now = self._sums(tree)
        self._tree, self._tree_s = tree, now["tree"]
        seconds = now["time"] - self._before["time"]
        if seconds > 0:
            self._rates = {name: (now[name] - self._before[name]) / seconds for name in now}
            self._before = now

    def _cpu(self) -> dict[str, object]:
        """Return the load of the machine and of this process; 100 is one core for the process, all for the machine."""
        rates = self._rates
        figures: dict[str, object] = {
            "percent": 100 * rates["busy"] / rates["all"] if rates["all"] > 0 else 0.0,
            "count": self._counts[0],
            "physical": self._counts[1],
            "allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
            "quota": self._group.cpu_quota(),
            "process_percent": 100 * rates["process"],
            "tree_percent": 100 * rates["tree"],
            "load": os.getloadavg()[0],
            "throttled_percent": 100 * rates["throttled"] if self._group.throttled_s() is not None else None,
            "pressure": pressure("cpu"),
        }
        if self._per_core:
            before, self._cores = self._cores, self._machine.cores()
            pairs = zip(before, self._cores, strict=True)
            figures["cores"] = [100 * (new[0] - old[0]) / max(new[1] - old[1], 1e-9) for old, new in pairs]
        return figures

    def _memory(self) -> dict[str, object]:
        """Return the memory of the machine, or of the container where that is less, and of this process."""
        total, available, swap, swapped = self._machine.memory()
        limit, taken = self._group.memory_limit(), self._group.memory_taken()
        if limit is not None and limit < total:
            total, available = limit, min(available, max(0, limit - (taken or 0)))
        own = self._tree.get(os.getpid())
        return {
            "total_gb": total / _GB,
            "available_gb": available / _GB,
            "percent": 100 * (total - available) / total,
            "process_rss_gb": (own.rss if own else 0) / _GB,
            "tree_rss_gb": sum(usage.rss for usage in self._tree.values()) / _GB,
            "tree_uss_gb": None if self._uss is None else self._uss / _GB,
            "swap_gb": swapped / _GB,
            "swap_percent": 100 * swapped / swap if swap else 0.0,
            "cgroup_gb": None if taken is None else taken / _GB,
            "cgroup_max_gb": None if limit is None else limit / _GB,
            "oom_kills": self._group.out_of_memory_kills(),
            "pressure": pressure("memory"),
        }

    def _disks(self) -> dict[str, object]:
        """Return how full the disks of the store and of the working folder are, and what this process moves."""
        figures: dict[str, object] = {}
        store = _existing(self._disk)
        with contextlib.suppress(OSError):  # a folder that was deleted under our feet
            figures |= _fullness(store, "")
            if os.stat(os.getcwd()).st_dev != os.stat(store).st_dev:
                figures |= _fullness(os.getcwd(), "working_")
        for name in ("read_mb_per_s", "written_mb_per_s"):
            figures[name] = self._rates[name] / _MB
        return {**figures, "pressure": pressure("io")}

    def _process(self) -> dict[str, object]:
        """Return what else this process holds."""
        own = self._tree.get(os.getpid())
        fds, limit = open_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return {
            "threads": own.threads if own else None,
            "fds": fds,
            "fds_limit": limit if limit != resource.RLIM_INFINITY else None,
            "fds_percent": 100 * fds / limit if fds is not None and limit > 0 else None,
            "children": len(self._tree) - 1,
        }


def machine() -> ProcMachine | PsutilMachine:
    """Return what tells the counters of this machine: psutil, else our own reader on Linux.

    Raises:
        MissingDependency: There is neither.
    """
    try:
        from tracer.capture.psutil_machine import Machine
    except ImportError:
        if not os.path.exists("/proc/stat"):
            message = "The system can only be sampled with psutil here. Install it: pip install psutil"
            raise MissingDependency(message) from None
        return ProcMachine()
    return Machine()


def _known(figures: dict[str, object]) -> dict[str, object]:
    """Return the figures that the system has told."""
    return {name: figure for name, figure in figures.items() if figure is not None}


def _existing(folder: str) -> str:
    """Return the nearest folder that exists: a store may not be there yet."""
    while not os.path.exists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return folder


def _fullness(folder: str, prefix: str) -> dict[str, object]:
    """Return how full a disk is, for those who are not the administrator."""
    usage = shutil.disk_usage(folder)
    return {f"{prefix}free_gb": usage.free / _GB, f"{prefix}percent": 100 * usage.used / (usage.used + usage.free)}


__all__ = ["SystemMetrics", "machine"]
