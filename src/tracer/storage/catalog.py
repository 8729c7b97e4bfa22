"""The catalog: `tracer.db`, an SQLite index over the run folders.

Readers open it read-only; only the holder of the maintainer's lock writes. A connection never crosses a fork, and no
read transaction is kept open while a user thinks, or the write-ahead log could not shrink.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from tracer import places
from tracer.errors import StoreError
from tracer.storage.migrations import MIGRATIONS, check_version, migrate
from tracer.storage.tables import SETTINGS

FILE = "tracer.db"
_BUSY_S = 5.0
_CACHE_KIB = 8_192
_OUTSIDE = """
SELECT EXISTS (SELECT 1 FROM run WHERE folder IN ('', '.', '..') OR instr(folder, '/'))
  OR EXISTS (SELECT 1 FROM segment WHERE substr(path, 1, 5) <> 'runs/' OR instr(path, '/../'))
"""

Row = tuple[Any, ...]


class CatalogDamaged(StoreError):
    """The catalog's bytes make no sense any more; it is renamed aside and built anew from the folders."""


class Catalog:
    """One connection to the catalog, shared by the threads of one process."""

    def __init__(self, connection: sqlite3.Connection, path: str, *, writable: bool) -> None:
        self.connection, self.path, self.writable = connection, path, writable
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._file = _file_id(path)

    @classmethod
    def read(cls, path: str) -> Catalog:
        """Open for reading; a file that nobody can write beside is read as it lies."""
        # The write-ahead log needs a file beside the catalog; where none can be made, nobody writes the catalog either.
        mode = "mode=ro" if os.access(os.path.dirname(path) or ".", os.W_OK) else "immutable=1"
        with _damage(path):
            connection = _connect(f"file:{quote(path)}?{mode}", uri=True)
            with _closed_on_failure(connection):
                connection.execute("PRAGMA query_only=1")
                check_version(connection, path)
            return cls(connection, path, writable=False)

    @classmethod
    def write(cls, path: str) -> Catalog:
        """Open for writing, made and migrated where needed; the caller holds the maintainer's lock."""
        with _damage(path):
            connection = _connect(path)
            with _closed_on_failure(connection):
                check_version(connection, path)
                connection.executescript(SETTINGS)
                connection.execute("PRAGMA synchronous=FULL")
                connection.execute("PRAGMA foreign_keys=ON")
                # What was deleted must not be found in the file; pages that become free are cut off at a purge.
                connection.execute("PRAGMA secure_delete=FAST")
                migrate(connection, path)
            return cls(connection, path, writable=True)

    @classmethod
    def memory(cls) -> Catalog:
        """Make a catalog that lives in this process only: for a store that nobody may write."""
        connection = _connect(":memory:")
        connection.execute("PRAGMA foreign_keys=ON")
        migrate(connection, "")
        return cls(connection, "", writable=True)

    @property
    def is_ours(self) -> bool:
        """Tell whether this process opened the connection, and the file is still the one of that name."""
        return self._pid == os.getpid() and (not self.path or self._file == _file_id(self.path))

    @property
    def is_current(self) -> bool:
        """Tell whether the file has the schema that this version reads."""
        return bool(self.value("PRAGMA user_version") == len(MIGRATIONS))

    def check_paths(self) -> None:
        """See that every folder and file that the catalog names lies in the store: a foreign file may say anything."""
        if self.value(_OUTSIDE):
            message = f"The catalog {self.path} names files outside of its store. It is an index: it is built anew."
            raise CatalogDamaged(message)

    def rows(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> list[Row]:
        """Return all rows of a query."""
        with self._lock, _damage(self.path):
            return self.connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> Row | None:
        """Return the first row of a query, or None."""
        with self._lock, _damage(self.path):
            found: Row | None = self.connection.execute(sql, parameters).fetchone()
            return found

    def value(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> Any:  # noqa: ANN401 -- a cell
        """Return the first cell of a query, or None."""
        found = self.row(sql, parameters)
        return None if found is None else found[0]

    def execute(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> sqlite3.Cursor:
        """Run a statement inside a transaction."""
        with _damage(self.path):
            return self.connection.execute(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement for each row, inside a transaction."""
        with _damage(self.path):
            self.connection.executemany(sql, rows)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all queries of a block see one moment."""
        with self._lock:
            if self.connection.in_transaction:
                yield
                return
            with _damage(self.path):
                self.connection.execute("BEGIN")
            try:
                yield
            finally:
                self.connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit a block whole, or not at all."""
        with self._lock:
            if self.connection.in_transaction:
                yield
                return
            with _damage(self.path):
                self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:  # an interrupt too, and it goes on to the caller
                self._roll_back()
                raise

    def close(self) -> None:
        """Close the connection; one that a fork brought along is only forgotten."""
        if self._pid == os.getpid():
            self.connection.close()

    def _roll_back(self) -> None:
        """End a transaction that failed; SQLite may have done so itself."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")


def catalog_folder(store: str) -> str:
    """Return where the catalog of a store lies: in the store, or in the user's cache where SQLite must not go."""
    if not places.is_network(store):
        return store
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    key = hashlib.sha256(os.path.realpath(store).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return os.path.join(cache, "tracer", "catalogs", key)


def set_aside(path: str) -> str:
    """Rename a damaged catalog, with its write-ahead log, and return its new name."""
    number = 1
    while os.path.exists(f"{path}.damaged-{number}"):
        number += 1
    aside = f"{path}.damaged-{number}"
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, aside + suffix)
    return aside


def _connect(path: str, *, uri: bool = False) -> sqlite3.Connection:
    """Open a connection in autocommit mode: transactions are written out where they begin."""
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, uri=uri, check_same_thread=False)
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    return connection


def _file_id(path: str) -> tuple[int, int]:
    """Return what tells a file from another that took its name."""
    try:
        state = os.stat(path)
    except OSError:
        return (0, 0)
    return (state.st_dev, state.st_ino)


@contextlib.contextmanager
def _closed_on_failure(connection: sqlite3.Connection) -> Iterator[None]:
    """Close a connection when opening it comes to nothing."""
    try:
        yield
    except BaseException:  # an interrupt too must not leave the file open
        connection.close()
        raise


@contextlib.contextmanager
def _damage(path: str) -> Iterator[None]:
    """Turn what SQLite says of a broken file into our error."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.DatabaseError as error:
        # A busy or full disk is an operational error too, and passes; text that is no text is damage.
        if isinstance(error, sqlite3.OperationalError) and "UTF-8" not in str(error):
            raise
        message = f"The catalog {path} is damaged ({error}). It is an index: `tracer doctor` builds it anew."
        raise CatalogDamaged(message) from error


__all__ = ["FILE", "Catalog", "CatalogDamaged", "Row", "catalog_folder", "set_aside"]
