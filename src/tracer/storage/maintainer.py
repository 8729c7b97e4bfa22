"""Who may fold, compact, delete and write the catalog: the one process that holds `maintainer.lock`.

The lock is taken for one piece of work, not for a lifetime, so companions and commands take turns. Inside a process it
may be taken again by the same thread; threads wait for each other.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import threading
from collections.abc import Iterator

from tracer import clock
from tracer.errors import StoreError

FILE = "maintainer.lock"
_POLL_S = 0.005
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOSPC, errno.EDQUOT)


class _Lock:
    """The lock of one store in this process."""

    __slots__ = ("depth", "fd", "thread")

    def __init__(self) -> None:
        self.thread, self.fd, self.depth = threading.RLock(), -1, 0


_locks: dict[str, _Lock] = {}
_registry = threading.Lock()


class ReadOnly(StoreError):
    """The store's folder takes no lock file: it can be read, not maintained."""


class Busy(StoreError):
    """Another process maintains the store just now."""


@contextlib.contextmanager
def maintaining(folder: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the maintainer's lock of the store whose catalog lies in a folder.

    Args:
        folder: The catalog's folder.
        wait_s: How long another holder is waited for.

    Raises:
        Busy: Another process held it all the time.
        ReadOnly: The folder takes no lock file.
    """
    path = os.path.join(os.path.realpath(folder), FILE)
    with _registry:
        lock = _locks.setdefault(path, _Lock())
    if not lock.thread.acquire(timeout=max(wait_s, 0.0)):
        raise Busy(_busy_message(path))
    try:
        if lock.depth == 0:
            lock.fd = _take(path, clock.monotonic() + wait_s)
        lock.depth += 1
        try:
            yield
        finally:
            lock.depth -= 1
            if lock.depth == 0 and lock.fd >= 0:
                os.close(lock.fd)
                lock.fd = -1
    finally:
        lock.thread.release()


def _take(path: str, until: float) -> int:
    """Return a descriptor that holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        message = f"{path} cannot be opened ({error.strerror}): this store can be read, not maintained."
        raise ReadOnly(message) from error
    try:
        _wait(descriptor, path, until)
        with contextlib.suppress(OSError):  # who holds it is for people; a full disk must not stop the work
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()} {clock.now_us()}\n".encode(), 0)
    except BaseException:  # an interrupt too, and it goes on to the caller
        os.close(descriptor)
        raise
    return descriptor


def _wait(descriptor: int, path: str, until: float) -> None:
    """Wait for the lock, at most until a monotonic time."""
    pause = threading.Event()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if clock.monotonic() >= until:
                raise Busy(_busy_message(path)) from None
            clock.wait(pause, _POLL_S)
        else:
            return


def _busy_message(path: str) -> str:
    """Say who holds the lock."""
    holder = "another thread of this process"
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        words = file.read().split()
        if len(words) == 3 and words[0] != str(os.getpid()):  # noqa: PLR2004 -- pid, host, since
            holder = f"process {words[0]} on {words[1]}"
    return f"The store is being maintained by {holder}. Try again in a moment."


def _forget_in_child() -> None:
    """After a fork the lock is the parent's: the child lets go of its copy of the descriptor."""
    for lock in _locks.values():
        if lock.fd >= 0:
            os.close(lock.fd)
    _locks.clear()


os.register_at_fork(after_in_child=_forget_in_child)

__all__ = ["FILE", "Busy", "ReadOnly", "maintaining"]
