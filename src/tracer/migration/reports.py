"""What a move did, run by run, and what it proved: plain values, for people and for `--json`."""

from __future__ import annotations

from dataclasses import dataclass

#: What became of a run.
CREATED, UPDATED, UNCHANGED, PLANNED, FAILED = "created", "updated", "unchanged", "planned", "failed"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not the same on both sides.

    Args:
        what: `series`, `text`, `artifact`, `params`, `tags`, `status`, `times` …
        name: Which one.
        here: What it is in the store, or at the source of an import.
        there: What it is at the other side.
        rank: Whose series.
        reason: Why it had to be so, in the words of the peer's limits; None for an error.
    """

    what: str
    name: str
    here: str
    there: str
    rank: int = 0
    reason: str | None = None

    @property
    def is_error(self) -> bool:
        """Tell whether nothing explains it."""
        return self.reason is None


@dataclass(frozen=True, slots=True)
class Moved:
    """One run, moved.

    Args:
        name: Its name.
        project: Its project.
        outcome: `created`, `updated`, `unchanged`, `planned` or `failed`.
        uid: Its id in the store; empty where nothing was written.
        there: What the peer calls it: the origin of an import, the remote ids of an export.
        points: How many points it has; of a plan without reading, None.
        sent: How many points were sent or taken in this time.
        series: How many series it has.
        artifacts: How many artifacts it has.
        notes: What happened besides, in sentences.
        url: Where a person sees it.
        verified: Whether the two sides were compared.
        compared: How many series were compared.
        differences: What the comparison found.
    """

    name: str
    project: str
    outcome: str
    uid: str = ""
    there: str = ""
    points: int | None = None
    sent: int = 0
    series: int | None = None
    artifacts: int | None = None
    notes: tuple[str, ...] = ()
    url: str | None = None
    verified: bool = False
    compared: int = 0
    differences: tuple[Difference, ...] = ()

    @property
    def errors(self) -> list[Difference]:
        """Return the differences that nothing explains."""
        return [one for one in self.differences if one.is_error]

    @property
    def is_good(self) -> bool:
        """Tell whether the run arrived and everything that was compared is explained."""
        return self.outcome != FAILED and not self.errors


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that the peer cannot hold, and how much of it there is."""

    what: str
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one import or export did.

    Args:
        kind: `import` or `export`.
        peer: The peer's name as people write it.
        place: Its address, without secrets.
        runs: Each run.
        losses: What the peer cannot hold.
        notes: What concerns all runs, in sentences.
        dry_run: Whether nothing was written.
        stopped: Why it ended early, if it did.
    """

    kind: str
    peer: str
    place: str
    runs: tuple[Moved, ...] = ()
    losses: tuple[Loss, ...] = ()
    notes: tuple[str, ...] = ()
    dry_run: bool = False
    stopped: str | None = None

    @property
    def points(self) -> int:
        """Return how many points the runs have."""
        return sum(run.points or 0 for run in self.runs)

    @property
    def sent(self) -> int:
        """Return how many points went over this time."""
        return sum(run.sent for run in self.runs)

    @property
    def is_good(self) -> bool:
        """Tell whether every run arrived, and every comparison came out as it had to."""
        return self.stopped is None and all(run.is_good for run in self.runs)

    def count(self, outcome: str) -> int:
        """Return how many runs ended so."""
        return sum(run.outcome == outcome for run in self.runs)


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What a migration did: the import into the store, and the export out of it."""

    imported: Report
    exported: Report

    @property
    def is_good(self) -> bool:
        """Tell whether both halves are good."""
        return self.imported.is_good and self.exported.is_good


def record(report: Report | MigrationReport) -> dict[str, object]:
    """Return a report as JSON has it."""
    if isinstance(report, MigrationReport):
        parts = {"import": record(report.imported), "export": record(report.exported)}
        return {"good": report.is_good, **parts}
    return {
        "kind": report.kind,
        "peer": report.peer,
        "place": report.place,
        "dry_run": report.dry_run,
        "good": report.is_good,
        "stopped": report.stopped,
        "points": report.points,
        "sent": report.sent,
        "losses": [{"what": loss.what, "count": loss.count, "reason": loss.reason} for loss in report.losses],
        "notes": list(report.notes),
        "runs": [_run(run) for run in report.runs],
    }


def _run(run: Moved) -> dict[str, object]:
    """Return a run for JSON."""
    return {
        "id": run.uid,
        "name": run.name,
        "project": run.project,
        "outcome": run.outcome,
        "there": run.there,
        "url": run.url,
        "points": run.points,
        "sent": run.sent,
        "series": run.series,
        "artifacts": run.artifacts,
        "notes": list(run.notes),
        "verified": run.verified,
        "compared": run.compared,
        "differences": [
            {
                "what": one.what,
                "name": one.name,
                "rank": one.rank,
                "here": one.here,
                "there": one.there,
                "reason": one.reason,
                "error": one.is_error,
            }
            for one in run.differences
        ],
    }


__all__ = [
    "CREATED", "FAILED", "PLANNED", "UNCHANGED", "UPDATED", "Difference", "Loss", "MigrationReport", "Moved", "Report",
    "record",
]  # fmt: skip
