"""Keeping findings that an analysis made: records in the run's own journal, so that the folder has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tracer import clock, events, journal
from tracer.storage import resolve, summaries
from tracer.storage.command_writer import CommandWriter
from tracer.storage.fold import try_fold
from tracer.storage.log_rows import LogRow, finding_id

if TYPE_CHECKING:
    from tracer.storage.ground import Ground


def add_findings(store: Ground, uid: str, findings: Sequence[events.Finding], source: str) -> int:
    """Keep findings with a run and return how many are new; see `Store.add_findings`."""
    row = resolve.find_run(store, uid)
    known = {found.id for found in summaries.findings(store, row.uid, None)}
    fresh: dict[str, dict[str, object]] = {}
    for finding in findings:
        said = {
            "kind": finding.kind, "severity": finding.severity, "step": finding.step, "last_step": finding.last_step,
            "details": dict(finding.details), "source": source,
        }  # fmt: skip
        text = journal.json_payload(said).decode()
        one = finding_id(row.uid, LogRow(0, finding.step, 0, "finding", finding.severity, finding.kind, None, text))
        if one not in known:
            fresh.setdefault(one, said)
    if fresh:
        with CommandWriter(store.run_folder(row), row.uid) as writer:
            for said in fresh.values():
                step = said["step"]
                writer.add(journal.Kind.FINDING, said, step if isinstance(step, int) else 0, clock.now())
        try_fold(store, row.uid)
    return len(fresh)


__all__ = ["add_findings"]
