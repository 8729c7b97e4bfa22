"""The Tracelet documents' collectors: figures of the system and facts of git, each on request."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tracer.experiment.experiments import Experiment

import os
import threading

from tracer import clock, sink
from tracer.plugins.interfaces import CollectorInterface

_BYTES = 1 << 30
_STOP_S = 1.0


class SystemMetricsCollector(CollectorInterface):
    """Figures of the system in the documents' shape; `start` records them in the active experiment.

    A run measures by itself (`track_system`); this is for programs that ask for the figures.

    Args:
        collect_interval: Seconds between two samples once it is started.

    Example:
        >>> figures = SystemMetricsCollector().collect()
        >>> 0 <= figures["memory_percent"] <= 100
        True
    """

    def __init__(self, collect_interval: float = 10.0) -> None:
        self.collect_interval = collect_interval
        self.experiment: Experiment | None = None
        self._metrics: Any = None
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def initialize(self, experiment: Experiment | None = None) -> None:
        """Say where the figures go; the active experiment when absent."""
        self.experiment = experiment

    def collect(self) -> dict[str, Any]:
        """Return the figures of now; percentages are since the call before, and nothing sleeps.

        Returns:
            `platform python_version cpu_count cpu_count_physical memory_total hostname cpu_percent memory_percent
            memory_available` and `gpu{gpu_i: {memory_total, memory_used, memory_free, utilization}}`; memory in bytes.
        """
        import platform

        import psutil

        from tracer.capture.system import SystemMetrics

        if self._metrics is None:
            self._metrics = SystemMetrics()
        figures = self._metrics.capture()
        memory = figures["memory"]
        return {
            "platform": platform.platform(),
            "python_version": platform.python_version(),
            "cpu_count": psutil.cpu_count(),
            "cpu_count_physical": psutil.cpu_count(logical=False),
            "memory_total": int(memory["total_gb"] * _BYTES),
            "hostname": platform.node(),
            "cpu_percent": figures["cpu"]["percent"],
            "memory_percent": memory["percent"],
            "memory_available": int(memory["available_gb"] * _BYTES),
            "gpu": {name: _gpu(values) for name, values in figures.get("gpu", {}).items()},
        }

    def start(self) -> None:
        """Record a sample at once, then one at each interval."""
        if self._thread is None:
            self._ending.clear()
            self._thread = threading.Thread(target=self._record, name="tracer-system-collector", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Record no more."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)
            self._thread = None

    def _record(self) -> None:
        """Record until told to stop."""
        from tracer.experiment import current

        guard = sink.Guard()
        while True:
            experiment = self.experiment or current.active()
            with guard("sampling the system"):
                if experiment is not None:
                    experiment.run.log(_numbers(self.collect(), "system/"))
            if clock.wait(self._ending, self.collect_interval):
                return


class GitCollector(CollectorInterface):
    """Facts of a repository in the documents' shape.

    Args:
        repo_path: A folder of it; that of the main script when absent.

    Example:
        >>> GitCollector("/").collect()
        {'git_available': False}
    """

    def __init__(self, repo_path: str | None = None) -> None:
        self.repo_path = None if repo_path is None else os.fspath(repo_path)

    def initialize(self, experiment: Experiment | None = None) -> None:
        """Take note of nothing: a run records the same by itself (`track_git`)."""

    def collect(self) -> dict[str, Any]:
        """Return what git knows.

        Returns:
            `git_available branch commit_hash commit_message commit_author commit_datetime is_dirty untracked_files
            diff remotes` and more; only `git_available` where there is no repository.
        """
        from tracer.capture.git import git_facts

        return git_facts(self.repo_path)


def _gpu(values: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one GPU as the documents name them."""
    total, used = values.get("memory_total_gb"), values.get("memory_used_gb")
    known = {
        "memory_total": total,
        "memory_used": used,
        "memory_free": total - used if total and used is not None else None,
    }
    figures = {name: int(value * _BYTES) if value is not None else None for name, value in known.items()}
    return {**figures, "utilization": values.get("utilization")}


def _numbers(figures: dict[str, Any], before: str) -> dict[str, float]:
    """Return the figures that make curves, under joined names."""
    found: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            found.update(_numbers(value, f"{before}{name}/"))
        elif isinstance(value, (int, float)):
            found[before + name] = value
    return found


__all__ = ["GitCollector", "SystemMetricsCollector"]
