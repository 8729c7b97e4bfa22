"""Runs, series and findings as JSON has them: stable keys, times as ISO 8601 in UTC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer.render.formats import iso

if TYPE_CHECKING:
    from tracer.storage.values import CheckpointRow, FindingRow, RunRow, SeriesRow


def run_record(run: RunRow) -> dict[str, object]:
    """Return a run at a glance."""
    return {
        "id": run.uid,
        "name": run.name,
        "project": run.project,
        "status": run.status,
        "reason": run.reason,
        "started": iso(run.started),
        "ended": iso(run.ended),
        "duration_s": run.duration_s,
        "steps": run.steps,
        "checkpoints": run.checkpoints,
        "points": run.points,
        "tags": list(run.tags),
        "notes": run.notes,
        "group": run.group,
        "job_type": run.job_type,
        "host": run.host,
        "user": run.user,
        "world_size": run.world_size,
        "attempt": run.attempt,
        "bytes": run.bytes,
        "config": dict(run.config),
    }


def metric_record(row: SeriesRow) -> dict[str, object]:
    """Return the summary of a series."""
    return {
        "metric": row.metric,
        "rank": row.rank,
        "points": row.n,
        "first_step": row.first_step,
        "last_step": row.last_step,
        "last": row.last,
        "last_time": iso(row.last_time),
        "min": row.min,
        "max": row.max,
        "mean": row.mean,
        "nan": row.nan,
        "inf": row.inf,
        "unit": row.unit,
        "is_text": row.is_text,
    }


def finding_record(row: FindingRow) -> dict[str, object]:
    """Return a finding."""
    return {
        "id": row.id,
        "run": row.run,
        "rank": row.rank,
        "step": row.step,
        "last_step": row.last_step,
        "type": row.kind,
        "severity": row.severity,
        "details": dict(row.details),
        "source": row.source,
        "detected": iso(row.detected),
    }


def checkpoint_record(row: CheckpointRow) -> dict[str, object]:
    """Return a checkpoint."""
    return {"step": row.step, "time": iso(row.time), "metrics": dict(row.metrics), "samples": row.samples}


__all__ = ["checkpoint_record", "finding_record", "metric_record", "run_record"]
