"""The catalog, built anew from the folders: it is an index, everything in it can be read again."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from tracer.errors import StoreError
from tracer.storage import adoption, catalog, index
from tracer.storage import folder as folders
from tracer.storage.contents import Contents
from tracer.storage.maintainer import maintaining
from tracer.storage.values import RebuildReport

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog, CatalogDamaged
    from tracer.storage.ground import Ground, Progress

_WAIT_S = 10.0
#: Runs whose files are read together.
_TOGETHER = 200
logger = logging.getLogger("tracer")


def rebuild(store: Ground, progress: Progress | None = None) -> RebuildReport:
    """Build the catalog anew; see `Store.rebuild`.

    Everything happens in one transaction, so readers see the old catalog until the new one is whole.
    """
    try:
        with store.writing() as writer:
            return _rebuild(store, writer, progress)
    except catalog.CatalogDamaged as error:
        with maintaining(store.folder, wait_s=_WAIT_S):
            _set_aside(store, error)
            with store.writing() as writer:
                return _rebuild(store, writer, progress)


def replace_damaged(store: Ground, error: CatalogDamaged, *, must: bool = False) -> None:
    """Set a damaged catalog aside and build a new one, unless another process did so already.

    Args:
        store: The store.
        error: What was found.
        must: Believe it even if SQLite's own check finds nothing: that check does not see everything.
    """
    store.close()
    with maintaining(store.folder, wait_s=_WAIT_S):
        if must or not is_sound(os.path.join(store.folder, catalog.FILE)):
            _set_aside(store, error)
            rebuild(store)


def is_sound(path: str) -> bool:
    """Tell whether SQLite finds nothing wrong with a catalog."""
    try:
        found = catalog.Catalog.read(path)
        try:
            found.check_paths()
            return bool(found.value("PRAGMA quick_check") == "ok")
        finally:
            found.close()
    except (catalog.CatalogDamaged, OSError):
        return False


def _rebuild(store: Ground, writer: Catalog, progress: Progress | None) -> RebuildReport:
    """Read every run folder into an emptied catalog."""
    from tracer.storage.retention import trashed_at

    names = index.list_runs(store.base)
    problems: list[str] = []
    with writer.transaction():
        for table in ("run", "segment", "metric", "project"):
            writer.execute(f"DELETE FROM {table}")  # noqa: S608 -- our own names
        problems += index.index(writer, store.base, names)
        runs = writer.rows("SELECT uid, folder FROM run ORDER BY id")
        for start in range(0, len(runs), _TOGETHER):
            chunk = runs[start : start + _TOGETHER]
            paths = [
                path for _, name in chunk for path in adoption.files_in(os.path.join(store.base, "runs", name)).values()
            ]
            contents = Contents(paths)
            for done, (uid, _) in enumerate(chunk, start=start + 1):
                problems += adoption.register_run(writer, store.base, uid, contents=contents)
                if progress is not None:
                    progress(done, len(runs))
        trash = os.path.join(store.base, "trash")
        for name in sorted(os.listdir(trash)) if os.path.isdir(trash) else ():
            if not name.startswith("."):
                problems += index.index_trashed(
                    writer, os.path.join(trash, name), name, trashed_at(os.path.join(trash, name))
                )
    counts = writer.row(
        "SELECT (SELECT count(*) FROM run), (SELECT count(*) FROM segment), (SELECT coalesce(sum(points), 0) FROM run)"
    )
    runs, segments, points = counts if counts is not None else (0, 0, 0)
    return RebuildReport(runs, segments, points, tuple(problems))


def _set_aside(store: Ground, error: StoreError) -> None:
    """Rename a damaged catalog, and say so."""
    store.close()
    with maintaining(store.folder, wait_s=_WAIT_S):
        aside = catalog.set_aside(os.path.join(store.folder, catalog.FILE))
    folders.sync_folder(store.folder)
    logger.warning("%s Set aside as %s; a new one is built from the run folders.", error, aside)


__all__ = ["is_sound", "rebuild", "replace_damaged"]
