"""What a run printed, logged and noted: rows of `logs` that are lines, records and events, in the order of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer.storage import duck, snapshot, summaries
from tracer.storage.log_rows import LogRow

if TYPE_CHECKING:
    from tracer.storage.ground import Ground
    from tracer.storage.snapshot import Snapshot

KINDS = ("line", "log", "event")
_ROWS = (
    "SELECT time, step, rank, kind, level, name, body, fields FROM read_parquet($files) "
    "WHERE kind IN ('line', 'log', 'event') AND ($rank IS NULL OR rank = $rank) AND time >= $since "
    "AND step >= $start AND step < $stop ORDER BY time"
)
_FOREVER = 2**63 - 1


def log_lines(
    store: Ground,
    uid: str,
    *,
    rank: int | None = None,
    start: int | None = None,
    stop: int | None = None,
    since: int | None = None,
) -> list[LogRow]:
    """Return lines, records and events of a run; see `Store.log_lines`."""
    summaries.ready(store, uid)
    first, end = -_FOREVER if start is None else start, _FOREVER if stop is None else stop
    earliest = -_FOREVER if since is None else since
    conditions = {"rank": rank, "since": earliest, "start": first, "stop": end}

    def is_wanted(row: LogRow) -> bool:
        return row.kind in KINDS and rank in (None, row.rank) and row.time >= earliest and first <= row.step < end

    def read(found: Snapshot, _: int) -> list[LogRow]:
        rows: list[LogRow] = []
        files = found.of("logs")
        if files:
            duck.verify(files)
            with duck.cursor() as cursor, duck.translated(files):
                given = {"files": [file.path for file in files], **conditions}
                rows += [LogRow(*row) for row in cursor.execute(_ROWS, given).fetchall()]
        rows += filter(is_wanted, found.recent().rows)
        return sorted(rows, key=lambda row: row.time)

    return snapshot.consistently(store.catalog, store.base, uid, snapshot.nothing, read)


__all__ = ["KINDS", "log_lines"]
