"""Values of metrics that are no numbers: text, None, and on demand integers that no double holds exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer.storage import duck, snapshot, summaries
from tracer.storage.log_rows import LogRow, is_number, text_value
from tracer.storage.names import clean_text

if TYPE_CHECKING:
    from tracer.storage.ground import Ground
    from tracer.storage.snapshot import Snapshot

_TEXTS = (
    "SELECT time, step, rank, kind, level, name, body, fields FROM read_parquet($files) "
    "WHERE kind = 'text' AND name = $name AND rank = 0"
)


def texts(store: Ground, uid: str, metric: str, *, exact_numbers: bool = False) -> list[tuple[int, int, object]]:
    """Return step, time and value of what is no number, sorted by step; of equal steps the last.

    Args:
        store: The store.
        uid: The run.
        metric: The metric's name.
        exact_numbers: Return instead the integers whose points in `Store.series` are rounded to a double.
    """
    summaries.ready(store, uid)
    name = clean_text(metric)

    def read(found: Snapshot, _: int) -> list[tuple[int, int, object]]:
        rows: list[LogRow] = []
        files = found.of("logs")
        if files:
            duck.verify(files)
            with duck.cursor() as cursor, duck.translated(files):
                given = {"files": [file.path for file in files], "name": name}
                rows += [LogRow(*row) for row in cursor.execute(_TEXTS, given).fetchall()]
        rows += [row for row in found.recent().rows if row.kind == "text" and row.name == name and row.rank == 0]
        chosen = {row.step: (row.step, row.time, text_value(row)) for row in rows if is_number(row) is exact_numbers}
        return [chosen[step] for step in sorted(chosen)]

    return snapshot.consistently(store.catalog, store.base, uid, snapshot.nothing, read)


__all__ = ["texts"]
