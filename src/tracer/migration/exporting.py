"""Runs of the store into another tracker: planned, sent strand by strand, written down, compared."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from tracer.backends.base import Backend, BackendError, Refused, Throttled, Unreachable
from tracer.backends.table import entry
from tracer.migration.addresses import Address, address
from tracer.migration.calls import Calls
from tracer.migration.ledgers import Ledger
from tracer.migration.losses import Census, losses
from tracer.migration.proof import Proof
from tracer.migration.reports import CREATED, FAILED, PLANNED, UNCHANGED, UPDATED, Loss, Moved, Report
from tracer.migration.shipments import Planned, Progress, Shipment, outgoing
from tracer.migration.streams import Comparison
from tracer.transfer import FACTS, KINDS, LAYER, RunInfo

if TYPE_CHECKING:
    from tracer.storage.store import Store


@dataclass
class Exporting:
    """An export: what it will do is known before it begins.

    Args:
        store: Where the runs are.
        target: Where they go.
        layers: Send the statistics of layers, too, as metrics.
    """

    store: Store
    target: Address
    layers: bool = False
    planned: dict[str, Planned] = field(default_factory=dict)
    calls: Calls = field(default_factory=Calls)

    @cached_property
    def peer(self) -> Backend:
        """The back end, for what it says of itself; no run is opened in it."""
        return self.target.backend()

    def plan(self, uids: Sequence[str]) -> list[Moved]:
        """Look at runs, and say what would be done."""
        for uid in uids:
            self.planned[uid] = self._survey(uid)
        return [self.told(uid, UNCHANGED if self.planned[uid].is_unchanged else PLANNED) for uid in uids]

    def losses(self) -> list[Loss]:
        """Return what the target cannot hold of the runs that were planned."""
        total = Census()
        for one in self.planned.values():
            total.merge(one.census)
        return losses(self.peer, total)

    @property
    def owed(self) -> int:
        """Return how many events have to go in all."""
        return sum(one.owed for one in self.planned.values() if not one.is_unchanged)

    def send(self, uid: str, progress: Progress | None = None) -> Moved:
        """Send one run that was planned.

        Raises:
            Unreachable: The target does not answer, after several tries; what it has is written down.
            Refused: It does not let us in.
        """
        planned = self.planned[uid]
        if planned.is_unchanged:
            return self.told(uid, UNCHANGED, url=planned.ledger.url)
        backend = self.target.backend()
        outcome = UPDATED if planned.ledger.remote else CREATED
        notes: list[str] = []
        if planned.comparison.changed and not backend.limits.repeatable and planned.ledger.remote:
            notes.append("It was sent before and changed since: the target cannot replace values, so it got a new run.")
            planned.ledger.forget()
            planned.comparison = Comparison({})
            outcome = CREATED
        shipment = Shipment(self.store, uid, planned, backend, self.target.shown, self.calls, layers=self.layers)
        sent = shipment.run(progress)
        notes += shipment.notes
        return self.told(uid, outcome, sent=sent, notes=tuple(notes), url=planned.ledger.url)

    def verified(self, runs: Sequence[Moved]) -> list[Moved]:
        """Compare runs that were sent with what stands there now; a target that cannot be read is said."""
        sent = [run for run in runs if run.outcome in (CREATED, UPDATED, UNCHANGED)]
        if not self.target.can_be_read() or not sent:
            return list(runs)
        with contextlib.closing(Proof(self.store, self.target)) as proof:
            return [self._proven(proof, run) if run in sent else run for run in runs]

    def _proven(self, proof: Proof, run: Moved) -> Moved:
        """Compare one run with what stands there."""
        planned = self.planned[run.uid]
        compared, differences = proof.of(planned.info, planned.ledger, planned.census.series)
        return replace(run, verified=True, compared=compared, differences=tuple(differences))

    def _survey(self, uid: str) -> Planned:
        """Read a run, count what it has, and compare it with what was sent before."""
        info = self.store.info(uid)
        info = replace(info, origin=info.origin or f"tracer:{uid}")
        ledger = Ledger(self.store.run_folder(self.store.run(uid)), self.target.digest)
        comparison, census = Comparison(ledger.sent), Census()
        kinds = frozenset(KINDS) - ({FACTS} if self.layers else {FACTS, LAYER})
        for event in outgoing(self.store, uid, kinds, self.peer):
            comparison.add(event)
            census.add(event)
        census.add_facts(info)
        if not self.layers:
            axes = self.store.layer_axes(uid)
            census.counts[LAYER] = sum(len(one.layers) * len(one.statistics) for one in axes)
        return Planned(info, ledger, comparison, census, _digest(info))

    def told(self, uid: str, outcome: str, **more: object) -> Moved:
        """Return what is told of a run."""
        planned = self.planned[uid]
        census, info = planned.census, planned.info
        there = next(iter(planned.ledger.remote.values()), "")  # the first is what names it
        said = Moved(
            info.name, info.project, outcome, uid, there, census.points, 0, len(census.series), census.artifacts
        )
        return replace(said, **more)  # type: ignore[arg-type]  # fields of `Moved`


def export_runs(
    store: Store,
    uids: Sequence[str],
    target: str | Address,
    *,
    options: Mapping[str, object] | None = None,
    layers: bool = False,
    verify: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Send runs of the store to another tracker; a run that it has already is not sent again.

    Args:
        store: Where the runs are.
        uids: The runs, by id.
        target: Where to: `mlflow:sqlite:///ml.db`, `tensorboard:runs`, `aim:.`.
        options: More, by name, as the page of that tracker lists them.
        layers: Send the statistics of layers, too, as metrics.
        verify: Read the runs back from the target afterwards, and compare.
        dry_run: Only say what would be done.
        progress: Called with how many events are sent, and how many there are.

    Returns:
        What was done, run by run.

    Raises:
        ConfigError: The target is not known, or cannot be written to.
        MissingDependency: Its client is not installed.

    Example:
        >>> export_runs(store, [run.uid], "tensorboard:runs", verify=True).is_good  # doctest: +SKIP
        True
    """
    where = target if isinstance(target, Address) else address(target, options, writing=True)
    exporting = Exporting(store, where, layers=layers)
    runs = exporting.plan(uids)
    if dry_run:
        return report_of(exporting, runs, dry_run=True)
    return carried_out(exporting, uids, verify=verify, progress=progress)


def carried_out(
    exporting: Exporting, uids: Sequence[str], *, verify: bool = False, progress: Progress | None = None
) -> Report:
    """Send the runs that were planned; one that fails does not stop the others, a target that is away does."""
    total, before = exporting.owed, 0
    runs: list[Moved] = []
    stopped = None
    for uid in uids:
        planned = exporting.planned[uid]
        owed = 0 if planned.is_unchanged else planned.owed
        shown = None if progress is None else _shifted(progress, before, total)
        moved, stopped = sent_or_failed(exporting, uid, shown)
        runs.append(moved)
        before += owed
        if stopped is not None:
            break
    if verify and stopped is None:
        runs = exporting.verified(runs)
    return report_of(exporting, runs, stopped=stopped)


def sent_or_failed(exporting: Exporting, uid: str, progress: Progress | None = None) -> tuple[Moved, str | None]:
    """Send a run; return what became of it, and why no other should be tried."""
    try:
        return exporting.send(uid, progress), None
    except BackendError as error:
        failed = replace(exporting.told(uid, FAILED), notes=(str(error),))
        return failed, str(error) if isinstance(error, (Unreachable, Refused, Throttled)) else None


def report_of(
    exporting: Exporting, runs: Sequence[Moved], *, dry_run: bool = False, stopped: str | None = None
) -> Report:
    """Return the report of an export."""
    shown = entry(exporting.target.name).shown
    notes = []
    if any(run.outcome in (CREATED, UPDATED) for run in runs) and not exporting.target.can_be_read():
        notes.append(f"Nothing can be read back from {shown}; what it acknowledged is what is known.")
    return Report(
        "export", shown, exporting.target.shown, tuple(runs), tuple(exporting.losses()), tuple(notes), dry_run, stopped
    )


def _digest(info: RunInfo) -> str:
    """Return what names the facts of a run as they are now."""
    said = json.dumps(asdict(info), sort_keys=True, default=str)
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    """Return progress within one run as progress of all."""
    return lambda done, _: progress(before + done, total)


__all__ = ["Exporting", "Progress", "carried_out", "export_runs", "report_of", "sent_or_failed"]
