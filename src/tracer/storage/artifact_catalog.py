"""Records of artifacts → rows of the catalog, and all of them at once.

A run's folder of records changes its modification time with every record, so one look at each run tells which must be
read again. Where the catalog cannot be written, what it does not know is read from the folders each time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tracer import clock
from tracer.errors import StoreError
from tracer.storage.artifact_contents import FOLDER
from tracer.storage.artifact_records import INDEX, Record, read_records, record_of
from tracer.storage.catalog import CatalogDamaged
from tracer.storage.folder import modified_ns

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog
    from tracer.storage.ground import Ground

#: A folder changed within this time may change again within the same tick of the file system's clock.
_RACY_NS = 50_000_000
_NOBODY_KNOWS = -1


class Row(NamedTuple):
    """A record, and whose it is."""

    uid: str
    run: str
    folder: str
    record: Record


def all_records(store: Ground, where: str = "", given: Sequence[object] = ()) -> list[Row]:
    """Return the records of all runs that are not in the trash; the catalog is brought up to the folders first.

    Args:
        store: The store.
        where: A condition on the rows `a` of the catalog, with `AND` before it; what the catalog could not take in yet
            comes in any case.
        given: The condition's values.
    """
    store.refresh()
    changed = _changed(store)
    if changed:
        try:
            with store.writing(wait_s=0.0) as catalog:
                _index(catalog, store.base, changed)
            changed = {}
        except CatalogDamaged:
            raise
        except (StoreError, OSError):
            pass  # somebody else maintains the store, or nobody may: the folders are read
    rows = store.catalog.rows(
        "SELECT r.uid, r.name, r.folder, a.body FROM artifact a JOIN run r ON r.id = a.run "  # noqa: S608 -- ours
        f"WHERE r.trashed IS NULL {where}",
        given,
    )
    found = [Row(uid, name, folder, record_of(body)) for uid, name, folder, body in rows if folder not in changed]
    for folder, (_, uid, name, _) in changed.items():
        found += [Row(uid, name, folder, one) for one in read_records(os.path.join(store.base, "runs", folder))]
    return found


def _changed(store: Ground) -> dict[str, tuple[int, str, str, int]]:
    """Return the runs whose records are not those of the catalog: folder → number, id, name, mark."""
    rows = store.catalog.rows(
        "SELECT r.id, r.uid, r.name, r.folder, coalesce(m.mark, 0) FROM run r "
        "LEFT JOIN artifact_mark m ON m.run = r.id WHERE r.trashed IS NULL"
    )
    found: dict[str, tuple[int, str, str, int]] = {}
    for run, uid, name, folder, known in rows:
        mark = modified_ns(os.path.join(store.base, "runs", folder, FOLDER, INDEX))
        if mark != known:
            found[folder] = (run, uid, name, mark)
    return found


def _index(catalog: Catalog, base: str, changed: dict[str, tuple[int, str, str, int]]) -> None:
    """Read the records of some runs into the catalog."""
    with catalog.transaction():
        for folder, (run, _, _, mark) in changed.items():
            records = read_records(os.path.join(base, "runs", folder))
            catalog.execute("DELETE FROM artifact WHERE run = ?", (run,))
            catalog.executemany(
                "INSERT INTO artifact(run, project, name, version, type, direction, digest, bytes, uri, metadata, "
                "created, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(run, *_columns(record)) for record in records],
            )
            is_settled = clock.now_ns() - mark > _RACY_NS
            catalog.execute(
                "INSERT OR REPLACE INTO artifact_mark(run, mark) VALUES (?, ?)",
                (run, mark if is_settled else _NOBODY_KNOWS),
            )


def _columns(record: Record) -> tuple[object, ...]:
    """Return the columns of a record."""
    return (
        record.project, record.name, record.version, record.type, record.direction, record.digest, record.bytes,
        record.uri, json.dumps(dict(record.metadata), default=str), record.created, record.text(),
    )  # fmt: skip


__all__ = ["Row", "all_records"]
