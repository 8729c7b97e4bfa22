"""A journal writer for commands and `StorageBackend`: what `write` returned from is in the kernel's hands.

One segment in append mode, one `pwrite` per call, sealed and synced at `sync` and `close`. The recorder of a training
run has its own, faster writer; both make the same bytes, drawn in `journal.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import sys
import threading
import weakref
import zlib
from collections.abc import Mapping, Sequence
from typing import Self

from tracer import clock, journal
from tracer.errors import StoreError
from tracer.storage.folder import sync_folder
from tracer.version import __version__

_STEPS = range(-(2**63), 2**63)
_STAMP_AFTER_S = 1.0
_TAIL = slice(4032, 4080)

_open: weakref.WeakSet[CommandWriter] = weakref.WeakSet()


class CommandWriter:
    """One writer of one run: records are added, then written together.

    Args:
        folder: The run's folder.
        uid: The run's id.
        role: Who writes; it stands in the segment's header.
        rank: The rank whose values these are.

    Raises:
        StoreError: The folder takes no file.

    Example:
        >>> with CommandWriter(folder, uid) as writer:  # doctest: +SKIP
        ...     writer.add(journal.Kind.METADATA, {"notes": "the good one"})
    """

    def __init__(self, folder: str | os.PathLike[str], uid: str, *, role: str = "command", rank: int = 0) -> None:
        self.writer = os.urandom(16)
        self._journal = os.path.join(os.fspath(folder), "journal")
        self._lock = threading.RLock()
        self._schemas: dict[tuple[str, ...], int] = {}
        self._axes: dict[tuple[object, ...], int] = {}
        self._pending = bytearray()
        self._key, self._sequence, self._steps = journal.commit_key(1), 0, 0
        self._end = self._sealed = journal.HEADER_SIZE
        self._crc, self._blocks, self._stamped = 0, 0, clock.monotonic()
        self._name = os.path.join(self._journal, journal.segment_name(self.writer, 1))
        # Longer ids stand in run.json; the header has 4 KB.
        identity = _identity(os.path.basename(os.fspath(folder)), uid, role, rank)
        self._fd = self._seal = -1
        hidden = os.path.join(self._journal, "." + os.path.basename(self._name))
        try:
            os.makedirs(self._journal, exist_ok=True)
            self._fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with contextlib.suppress(OSError):  # a network file system may have no locks
                # Held while this process lives: a free lock tells the maintainer that nobody writes any more.
                fcntl.flock(self._fd, fcntl.LOCK_SH)
            self._pwrite(journal.Header(self.writer, 1, 1, 0, identity).pack(), 0)
            self._stamp(closed=False)
            os.rename(hidden, self._name)  # so nobody ever sees a segment without its lock and header
        except (OSError, StoreError) as error:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
                os.unlink(hidden)
            raise error if isinstance(error, StoreError) else _unwritable(self._journal, error) from error
        _open.add(self)

    @property
    def is_closed(self) -> bool:
        """Tell whether nothing can be written any more."""
        return self._fd < 0

    def add_row(self, values: Mapping[str, float], step: int, time: float) -> None:
        """Add the numbers that belong to one step."""
        if not values:
            return
        keys = tuple(values)
        with self._lock:
            # A program that invents names without end gets one schema per name instead of one per combination.
            if keys in self._schemas or len(self._schemas) < journal.MAX_SCHEMAS or len(keys) == 1:
                self._add(self._schema(keys), struct.pack(f"<{len(keys)}d", *values.values()), step, time)
                return
            for name, value in values.items():
                self._add(self._schema((name,)), struct.pack("<d", value), step, time)

    def add(self, kind: int, value: Mapping[str, object], step: int = 0, time: float | None = None) -> None:
        """Add a record whose payload is text."""
        with self._lock:
            self._add(kind, journal.json_payload(value), step, clock.now() if time is None else time)

    def add_layers(
        self, what: str, names: Sequence[str], statistics: Sequence[str], matrix: bytes, step: int, time: float
    ) -> None:
        """Add one float32 matrix, statistics by layers."""
        with self._lock:
            key = (what, tuple(names), tuple(statistics))
            number = self._axes.get(key)
            if number is None:
                number = self._axes[key] = len(self._axes) + 1
                self._add(journal.Kind.AXIS, journal.axis_payload(number, what, names, statistics, ()), step, time)
            self._add(journal.Kind.LAYERS, journal.layers_payload(number, matrix), step, time)

    def write(self) -> None:
        """Hand everything added to the kernel: it survives the end of this process.

        Raises:
            StoreError: The disk does not take it; the records stay and are tried again by the next call.
        """
        with self._lock:
            if self._fd < 0:
                message = f"The journal {self._name} is closed; nothing can be added to it."
                raise StoreError(message)
            if not self._pending:
                return
            self._pwrite(self._pending, self._end)
            self._crc = zlib.crc32(self._pending, self._crc)
            self._end += len(self._pending)
            self._pending = bytearray()
            if clock.monotonic() - self._stamped >= _STAMP_AFTER_S:
                self._stamp(closed=False)

    def sync(self) -> None:
        """Write and seal: from here on the records survive a crash of the machine."""
        with self._lock:
            self.write()
            if self._end == self._sealed:
                return
            if self._seal < 0:
                path = os.path.join(self._journal, journal.seal_name(self.writer))
                self._seal = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
                sync_folder(self._journal)
            self._blocks += 1
            length = self._end - self._sealed
            block = journal.Block(self.writer, 1, 1, self._blocks, self._sealed, length, self._crc)
            try:
                os.fdatasync(self._fd)  # the bytes first, then the header that vouches for them
                os.write(self._seal, block.pack())
                os.fdatasync(self._seal)
            except OSError as error:
                raise _unwritable(self._name, error) from error
            self._sealed, self._crc = self._end, 0

    def close(self) -> None:
        """Seal, mark the segment closed and let go of it; a second time does nothing."""
        with self._lock:
            if self._fd < 0:
                return
            try:
                self.sync()
                self._stamp(closed=True)
                os.fsync(self._fd)
            finally:
                self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _schema(self, keys: tuple[str, ...]) -> int:
        """Return the number of a row schema, declared in the segment before its first use."""
        number = self._schemas.get(keys)
        if number is None:
            number = self._schemas[keys] = journal.FIRST_ROW_SCHEMA + len(self._schemas)
            self._add(journal.Kind.SCHEMA, journal.schema_payload(number, keys), 0, clock.now())
        return number

    def _add(self, kind: int, payload: bytes, step: int, time: float) -> None:
        """Add the bytes of one record."""
        if step not in _STEPS:
            message = f"The step {step!r} does not fit in 64 bits; use one between -2**63 and 2**63 - 1."
            raise ValueError(message)
        self._sequence += 1
        self._steps = max(self._steps, step)
        sequence = self._sequence & 0xFFFFFFFF
        self._pending += journal.record_bytes(kind, payload, step, time, sequence, self._key)

    def _pwrite(self, data: bytes | bytearray, offset: int) -> None:
        """Write all bytes at an offset; a torn attempt is overwritten by the next, so nothing is ever cut off."""
        view = memoryview(data)
        done = 0
        try:
            while done < len(view):
                done += os.pwrite(self._fd, view[done:], offset + done)
        except OSError as error:
            raise _unwritable(self._name, error) from error
        finally:
            view.release()

    def _stamp(self, *, closed: bool) -> None:
        """Rewrite the heartbeat, the steps and, at the end, where the records end."""
        header = bytearray(journal.HEADER_SIZE)
        journal.stamp(header, closed=closed, end=self._end if closed else 0, steps=self._steps)
        self._pwrite(header[_TAIL], _TAIL.start)
        self._stamped = clock.monotonic()

    def _let_go(self) -> None:
        """Close the descriptors, which frees the lock."""
        for descriptor in (self._fd, self._seal):
            if descriptor >= 0:
                os.close(descriptor)
        self._fd = self._seal = -1
        _open.discard(self)


def _identity(folder: str, uid: str, role: str, rank: int) -> dict[str, object]:
    """Return whose segment it is."""
    return {
        "run": uid[:500],
        "folder": folder,
        "host": socket.gethostname()[:200],
        "pid": os.getpid(),
        "process_started": clock.process_started(),
        "boot": clock.boot_id(),
        "thread": threading.get_native_id(),
        "rank": rank,
        "local_rank": rank,
        "world_size": 1,
        "role": role,
        "attempt": 1,
        "opened": clock.now_us(),
        "opened_monotonic": clock.monotonic_ns(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "tracer": __version__,
        "mode": "append",
    }


def _unwritable(path: str, error: OSError) -> StoreError:
    """Return the error that says which file the disk did not take, and what to do."""
    message = (
        f"{path} cannot be written ({error.strerror}). Free space or mend the rights of the folder, then try again."
    )
    return StoreError(message)


def _forget_in_child() -> None:
    """Let go of the parent's segments after a fork: a child that outlives it would keep its lock alive."""
    for writer in list(_open):
        writer._lock = threading.RLock()  # noqa: SLF001 -- another thread of the parent may have held it
        writer._let_go()  # noqa: SLF001 -- the same file's class


os.register_at_fork(after_in_child=_forget_in_child)

__all__ = ["CommandWriter"]
