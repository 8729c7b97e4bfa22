"""A back end in memory: the contract in its smallest form, for tests of lanes and for people who write one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tracer.backends.base import Backend, Limits, RemoteIds
from tracer.transfer import KINDS, Event, RunInfo


class MemoryBackend(Backend):
    """Keeps what it is given, by run.

    Example:
        >>> backend = MemoryBackend({})
        >>> remote = backend.open(RunInfo("1", "docs", "first", started=0), {})
        >>> backend.close("completed", None)
        >>> MemoryBackend.runs.pop(remote["run"])["status"]
        'completed'
    """

    name: ClassVar[str] = "memory"
    kinds: ClassVar[frozenset[str]] = frozenset(KINDS)
    limits: ClassVar[Limits] = Limits(repeatable=False)
    #: Run → `info`, `events` in order, `status`.
    runs: ClassVar[dict[str, dict[str, object]]] = {}

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Begin a run, or go on with one."""
        self._events: list[Event] = []
        self._kept = self.runs.setdefault(remote.get("run", run.uid), {"events": self._events})
        self._kept |= {"info": run, "status": "running"}
        self._events = self._kept["events"]  # type: ignore[assignment]
        return {"run": remote.get("run", run.uid)}

    def write(self, events: Sequence[Event]) -> None:
        """Keep a batch."""
        self._events.extend(events)

    def close(self, status: str, ended: int | None) -> None:
        """Say how it ended."""
        self._kept |= {"status": status, "ended": ended}
