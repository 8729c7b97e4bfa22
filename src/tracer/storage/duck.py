"""DuckDB as we use it: one database in memory per process, one cursor per query, every answer fetched at once.

DuckDB never holds our data: a file of its own refuses readers in other processes. It writes Parquet and reads it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb

from tracer.errors import StoreError
from tracer.storage.snapshot import File, FileGone

if TYPE_CHECKING:
    import numpy.typing as npt

    Arrays = dict[str, npt.NDArray[Any]]

_MEMORY = "1GB"
_PIECE = 1 << 20

_lock = threading.Lock()
_database: tuple[int, duckdb.DuckDBPyConnection] | None = None
_verified: set[str] = set()
#: How many Parquet files were opened for reading; overviews and tables leave it as it is.
opened = 0


def settings(memory: str = _MEMORY, threads: int | None = None) -> dict[str, Any]:
    """Return what a database is configured with: nothing is fetched, nothing grows without a bound."""
    return {
        "threads": threads or max(1, min(4, os.cpu_count() or 1)),
        "memory_limit": memory,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }


@contextlib.contextmanager
def cursor() -> Iterator[duckdb.DuckDBPyConnection]:
    """Lend a cursor of this process's database."""
    found = _shared().cursor()
    try:
        yield found
    finally:
        found.close()


def select(sql: str, files: Sequence[File], parameters: Mapping[str, object] | None = None) -> Arrays:
    """Return the columns of a query over Parquet files as arrays.

    Args:
        sql: The query; `$files` stands for the paths, unless it names them itself.
        files: The files, each of which is compared with its checksum the first time this process reads it.
        parameters: Further parameters.

    Raises:
        FileGone: A file is not there any more.
        StoreError: A file is damaged.
    """
    global opened  # noqa: PLW0603 -- a count of the process
    verify(files)
    opened += len(files)
    with cursor() as found, translated(files):
        given = {**({"files": [file.path for file in files]} if "$files" in sql else {}), **(parameters or {})}
        return found.execute(sql, given or None).fetchnumpy()


def verify(files: Sequence[File]) -> None:
    """Compare files with their checksums, each once in a process.

    Raises:
        FileGone: A file is not there any more.
        StoreError: A file is not what was written.
    """
    for file in files:
        if file.path in _verified:
            continue
        if crc_of(file.path) != file.crc:
            message = (
                f"{file.path} is damaged: its bytes fail their check. The other files of the store are whole. "
                "`tracer doctor --repair` sets it aside and keeps what can be kept."
            )
            raise StoreError(message)
        _verified.add(file.path)


def crc_of(path: str) -> int:
    """Return the CRC-32 of a file."""
    crc = 0
    try:
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                crc = zlib.crc32(piece, crc)
    except FileNotFoundError as error:
        message = f"{path} is not there any more."
        raise FileGone(message) from error
    except (OSError, ValueError) as error:
        message = f"{path!r} cannot be read ({error})."
        raise StoreError(message) from error
    return crc


@contextlib.contextmanager
def translated(files: Sequence[File]) -> Iterator[None]:
    """Turn what DuckDB says of a file into our errors."""
    try:
        yield
    except duckdb.Error as error:
        for file in files:
            if not os.path.exists(file.path):
                message = f"{file.path} is not there any more."
                raise FileGone(message) from error
        names = ", ".join(file.path for file in files[:3])
        message = f"{names} cannot be read: {str(error).splitlines()[0]}. `tracer doctor` says what is wrong."
        raise StoreError(message) from error


def literal(text: str) -> str:
    """Return text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _shared() -> duckdb.DuckDBPyConnection:
    """Return this process's database; a fork gets one of its own."""
    global _database  # noqa: PLW0603 -- one per process
    with _lock:
        if _database is None or _database[0] != os.getpid():
            connection = duckdb.connect(config=settings())
            connection.execute("SET parquet_metadata_cache = true")
            _database = (os.getpid(), connection)
        return _database[1]


def _forget_in_child() -> None:
    """In a forked child: make a new lock, the parent's may be held; the database is made anew by its process id."""
    global _lock  # noqa: PLW0603 -- one per process
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_in_child)

__all__ = ["crc_of", "cursor", "literal", "opened", "select", "settings", "translated", "verify"]
