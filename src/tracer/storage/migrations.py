"""Changes of the catalog's schema: numbered functions, run in one transaction after a copy of the file.

`PRAGMA user_version` is the number of the last one that ran. A change that fails leaves the copy and the file as they
were; the catalog is an index, so `tracer doctor` can also build it anew.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable

from tracer.errors import SchemaTooNew, StoreError
from tracer.storage.tables import ARTIFACTS, LAYER_PARTS, TABLES

#: "TRAC": lets `file` and ourselves tell the catalog from any other SQLite file.
APPLICATION_ID = 0x54524143


def _tables(connection: sqlite3.Connection) -> None:
    """Create everything: the first version that was released."""
    for statement in _statements(TABLES):
        connection.execute(statement)


def _layer_parts(connection: sqlite3.Connection) -> None:
    """Take in layer values that lie layer by layer."""
    for statement in _statements(LAYER_PARTS):
        connection.execute(statement)


def _artifacts(connection: sqlite3.Connection) -> None:
    """Take in artifacts; what runs have of them is read when somebody asks."""
    for statement in _statements(ARTIFACTS):
        connection.execute(statement)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_tables, _layer_parts, _artifacts)


def version(connection: sqlite3.Connection) -> int:
    """Return the number of the schema in a file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check_version(connection: sqlite3.Connection, path: str) -> int:
    """Return the schema's number, or refuse a file that is not ours or newer than we are."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    found = version(connection)
    if found and application != APPLICATION_ID:
        message = (
            f"{path} is a database of another program (application id {application:#x}). Move it out of the store."
        )
        raise StoreError(message)
    if found > len(MIGRATIONS):
        message = (
            f"{path} has schema {found}; this Tracer knows up to {len(MIGRATIONS)}. Update: pip install -U ml-tracer. "
            "Nothing was changed."
        )
        raise SchemaTooNew(message)
    return found


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring a catalog to the newest schema; one transaction, with a copy of the file before.

    Args:
        connection: A connection in autocommit mode that may write.
        path: The file, named in messages and copied; empty for a catalog in memory.
    """
    found = check_version(connection, path)
    if found == len(MIGRATIONS):
        return
    if found and path:
        _copy(connection, f"{path}.before-{found + 1}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for change in MIGRATIONS[version(connection) :]:
            change(connection)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:  # an interrupt too: all of a migration or nothing
        connection.execute("ROLLBACK")
        raise


def _copy(connection: sqlite3.Connection, path: str) -> None:
    """Copy a catalog, its write-ahead log included."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with contextlib.closing(sqlite3.connect(path)) as copy:
        connection.backup(copy)


def _statements(text: str) -> list[str]:
    """Return the statements of a text of SQL."""
    found: list[str] = []
    pending = ""
    for line in text.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    return [statement for statement in found if statement != ";"]


__all__ = ["APPLICATION_ID", "MIGRATIONS", "check_version", "migrate", "version"]
