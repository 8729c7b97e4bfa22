"""What the catalog's cells and rows mean: SQLite holds neither NaN nor -0.0, and a finding is a row of `logs`."""

from __future__ import annotations

from tracer.storage.log_rows import LogRow, finding_id
from tracer.storage.values import FindingRow

#: Last kinds of a series: SQLite keeps NaN as NULL and -0.0 as 0.
NUMBER, NAN, MINUS_ZERO = 0, 1, 2


def number(last: float | None, kind: int) -> float:
    """Return a last value from the catalog: the one place where NULL turns back into NaN, and 0 into -0.0."""
    if kind == MINUS_ZERO:
        return -0.0
    return float("nan") if kind == NAN or last is None else last


def finding_row(uid: str, row: LogRow) -> FindingRow:
    """Return the finding that a row of `logs` holds."""
    said = row.object()
    last_step, details = said.get("last_step"), said.get("details")
    return FindingRow(
        finding_id(uid, row), uid, row.rank, row.step, last_step if isinstance(last_step, int) else None,
        row.name or "", row.level or "", details if isinstance(details, dict) else {},
        str(said.get("source", "live")), row.time,
    )  # fmt: skip


__all__ = ["MINUS_ZERO", "NAN", "NUMBER", "finding_row", "number"]
