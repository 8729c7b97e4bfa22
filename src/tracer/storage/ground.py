"""What a store stands on: its folder, its catalog, and the lock of the one who maintains it.

`Store` is this with every question and every change on top. The modules that answer and change take a `Ground`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from tracer import places
from tracer.errors import StoreError
from tracer.storage import catalog as catalogs
from tracer.storage import freshness, index, listing
from tracer.storage.catalog import Catalog, CatalogDamaged
from tracer.storage.maintainer import ReadOnly, maintaining
from tracer.storage.values import RunRow

#: Called with how much is done and how much there is.
Progress = Callable[[int, int], None]

_WAIT_S = 10.0
#: What SQLite says where nothing can be written.
_READ_ONLY = re.compile("readonly|unable to open")
logger = logging.getLogger("tracer")


class Ground:
    """The folder of a store with its catalog."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.base = os.fspath(path)
        self.is_network = places.is_network(self.base)
        self.folder = catalogs.catalog_folder(self.base)
        self._reader: Catalog | None = None
        self._writer: Catalog | None = None
        self._said_read_only = False

    @property
    def catalog(self) -> Catalog:
        """The catalog for reading; made from the folders where there is none yet."""
        if self._reader is not None and not self._reader.is_ours:
            self._reader = self._writer = None  # a fork brought them along; connections do not cross it
        if self._reader is None:
            self._reader = self._open_catalog()
        return self._reader

    @contextlib.contextmanager
    def writing(self, wait_s: float = _WAIT_S) -> Iterator[Catalog]:
        """Hold the maintainer's lock and the catalog for writing.

        Args:
            wait_s: How long another maintainer is waited for.

        Raises:
            Busy: Another process maintained the store all the time.
            StoreError: The store cannot be written.
        """
        if self._reader is not None and not self._reader.path:
            yield self._reader  # a catalog in memory: nobody else sees it
            return
        os.makedirs(self.folder, exist_ok=True)
        with maintaining(self.folder, wait_s=wait_s):
            if self._writer is None or not self._writer.is_ours:
                self._writer = Catalog.write(os.path.join(self.folder, catalogs.FILE))
            yield self._writer

    def run_folder(self, row: RunRow) -> str:
        """Return the folder of a run."""
        return os.path.join(self.base, "runs", row.folder)

    def refresh(self) -> dict[str, index.Columns]:
        """Bring the catalog up to the folders, and return what is newer than it can know: by run id, whole rows."""
        overlay: dict[str, index.Columns] = {}
        fresh, gone = index.changed(self.catalog, self.base)
        if fresh or gone:
            try:
                with self.writing(wait_s=0.0) as catalog:
                    index.index(catalog, self.base, fresh)
                    if gone:
                        index.forget(catalog, gone)
            except StoreError as error:
                if isinstance(error, CatalogDamaged):
                    raise
                overlay = freshness.overlay(self.catalog, self.base, list(fresh))
        for columns in listing.runs_where(self.catalog, "WHERE r.status = 'running' AND r.trashed IS NULL"):
            if columns["uid"] not in overlay:
                overlay[columns["uid"]] = freshness.with_sign_of_life(self.base, columns)
        return overlay

    def _open_catalog(self) -> Catalog:
        """Open the catalog for reading; make it, or build it anew, where that is needed."""
        path = os.path.join(self.folder, catalogs.FILE)
        try:
            if os.path.exists(path):
                reader = Catalog.read(path)
                if reader.is_current:
                    reader.check_paths()
                    return reader
                reader.close()
            is_new = not os.path.exists(path)
            with self.writing() as catalog:
                if is_new:
                    self._fill(catalog)
            return Catalog.read(path)
        except (ReadOnly, OSError, sqlite3.OperationalError) as error:
            if isinstance(error, sqlite3.OperationalError) and not _READ_ONLY.search(str(error)):
                raise
            logger.debug("The catalog of %s lies in memory: %s", self.base, error)
            memory = Catalog.memory()
            index.index(memory, self.base, index.list_runs(self.base))
            return memory

    def close(self) -> None:
        """Close the connections; a second time does nothing."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    def _fill(self, catalog: Catalog) -> None:
        """Index the folders in a catalog that was just made."""
        index.index(catalog, self.base, index.list_runs(self.base))


__all__ = ["Ground", "Progress"]
