"""One run on its way into another tracker: strand by strand, each written down when the tracker has it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracer import events
from tracer.backends.base import Backend, BackendError
from tracer.migration.addresses import without_secrets
from tracer.migration.calls import Calls
from tracer.migration.ledgers import Ledger
from tracer.migration.leftovers import Leftover
from tracer.migration.losses import Census
from tracer.migration.streams import Comparison, Strand, key_of, length, part, woven
from tracer.transfer import FACTS, FILE, KINDS, LAYER, POINTS, Event, LayerPoints, Points, RunInfo

if TYPE_CHECKING:
    from tracer.storage.store import Store

#: Called with how much is sent and how much there is to send.
Progress = Callable[[int, int], None]
#: What is no series and no fact.
_OTHERS = frozenset(KINDS) - {POINTS, LAYER, FACTS}


@dataclass(slots=True)
class Planned:
    """One run that is to go, and what the target has of it."""

    info: RunInfo
    ledger: Ledger
    comparison: Comparison
    census: Census
    facts: str

    @property
    def is_unchanged(self) -> bool:
        """Tell whether the target has everything."""
        return self.ledger.is_complete and self.comparison.is_equal and self.ledger.facts == self.facts

    @property
    def owed(self) -> int:
        """Return how many events have to go."""
        total = sum(self.census.counts[kind] for kind in KINDS)
        return max(0, total - sum(self.comparison.skipped.values()))


class Shipment:
    """One run on its way to one back end.

    Args:
        store: Where the run is.
        uid: Which run.
        planned: What is known of it.
        backend: Where it goes.
        target: The target's address, without secrets.
        calls: What calls the back end.
        layers: Send the statistics of layers, too.
    """

    def __init__(
        self, store: Store, uid: str, planned: Planned, backend: Backend, target: str, calls: Calls, *, layers: bool
    ) -> None:
        self._store, self._uid, self._planned, self._backend = store, uid, planned, backend
        self._target, self._calls, self._layers = target, calls, layers
        self._skipped = planned.comparison.skipped
        self._strands: dict[str, Strand] = {}
        self._sent = self._rejected = 0
        self._progress: Progress | None = None
        self.notes: list[str] = []

    def run(self, progress: Progress | None) -> int:
        """Send it, and return how many points went."""
        self._progress = progress
        ledger, info, backend = self._planned.ledger, self._planned.info, self._backend
        resumed = bool(ledger.remote)
        ledger.remote = dict(self._calls.do(lambda: backend.open(info, dict(ledger.remote))))
        ledger.is_complete = False
        ledger.save(self._target, {})
        points = 0
        try:
            if resumed and FACTS in backend.kinds:
                self._write([info])
            points = self._points()
            self._others()
            live = info.status == events.RUNNING
            self._calls.do(lambda: backend.close(info.status, info.ended))
            ledger.is_complete, ledger.facts = not live, self._planned.facts
            readable, url = backend.readable(), backend.url()
            ledger.readable = readable if os.path.isabs(readable) else ""
            ledger.url = None if url is None else without_secrets(url)
            ledger.names = dict(backend.renamed())
        except KeyboardInterrupt:
            with contextlib.suppress(BackendError, OSError):
                backend.close(events.RUNNING, None)
            raise
        finally:
            ledger.save(self._target, self._strands)
        if self._rejected:
            self.notes.append(f"{self._rejected:,} events were rejected: {self._calls.why}")
        return points

    def _points(self) -> int:
        """Send the series, woven together; return how many points went."""
        sent = 0
        for batch in woven(self._fresh_points(), self._backend.limits.batch):
            self._write(batch)
            sent += sum(map(len, batch))
        return sent

    def _fresh_points(self) -> Iterator[Points]:
        """Yield the points that the target does not have; the others are counted as sent."""
        seen: dict[str, int] = {}
        kinds = frozenset({POINTS, LAYER} if self._layers else {POINTS})
        for series in outgoing(self._store, self._uid, kinds, self._backend):
            if not isinstance(series, Points):
                continue
            key = key_of(series)
            has = min(len(series), max(0, self._skipped.get(key, 0) - seen.get(key, 0)))
            seen[key] = seen.get(key, 0) + len(series)
            if has:
                self._strands.setdefault(key, Strand()).add(part(series, 0, has))
            if has < len(series):
                yield part(series, has, len(series))

    def _others(self) -> None:
        """Send what is no series; what the target has no place for is gathered in an artifact."""
        backend = self._backend
        with tempfile.TemporaryDirectory(prefix="tracer-leftover-") as folder:
            leftover = Leftover(folder)
            left: list[Event] = []
            batch: list[Event] = []
            seen: dict[str, int] = {}
            with contextlib.closing(leftover):
                for event in outgoing(self._store, self._uid, _OTHERS, backend):
                    if event.KIND not in backend.kinds:
                        leftover.add(event)
                        left.append(event)
                        continue
                    key = key_of(event)
                    seen[key] = seen.get(key, 0) + 1
                    if seen[key] <= self._skipped.get(key, 0):
                        self._strands.setdefault(key, Strand()).add(event)
                        continue
                    batch.append(event)
                    if len(batch) >= backend.limits.batch or event.KIND == FILE:
                        self._write(batch)
                        batch = []
                self._write(batch)
            self._artifact(leftover)
        for event in left:
            self._strands.setdefault(key_of(event), Strand()).add(event)

    def _artifact(self, leftover: Leftover) -> None:
        """Send the artifact of what is left over, where the target takes files and does not have it yet."""
        info, renamed = self._planned.info, self._backend.renamed()
        artifact = leftover.artifact(renamed, info.ended or info.started)
        if artifact is None or FILE not in self._backend.kinds:
            return
        if self._skipped.get(key_of(artifact)) or key_of(artifact) in self._planned.ledger.sent:
            return
        self._write([artifact])

    def _write(self, batch: Sequence[Event]) -> None:
        """Send a batch, and write down that it is there."""
        if not batch:
            return
        self._rejected += self._calls.lost(lambda: self._backend.write(batch), sum(map(length, batch)))
        for event in batch:
            if not isinstance(event, RunInfo):
                self._strands.setdefault(key_of(event), Strand()).add(event)
        self._sent += sum(map(length, batch))
        if self._progress is not None:
            self._progress(self._sent, self._planned.owed)
        self._planned.ledger.save(self._target, self._strands, now=False)


def outgoing(store: Store, uid: str, kinds: frozenset[str], peer: Backend) -> Iterator[Event]:
    """Yield what a run has; the statistics of layers as metrics where the peer knows no layers."""
    for event in store.outgoing(uid, kinds):
        if isinstance(event, LayerPoints) and LAYER not in peer.kinds:
            yield Points(event.name, event.steps, event.times, event.values, event.rank)
        else:
            yield event


__all__ = ["Planned", "Progress", "Shipment", "outgoing"]
