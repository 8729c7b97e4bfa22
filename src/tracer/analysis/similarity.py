"""Two runs of different settings that logged exactly the same curve: a setting that is not used, or a result copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tracer.analysis import subjects
from tracer.analysis.kinds import SIMILAR_ACROSS_RUNS
from tracer.events import Finding

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import SeriesRow

#: Shorter curves can agree by chance or by rounding.
_FEWEST = 20


def similar_runs(store: Store, uid: str) -> list[Finding]:
    """Return the runs of the same project with other settings whose training loss is the same, value by value.

    Only runs whose last value is the same are read. Equal settings give equal curves, which is no finding.

    Args:
        store: The store.
        uid: The run.
    """
    chosen = _loss(store, uid)
    if chosen is None:
        return []
    mine = store.run(uid)
    others = {
        run.uid: run
        for run in store.runs(project=mine.project)
        if run.uid != uid and run.steps == mine.steps and dict(run.config) != dict(mine.config)
    }
    if not others:
        return []
    series = store.series(uid, chosen.metric)
    findings = []
    for other, values in store.last_values(list(others)).items():
        if values.get(chosen.metric) != chosen.last:
            continue
        theirs = store.series(other, chosen.metric)
        if np.array_equal(series.step, theirs.step) and np.array_equal(series.value, theirs.value, equal_nan=True):
            details = {"metric": chosen.metric, "run": others[other].name, "values": len(series), "run_id": other}
            findings.append(Finding(SIMILAR_ACROSS_RUNS, "low", int(series.step[0]), details, int(series.step[-1])))
    return findings


def _loss(store: Store, uid: str) -> SeriesRow | None:
    """Return the longest training loss that is no constant."""
    rows = [
        row
        for row in store.metrics(uid)
        if not row.is_text and row.rank == 0 and row.n >= _FEWEST and row.min != row.max
        and subjects.is_loss(row.metric) and not subjects.is_validation(row.metric)
    ]  # fmt: skip
    return max(rows, key=lambda row: row.n, default=None)


__all__ = ["similar_runs"]
